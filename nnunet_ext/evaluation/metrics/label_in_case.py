"""One label in one case: reference and prediction, and what several metrics need, computed once and when needed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from nnunet_ext.evaluation.surface import SurfaceDistances, surface_dice, surface_distances

MADE_UP_THICKNESS = 998.0
"""Nearly the factor of a pixel's side that nnU-Net takes for the thickness of a 2D image."""

Mask = npt.NDArray[np.bool_]
Map = npt.NDArray[np.integer]
Box = tuple[slice, ...]

OVERLAP = 0.1
"""Share of an instance's voxels that makes it found or right, unless another is asked for."""

CHUNK = 1 << 20  # voxels that are counted at a time


class DetectionCounts(NamedTuple):
    """What a prediction finds in a case, counted in instances or in voxels.

    Attributes:
        found: instances or voxels of the reference that are predicted.
        right: instances or voxels of the prediction that are in the reference. Of voxels these are the ones found.
    """

    reference: int = 0
    found: int = 0
    predicted: int = 0
    right: int = 0


@dataclass(frozen=True)
class CaseMaps:
    """The maps of a case, of one shape, (Z, Y, X)."""

    reference: Map
    prediction: Map
    spacing: Sequence[float]  # voxel size in mm, in the order of the axes
    values: tuple[int, ...]  # that are scored, ascending
    ignore: int | None = None  # value of voxels where the reference is unknown; they do not count
    instances: Map | None = None  # numbers of the reference's; without, its connected components
    cropped: bool = True  # whether masks end where their label does

    @cached_property
    def pairs(self) -> npt.NDArray[np.int64]:
        """How many voxels have each value in the reference (rows) and in the prediction, without ignored ones.

        Rows and columns are `values`; the last ones are all other values.
        """
        size = len(self.values) + 1
        number = np.full(max((*self.values, self.ignore or 0)) + 2, size - 1)  # the last entry: all higher values
        number[list(self.values)] = np.arange(size - 1)
        flat, counts = (self.reference.ravel(), self.prediction.ravel()), np.zeros(size * size, np.int64)
        step = max(CHUNK, counts.size)
        for start in range(0, flat[0].size, step):
            ours, theirs = (one[start : start + step] for one in flat)
            if self.ignore is not None:
                known = ours != self.ignore
                ours, theirs = ours[known], theirs[known]
            rows, columns = (np.take(number, one, mode="clip") for one in (ours, theirs))
            counts += np.bincount(rows * size + columns, minlength=counts.size)
        return counts.reshape(size, size)

    @cached_property
    def boxes(self) -> list[list[Box | None]]:
        """Where each value from 1 on is in the reference, and where in the prediction; None where it is not."""
        from scipy import ndimage  # takes a while to import

        return [ndimage.find_objects(one, max(self.values)) for one in (self.reference, self.prediction)]


@dataclass(frozen=True)
class LabelInCase:
    """A label in a case. Its masks are cut to where it is, with a voxel more on each side that the image has."""

    maps: CaseMaps
    key: tuple[int, ...]  # its value, or the values of a region
    overlap_share: float = OVERLAP  # share of an instance's voxels that makes it found or right
    tolerance: float = 0.0  # for normalized surface Dice, in mm
    by_instances: bool = True  # whether the map of instances covers the label

    @cached_property
    def box(self) -> Box:
        shape = self.maps.reference.shape
        if not self.maps.cropped or 0 in self.key:
            return tuple(map(slice, shape))
        found = [box for boxes in self.maps.boxes for value in self.key if (box := boxes[value - 1]) is not None]
        sides = zip(*found) if found else ([slice(0, 0)] for _ in shape)
        # an image of several slices keeps several, by which surfaces are told from those of 2D masks
        return tuple(slice(max(0, min(s.start for s in side) - 1), max(s.stop for s in side) + 1) for side in sides)

    @cached_property
    def reference(self) -> Mask:
        return np.isin(self.maps.reference[self.box], self.key)

    @cached_property
    def prediction(self) -> Mask:
        return np.isin(self.maps.prediction[self.box], self.key)

    @cached_property
    def ignored(self) -> Mask | None:
        return None if self.maps.ignore is None else self.maps.reference[self.box] == self.maps.ignore

    @property
    def instances(self) -> Map | None:
        return None if self.maps.instances is None or not self.by_instances else self.maps.instances[self.box]

    @cached_property
    def known_prediction(self) -> Mask:
        """The prediction without ignored voxels."""
        return self.prediction if self.ignored is None else self.prediction & ~self.ignored

    @cached_property
    def voxels(self) -> DetectionCounts:
        """Numbers of voxels that are not ignored; those that are found and right are the ones that both share."""
        places = [self.maps.values.index(value) for value in self.key]
        rows = self.maps.pairs[places]
        both = int(rows[:, places].sum())
        return DetectionCounts(int(rows.sum()), both, int(self.maps.pairs[:, places].sum()), both)

    @property
    def voxel_size(self) -> float:
        """In mm³, of a 2D image in mm²: the thickness that nnU-Net gives it is made up."""
        thickness, *sides = map(float, self.maps.spacing)
        is_flat = self.maps.reference.shape[0] == 1 and thickness >= MADE_UP_THICKNESS * max(sides)
        return math.prod(sides) * (1.0 if is_flat else thickness)

    @cached_property
    def distances(self) -> SurfaceDistances:
        return surface_distances(self.reference, self.known_prediction, self.maps.spacing)

    @property
    def surface_dice(self) -> float:
        return surface_dice(self.reference, self.known_prediction, self.maps.spacing, tolerance=self.tolerance)

    @cached_property
    def lesions(self) -> DetectionCounts:
        """Counts of instances."""
        from nnunet_ext.evaluation.lesions import count_lesions

        given: dict[str, Any] = {"instances": self.instances, "ignored": self.ignored}
        return count_lesions(self.reference, self.prediction, **given, overlap=self.overlap_share)
