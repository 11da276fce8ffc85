"""What a model finds where a label is every voxel whose probability reaches a threshold, for several thresholds.

A decision at any of the thresholds needs no probabilities: it is enough to know how many of the thresholds each voxel
reaches. That is a map of small whole numbers, mostly zeros, and is what is kept of a prediction.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunet_ext.evaluation.bootstrap import ratio
from nnunet_ext.evaluation.lesions import count_lesions
from nnunet_ext.evaluation.metrics.label_in_case import DetectionCounts, LabelInCase
from nnunet_ext.evaluation.metrics.lesions import f1
from nnunet_ext.evaluation.surface import bounding_box
from nnunet_ext.files import written_whole
from nnunet_ext.preprocessing.raw.instances import components

# dense at both ends: losses that weigh the foreground up, or Dice, leave few probabilities in between
DEFAULT_THRESHOLDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
DEFAULT_THRESHOLDS += tuple(round(1 - threshold, 3) for threshold in reversed(DEFAULT_THRESHOLDS[:-1]))

Steps = npt.NDArray[np.unsignedinteger[Any]]

COUNTS = DetectionCounts._fields
Point = tuple[str, float, DetectionCounts]
"""What is counted, ``voxel`` (without ignored ones) or ``lesion``; the threshold; what is found.

The threshold is NaN for nnU-Net's own decision, which takes the most probable label.
"""


@dataclass(frozen=True)
class ReachedThresholds:
    """How many of the thresholds the probabilities of a case reach."""

    thresholds: tuple[float, ...]  # ascending, each above 0 and below 1
    steps: Mapping[str, Steps]  # by label name, (Z, Y, X), each from 0 to the number of thresholds


def operating_points(points: Iterable[Point]) -> pd.DataFrame:
    """The points of several cases, added up: columns level, threshold, those of `COUNTS`, recall, precision, f1."""
    rows = pd.DataFrame([(level, threshold, *counts) for level, threshold, counts in points])
    rows.columns = ["level", "threshold", *COUNTS]
    table = rows.groupby(["level", "threshold"], sort=False, dropna=False, as_index=False).sum()
    sums = table[["found", "reference", "right", "predicted"]].to_numpy(np.float64).reshape(-1, 2, 2)
    recall, precision = ratio(sums[..., 0], sums[..., 1]).T
    return table.assign(recall=recall, precision=precision, f1=f1(sums))


def best_point(curve: pd.DataFrame) -> pd.Series | None:
    """The row of the highest F1, of several the highest threshold; None if F1 is 0 or undefined in all of them."""
    some = curve[curve["f1"] > 0].sort_values(["f1", "threshold"])
    return None if some.empty else some.iloc[-1]


def reached_thresholds(
    probabilities: npt.NDArray[np.float32], channels: Mapping[str, int], thresholds: Sequence[float]
) -> ReachedThresholds:
    """Compare the probabilities of a case with all thresholds. One that is equal to a threshold reaches it.

    Args:
        probabilities: (C, Z, Y, X).
        channels: the channel of each label by its name.
        thresholds: ascending. They are rounded to float32, as the probabilities are.
    """
    steps = {}
    for label, channel in channels.items():
        reached = np.zeros(probabilities.shape[1:], np.min_scalar_type(len(thresholds)))
        for threshold in thresholds:
            reached += probabilities[channel] >= np.float32(threshold)
        steps[label] = reached
    return ReachedThresholds(tuple(thresholds), steps)


def thresholds_file(predictions: Path, case: str) -> Path:
    """Where the reached thresholds of a case are, beside the folder with the predictions."""
    return predictions.with_name(f"{predictions.name}_thresholds") / f"{case}.npz"


def write_thresholds(file: Path, reached: ReachedThresholds) -> None:
    """Write a compressed NumPy archive, whole or not at all, into a folder that is made if it is not there."""
    file.parent.mkdir(exist_ok=True)
    with written_whole(file) as temporary, temporary.open("wb") as stream:
        labels, steps = list(reached.steps), np.stack(list(reached.steps.values()))
        np.savez_compressed(stream, thresholds=reached.thresholds, labels=labels, steps=steps)


def known_thresholds(file: Path, labels: Sequence[str]) -> tuple[float, ...]:
    """The thresholds that a file of `write_thresholds` knows; none if it is not there or is about other labels."""
    if not file.is_file():
        return ()
    with np.load(file) as content:
        return tuple(content["thresholds"].tolist()) if content["labels"].tolist() == list(labels) else ()


def read_thresholds(file: Path) -> ReachedThresholds:
    """Read a file of `write_thresholds`."""
    with np.load(file) as content:
        steps = dict(zip(content["labels"].tolist(), content["steps"]))
        return ReachedThresholds(tuple(content["thresholds"].tolist()), steps)


def count_operating_points(
    label: LabelInCase, steps: Steps, known: Sequence[float], *, thresholds: Sequence[float], lesions: bool
) -> list[Point]:
    """Count what is found of a label in a case at each threshold, and last by nnU-Net's own decision.

    Args:
        steps: how many of the known thresholds each voxel reaches.
        known: thresholds, ascending.
        thresholds: those of them to count at, ascending.
        lesions: whether to count instances too.
    """
    reference, instances = label.reference, label.instances
    counted = np.ones_like(reference) if label.ignored is None else ~label.ignored
    wanted = {threshold: known.index(threshold) + 1 for threshold in thresholds}
    some = (steps > 0) & counted
    predicted, both = (_at_least(steps[where], max(wanted.values())) for where in (some, some & reference))
    found = {
        threshold: DetectionCounts(label.voxels.reference, int(both[step]), int(predicted[step]), int(both[step]))
        for threshold, step in wanted.items()
    }
    points = [("voxel", *point) for point in [*found.items(), (math.nan, label.voxels)]]
    if not lesions:
        return points
    found = dict.fromkeys(wanted, DetectionCounts())
    if reference.any() or steps.any():
        box = bounding_box(reference | (steps > 0))  # all instances are in it; most of a volume is often empty
        reference, steps, ignored = reference[box], steps[box], ~counted[box]
        instances = components(reference.astype(np.uint8), [1]) if instances is None else instances[box]
        found = {
            threshold: count_lesions(
                reference, steps >= step, instances=instances, ignored=ignored, overlap=label.overlap_share
            )
            for threshold, step in wanted.items()
        }
    return points + [("lesion", *point) for point in [*found.items(), (math.nan, label.lesions)]]


def _at_least(steps: Steps, highest: int) -> npt.NDArray[np.int64]:
    """How many voxels reach at least 0, 1, …, `highest` thresholds."""
    return np.bincount(steps, minlength=highest + 1)[::-1].cumsum()[::-1]
