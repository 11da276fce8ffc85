"""Complete a label map with what a model predicts: instances that nobody annotated, and voxels where it is in doubt.

What an annotator drew is never changed, neither the voxels of a label nor those of the ignore label: the first are
known, and the second were left open by somebody who looked at them, which a model's guess does not settle.

A predicted region that overlaps an annotated voxel, or touches one of its own label, belongs to that annotation.
Nothing of it is added, because the annotator's boundary is trusted and the region would thicken what is there; where an
un-annotated neighbour is merged with it, that neighbour is missed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.instances import components
from nnunet_ext.preprocessing.raw.raw_dataset import Labels

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Rules:
    """When a prediction becomes a label; a UserError says if a value is out of its range."""

    # probability of foreground (1 - that of background) from which a voxel is predicted, between 0 and 1
    threshold: float = 0.5
    # low and high, 0 < low <= threshold <= high < 1. Un-annotated voxels from low on become ``ignore`` unless they are
    # added, and only those from high on are added. None adds all that is predicted and leaves the rest background
    uncertain: tuple[float, float] | None = None
    min_voxels: int = 1  # an instance of fewer is not added

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise UserError(f"The threshold is {self.threshold}. It must be a probability between 0 and 1.")
        if self.uncertain is not None:
            low, high = self.uncertain
            if not 0 < low <= self.threshold <= high < 1 or low == high:
                raise UserError(
                    f"The uncertain range is {low} to {high} with the threshold {self.threshold}. Expected: "
                    "0 < LOW <= threshold <= HIGH < 1 with LOW < HIGH."
                )
        if self.min_voxels < 1:
            raise UserError(f"The minimum instance size is {self.min_voxels} voxels. It must be at least 1.")


@dataclass(frozen=True)
class LabelCounts:
    """What became of one label in one case."""

    annotated_instances: int = 0  # connected components in the label map
    annotated_voxels: int = 0  # their voxels
    found_instances: int = 0  # those of them that the prediction overlaps, whatever label it gives them
    added_instances: int = 0  # connected components that were added
    added_voxels: int = 0  # their voxels
    small_instances: int = 0  # components that were left out because they are too small
    attached_voxels: int = 0  # un-annotated voxels left out because their region belongs to an annotated instance
    ignored_voxels: int = 0  # un-annotated voxels that became ``ignore``, by the likeliest label of each


def completed_labels(
    labels: Labels,
    probabilities: npt.NDArray[np.floating],
    *,
    foreground: Sequence[int],
    ignore: int | None,
    rules: Rules,
) -> tuple[Labels, dict[int, LabelCounts]]:
    """A label map with predicted instances added, and what was counted for each value of `foreground`.

    Args:
        labels: the annotation, (Z, Y, X).
        probabilities: of the model, (C, Z, Y, X), background first.
        foreground: the label's value for each further channel, in the channels' order.
        ignore: value of the ignore label; None if there is none, which `rules` with an uncertain range do not allow.
        rules: when a prediction becomes a label.
    """
    if probabilities.shape != (1 + len(foreground), *labels.shape):
        raise ValueError(f"probabilities of shape {probabilities.shape} for labels of shape {labels.shape}")
    if rules.uncertain is not None and ignore is None:
        raise ValueError("uncertain voxels need an ignore label")
    low, high = rules.uncertain or (rules.threshold, rules.threshold)
    certainty = 1 - probabilities[0].astype(np.float32, copy=False)
    values = np.asarray(foreground, np.min_scalar_type(max(foreground)))  # small ones, volumes are large
    likeliest = values[probabilities[1:].argmax(axis=0)]
    annotated = np.isin(labels, foreground)
    unannotated = ~annotated if ignore is None else ~annotated & (labels != ignore)

    predicted = np.where(certainty >= rules.threshold, likeliest, 0)
    attached = unannotated & _belonging(predicted, labels, annotated, foreground)
    sure = unannotated & ~attached & (predicted > 0) & (certainty >= high)
    # counted as they are in the result: where uncertain voxels cut a region in two, those are two
    instances = components(np.where(sure, predicted, 0), foreground)
    small = sure & (np.bincount(instances.ravel()) < rules.min_voxels)[instances]
    added = sure & ~small

    completed = labels.astype(np.int64)
    completed[added] = predicted[added]
    doubtful = np.zeros_like(added)
    if rules.uncertain is not None and ignore is not None:
        doubtful = unannotated & ~added & (certainty >= low)
        completed[doubtful] = ignore

    before = components(labels, foreground)
    counts = {}
    for value in foreground:
        drawn, here = labels == value, likeliest == value
        counts[value] = LabelCounts(
            annotated_instances=_different(before, drawn),
            annotated_voxels=int(drawn.sum()),
            found_instances=_different(before, drawn & (predicted > 0)),
            added_instances=_different(instances, added & here),
            added_voxels=int((added & here).sum()),
            small_instances=_different(instances, small & here),
            attached_voxels=int((attached & here).sum()),
            ignored_voxels=int((doubtful & here).sum()),
        )
    return completed, counts


def _belonging(predicted: Labels, labels: Labels, annotated: Mask, foreground: Sequence[int]) -> Mask:
    """Voxels of predicted regions that overlap an annotated voxel of any label, or touch one of their own."""
    together = np.where(annotated, labels, predicted)
    # the second finds those that touch, and the first those that go on where the annotator drew another label
    return _marked(components(predicted, foreground), annotated) | _marked(components(together, foreground), annotated)


def _marked(regions: Labels, mask: Mask) -> Mask:
    """All voxels of the regions that have a voxel in `mask`."""
    return (regions > 0) & np.isin(regions, np.unique(regions[mask]))


def _different(regions: Labels, mask: Mask) -> int:
    """How many regions have a voxel in `mask`, which lies in regions only."""
    return len(np.unique(regions[mask]))
