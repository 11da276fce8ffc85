"""Datasets of scribbles, simulated from datasets whose labels are dense."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_ext.errors import UserError
from nnunet_ext.formats.annotated_labels import SCRIBBLED
from nnunet_ext.preprocessing.raw.new_dataset import WEAK
from nnunet_ext.preprocessing.raw.places import file_axes
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset
from nnunet_ext.preprocessing.simulate.scribble_statistics import CaseCounts, class_values, count_scribbles
from nnunet_ext.preprocessing.simulate.scribbles import Strokes, scribble_map, slicing_axis
from nnunet_ext.preprocessing.simulate.weaker_dataset import LARGEST_NUMBER, weaker_dataset

SCRIBBLES = "scribbles.json"
AXES = ("x", "y", "z")  # of files


@dataclass(frozen=True)
class ScribbleAnnotation:
    """What was drawn: counts by case, the ignore label's value, and whether images are two-dimensional."""

    counts: Mapping[str, CaseCounts]
    ignore: int
    flat: bool

    @property
    def without_foreground(self) -> int:
        """How many cases have background alone."""
        foreground = [sum(one.voxels for one in list(case.classes.values())[1:]) for case in self.counts.values()]
        return foreground.count(0)


def simulate_scribbles(
    source: RawDataset, name: str, strokes: Strokes, *, axis: str | None, seed: int, force: bool
) -> ScribbleAnnotation:
    """Write a raw dataset of the same images whose labels are scribbles and the ignore label.

    Beside its labels there are the dense ones, the folds of the source, and a JSON file of what was drawn. The draws of
    a case depend on its name and the seed, not on the other cases. Slices are across the `axis` x, y or z; None takes
    that of the largest spacing, in each case. For `name` and `force` see `weaker_dataset`.
    """
    values = class_values(source)
    ignore = max(values.values()) + 1 if source.ignore_label is None else source.ignore_label
    if ignore > LARGEST_NUMBER:
        raise UserError(
            f"The ignore label of {source.folder.name} would be {ignore}, but {LARGEST_NUMBER} is the largest value "
            "that nnU-Net writes. Number the labels from 1."
        )
    counts: dict[str, CaseCounts] = {}
    record = {}
    with weaker_dataset(source, name, force=force) as new:
        for case, labels, properties in new.dense_labels("Drawing scribbles"):
            across = chosen_axis(axis, labels.shape, properties, file=source.cases[case].label)
            rng = np.random.default_rng([seed, *case.encode()])
            scribbles, drawn = scribble_map(labels, list(values.values()), ignore, strokes, rng, axis=across)
            counts[case] = count_scribbles(scribbles, labels, values, axis=across)
            in_file = slices_in_file(across, drawn, labels.shape, properties)
            record[case] = {**in_file, **asdict(counts[case])}
            new.write(WEAK, case, scribbles, properties)
        annotation = ScribbleAnnotation(counts, ignore, new.flat)
        if annotation.without_foreground == len(counts):
            raise UserError(
                f"No case of {source.folder} has a label but background, so that there is nothing to draw. "
                "Choose another dataset."
            )
        new.finish(
            {"made_by": "simulate scribbles", "axis": axis, "seed": seed, **asdict(strokes), SCRIBBLED: list(counts)},
            record=SCRIBBLES,
            cases=record,
            labels={**source.description["labels"], "ignore": ignore},
        )
    return annotation


def chosen_axis(axis: str | None, shape: Sequence[int], properties: Mapping[str, Any], *, file: Path) -> int:
    """The axis of a label map as nnU-Net reads it, 0 for Z, that slices are across.

    Args:
        axis: x, y or z of the file; None for that of the largest spacing.
        shape: (Z, Y, X).
        properties: the geometry as nnU-Net's reader gives it.
        file: of the map.

    Raises:
        UserError: if slices across the axis are lines.
    """
    proper = slicing_axis(shape, properties["spacing"])
    if axis is None:
        return proper
    read, _ = file_axes(properties)[AXES.index(axis)]
    chosen = len(AXES) - 1 - read
    if 1 in shape and chosen != proper:
        raise UserError(f"{file} has one slice, so that slices across {axis} would be lines. Leave out the axis.")
    return chosen


def slices_in_file(
    across: int, slices: Sequence[int], shape: Sequence[int], properties: Mapping[str, Any]
) -> dict[str, Any]:
    """In the file, the name of an axis and the slices across it, from their numbers in the map as nnU-Net reads it."""
    axes = file_axes(properties)
    axis = [read for read, _ in axes].index(len(AXES) - 1 - across)
    numbers = sorted(shape[across] - 1 - number for number in slices) if axes[axis][1] else list(slices)
    return {"axis": AXES[axis], "slices": numbers}
