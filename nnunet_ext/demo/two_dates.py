"""Phantoms with a second date: a prior and a current scan of the same patients.

Bright structures in the body are of two kinds that look, shrink and vanish alike: lesions, which are labelled at both
dates, and benign ones, which are at none. The current scan cannot tell them apart; the prior's labels can. And the
prior alone does not say what has become of a lesion.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from nnunet_ext.demo import phantoms
from nnunet_ext.demo.phantoms import FloatArray, Geometry, InstanceArray, LabelArray, MaskArray, Shape, Spacing

LABELS = {"background": 0, "lesion": 1}
STRUCTURES_BETWEEN = (4, 8)
VANISHING, SHRINKING = 0.25, 0.5  # shares of the structures; the others stay
LEFT_BETWEEN = (0.25, 0.7)  # of a shrinking one's volume
DEFORMATION = 1.0  # between the dates: standard deviation of the displacement along each axis, in mm
BRIGHT = 300.0  # intensity above nearly everything, which a change of contrast leaves in its place


@dataclass(frozen=True)
class TwoDates:
    """Where everything is at two dates."""

    prior: Geometry  # at the first date; its `lesion_instances` are lesions and benign structures alike
    current: Geometry  # at the second one; structures keep their numbers, and those that have vanished are not there
    lesions: frozenset[int]  # the numbers of the structures that are lesions

    def labels(self, geometry: Geometry) -> LabelArray:
        """(X, Y, Z) map of the lesions of one of the dates, with the values of `LABELS`."""
        return np.isin(geometry.lesion_instances, list(self.lesions)).astype(np.uint8)


def shrunk(structure: MaskArray, share: float, spacing: Spacing) -> MaskArray:
    """The innermost part of a structure, in one piece, with at most a share of its voxels and at least one.

    The structure, (X, Y, Z), is not empty, and the share in (0, 1].
    """
    depth = ndimage.distance_transform_edt(np.pad(structure, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    inside = np.flatnonzero(structure)
    kept = max(1, int(share * len(inside)))
    mask = np.zeros(structure.size, dtype=bool)
    mask[inside[np.argsort(-depth.ravel()[inside], kind="stable")[:kept]]] = True
    return phantoms.largest_component(mask.reshape(structure.shape))


def draw_changes(
    rng: np.random.Generator, instances: InstanceArray, lesions: frozenset[int], spacing: Spacing
) -> InstanceArray:
    """What is left of each structure: all of it, its inner part, or nothing; of one lesion, something.

    Of the `instances`, (X, Y, Z), with the numbers of the structures, some are `lesions`; the result has these numbers.
    """
    left = np.zeros_like(instances)
    for number in range(1, int(instances.max()) + 1):
        fate, share = rng.random(), rng.uniform(*LEFT_BETWEEN)
        if fate < VANISHING and number != min(lesions):
            continue
        structure = instances == number
        left[shrunk(structure, share, spacing) if fate < VANISHING + SHRINKING else structure] = number
    return left


def changed(geometry: Geometry, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Geometry:
    """A geometry with every map changed in the same way."""
    maps: tuple[npt.NDArray[Any], ...] = (geometry.tissues, geometry.organs, geometry.lesion_instances)
    tissues, organs, instances = map(change, maps)
    return Geometry(tissues, organs, instances, geometry.spacing)


def with_structures(geometry: Geometry, instances: InstanceArray) -> Geometry:
    """A geometry in which less is left of the structures; where they were is the tissue beside them.

    Args:
        instances: (X, Y, Z), zero wherever the geometry's are.
    """
    before = geometry.lesion_instances > 0
    beside = ndimage.distance_transform_edt(
        before, sampling=geometry.spacing, return_distances=False, return_indices=True
    )
    freed = before & (instances == 0)
    filled = changed(geometry, lambda values: np.where(freed, values[tuple(beside)], values))
    return replace(filled, lesion_instances=instances)


def deformed(rng: np.random.Generator, geometry: Geometry, size: float) -> Geometry:
    """A geometry after a smooth deformation.

    Args:
        size: standard deviation of the displacement along each axis, in mm.
    """
    shape: Shape = geometry.tissues.shape
    places = np.indices(shape, dtype=np.float64)
    for axis, length in enumerate(geometry.spacing):
        places[axis] += size / length * phantoms.smooth_noise(rng, shape, np.array(shape) / 6)
    return changed(geometry, lambda values: ndimage.map_coordinates(values, places, order=0, mode="nearest"))


def changed_contrast(rng: np.random.Generator, image: FloatArray) -> FloatArray:
    """An image as another scanner shows it: intensities follow a drawn power, and so keep their order."""
    power = np.exp(rng.uniform(-0.5, 0.5))
    return (rng.uniform(0.5, 2) * BRIGHT * (np.clip(image, 0, None) / BRIGHT) ** power).astype(np.float32)


def make_two_dates(rng: np.random.Generator, shape: Shape = (48, 48, 40)) -> TwoDates:
    """Draw a body at two dates: half of its bright structures, rounded up, are lesions.

    `shape` is that of the grid, (X, Y, Z), at least 32 voxels each; a ValueError says if it is too small.
    """
    prior = phantoms.make_geometry(rng, shape, lesions_between=STRUCTURES_BETWEEN)
    count = int(prior.lesion_instances.max())
    lesions = frozenset(int(number) + 1 for number in rng.permutation(count)[: (count + 1) // 2])
    later = with_structures(prior, draw_changes(rng, prior.lesion_instances, lesions, prior.spacing))
    return TwoDates(prior, deformed(rng, later, DEFORMATION), lesions)


def make_follow_up(rng: np.random.Generator, shape: Shape = (48, 48, 40)) -> dict[str, npt.NDArray[Any]]:
    """Draw one patient and image the patient twice; a ValueError if the grid is too small.

    Returns:
        The current ``images`` and ``labels``, and the earlier ``priors`` and ``priorLabels``, all on one grid.
    """
    dates = make_two_dates(rng, shape)
    return {
        "images": phantoms.render(rng, dates.current),
        "priors": changed_contrast(rng, phantoms.render(rng, dates.prior)),
        "labels": dates.labels(dates.current),
        "priorLabels": dates.labels(dates.prior),
    }
