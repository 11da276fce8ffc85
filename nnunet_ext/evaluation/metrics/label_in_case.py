"""One label in one case: reference and prediction, and what several metrics need, computed once and when needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from nnunet_ext.evaluation.lesions import DetectionCounts
    from nnunet_ext.evaluation.surface import SurfaceDistances

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelInCase:
    """A label in a case, as arrays of one shape, (Z, Y, X)."""

    reference: Mask
    prediction: Mask
    spacing: Sequence[float]  # voxel size in mm, in the order of the axes
    ignored: Mask | None = None  # voxels where the reference is unknown; they do not count
    instances: npt.NDArray[np.integer] | None = None  # numbers of the reference's; without, its connected components
    overlap_share: float = 0.1  # share of an instance's voxels that makes it found or right
    tolerance: float = 0.0  # for normalized surface Dice, in mm

    @cached_property
    def known_prediction(self) -> Mask:
        """The prediction without ignored voxels."""
        return self.prediction if self.ignored is None else self.prediction & ~self.ignored

    @cached_property
    def voxels(self) -> DetectionCounts:
        """Numbers of voxels that are not ignored; those that are found and right are the ones that both share."""
        from nnunet_ext.evaluation.lesions import DetectionCounts

        masks = (self.reference, self.prediction, self.reference & self.prediction)
        known = True if self.ignored is None else ~self.ignored
        reference, predicted, both = (int(np.count_nonzero(mask & known)) for mask in masks)
        return DetectionCounts(reference, both, predicted, both)

    @property
    def voxel_size(self) -> float:
        """In mm³, of a single slice in mm²: the thickness that nnU-Net gives a 2D image is made up."""
        sides = self.spacing[1:] if self.reference.shape[0] == 1 else self.spacing
        return math.prod(map(float, sides))

    @cached_property
    def distances(self) -> SurfaceDistances:
        from nnunet_ext.evaluation.surface import surface_distances

        return surface_distances(self.reference, self.known_prediction, self.spacing)

    @property
    def surface_dice(self) -> float:
        from nnunet_ext.evaluation.surface import surface_dice

        return surface_dice(self.reference, self.known_prediction, self.spacing, tolerance=self.tolerance)

    @cached_property
    def lesions(self) -> DetectionCounts:
        """Counts of instances."""
        from nnunet_ext.evaluation.lesions import count_lesions

        given: dict[str, Any] = {"instances": self.instances, "ignored": self.ignored}
        return count_lesions(self.reference, self.prediction, **given, overlap=self.overlap_share)
