"""How far reference and prediction of a label overlap in a case, in voxels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnunet_ext.evaluation.lesions import DetectionCounts

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """A label in a case, in voxels that are not ignored.

    Attributes:
        reference: voxels of the reference, |A|.
        predicted: voxels of the prediction, |B|.
        both: voxels that they share, |A∩B|.
        voxel_size: of one voxel, in mm³.
    """

    reference: int
    predicted: int
    both: int
    voxel_size: float = 1.0

    @property
    def dice(self) -> float:
        """Dice as nnU-Net's summary.json has it; NaN if reference and prediction are empty."""
        total = self.reference + self.predicted
        return 2 * self.both / total if total else math.nan

    @property
    def counts(self) -> DetectionCounts:
        """The same numbers of voxels as what is found of the reference, and right of the prediction."""
        return DetectionCounts(self.reference, self.both, self.predicted, self.both)

    @property
    def parts(self) -> tuple[float, float]:
        """What the case adds to the two sums of aggregated Dice, 2|A∩B| and |A| + |B|, in mm³."""
        return 2 * self.both * self.voxel_size, (self.reference + self.predicted) * self.voxel_size


def count_overlap(reference: Mask, prediction: Mask, *, ignored: Mask | None, spacing: Sequence[float]) -> Overlap:
    """Count the voxels of one label in a case.

    Args:
        reference: (Z, Y, X), where the label is.
        prediction: of the same shape, where it is predicted.
        ignored: voxels where the reference is unknown; they do not count.
        spacing: voxel size in mm, in the order of the axes. With a single slice a voxel's size is its area: the
            thickness that nnU-Net gives a 2D image is made up.
    """
    masks = (reference, prediction, reference & prediction)
    first, second, both = (int(np.count_nonzero(mask if ignored is None else mask & ~ignored)) for mask in masks)
    sides = spacing[1:] if reference.shape[0] == 1 else spacing
    return Overlap(first, second, both, math.prod(map(float, sides)))
