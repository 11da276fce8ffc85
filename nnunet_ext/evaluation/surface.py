"""How well the surfaces of two masks agree, with distances in mm, by MONAI's metrics."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

PERCENTILE = 95
ROUNDING = 1e-5  # share of a tolerance, for voxel sizes that a file holds in single precision

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SurfaceDistances:
    """ASSD and HD95 in mm; NaN where one of the masks is empty, as there is no distance to nothing."""

    assd: float
    hd95: float


UNDEFINED = SurfaceDistances(math.nan, math.nan)


def surface_distances(reference: Mask, prediction: Mask, spacing: Sequence[float]) -> SurfaceDistances:
    """Average symmetric surface distance and 95 % Hausdorff distance.

    The surface of a mask is its voxels that have a neighbour across a face outside the mask; what lies beyond the image
    is outside. A voxel's distance is that from its centre to the closest centre of the other surface. ASSD is the mean
    over the voxels of both surfaces together, not the mean of two means. HD95 is the larger of the two directions'
    95th percentiles. Every voxel counts alike: implementations that weigh by the area of the surface or place it
    between voxels, as DeepMind's surface-distance does, give other numbers.

    Args:
        reference: (Z, Y, X) or (Y, X). With a single slice, across whichever axis, the surface is that of the
            2D mask.
        prediction: of the same shape.
        spacing: voxel size in mm, in the order of the axes.
    """
    if not reference.any() or not prediction.any():
        return UNDEFINED

    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance  # takes seconds to import

    ours, theirs, millimetres = _for_monai(reference, prediction, spacing)
    with _monai_is_quiet():
        given: dict[str, Any] = {"include_background": True, "spacing": millimetres}
        assd = compute_average_surface_distance(ours, theirs, symmetric=True, **given)
        hd95 = compute_hausdorff_distance(ours, theirs, percentile=PERCENTILE, **given)
    return SurfaceDistances(float(assd), float(hd95))


def surface_dice(reference: Mask, prediction: Mask, spacing: Sequence[float], *, tolerance: float) -> float:
    """Normalized surface Dice (NSD): the share of both surfaces that lies within a tolerance of the other one.

    Surfaces and distances are those of `surface_distances`: voxels of the surface are counted, and not its area.
    DeepMind's surface-distance weighs by area, so that its numbers differ, most where voxels are far from cubic.

    Args:
        tolerance: in mm, at least 0. A voxel at this very distance counts. Other arguments as of `surface_distances`.

    Returns:
        Between 0 and 1. As with Dice, 0 if one of the masks is empty, and NaN if both are.

    Source: Nikolov et al., Clinically applicable segmentation of head and neck anatomy for radiotherapy, J Med Internet
    Res 2021; counted by voxels as in Seidlitz et al., Robust deep learning-based semantic organ segmentation in
    hyperspectral images, Med Image Anal 2022.
    """
    if not reference.any() or not prediction.any():
        return 0.0 if reference.any() or prediction.any() else math.nan

    from monai.metrics import compute_surface_dice  # takes seconds to import

    ours, theirs, millimetres = _for_monai(reference, prediction, spacing)
    threshold = tolerance * (1 + ROUNDING)
    with _monai_is_quiet():
        return float(compute_surface_dice(ours, theirs, [threshold], include_background=True, spacing=millimetres))


@contextmanager
def _monai_is_quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.6 warns of an argument that it gives itself
        yield


def _for_monai(reference: Mask, prediction: Mask, spacing: Sequence[float]) -> tuple[Tensor, Tensor, list[float]]:
    """Prediction, reference and spacing as MONAI takes them, of masks that are not both empty."""
    import torch

    if reference.ndim == 3 and 1 in reference.shape:
        # in three dimensions every voxel of a single slice would be surface
        axis = reference.shape.index(1)
        sides = [size for number, size in enumerate(spacing) if number != axis]
        return _for_monai(reference.squeeze(axis), prediction.squeeze(axis), sides)
    box = bounding_box(reference | prediction)
    ours, theirs = (torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None] for mask in (prediction, reference))
    return ours, theirs, [float(size) for size in spacing]


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Where a mask is that is not empty. It needs no margin: beyond its edge is outside, as beyond the image's.

    MONAI crops too, but only after it has made floats of the whole image, which takes longer than the distances.
    """
    inside = [np.flatnonzero(mask.any(axis=(*range(axis), *range(axis + 1, mask.ndim)))) for axis in range(mask.ndim)]
    return tuple(slice(int(places[0]), int(places[-1]) + 1) for places in inside)
