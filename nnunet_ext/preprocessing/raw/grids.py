"""Scans and label maps with the place of their voxels in the patient, and whether two lie on the same grid."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.raw_dataset import whole_numbers

TOLERANCE = 0.1
"""Grids are the same if no voxel lies further from its counterpart than this share of the smallest voxel edge."""

ORTHONORMAL = 1e-3


def read_scan(file: Path) -> sitk.Image:
    """Read an image of one channel.

    Returns:
        The image, two- or three-dimensional; kinds of numbers that not every format holds are turned to float32.

    Raises:
        UserError: if it cannot be read, has more channels or dimensions, values that are not finite, or axes that are
            not at right angles.
    """
    image = _read(file)
    if not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
        raise UserError(
            f"{file} has values that are not finite (NaN or infinite). Replace them, e.g. by the value of air."
        )
    odd = (sitk.sitkFloat64, sitk.sitkInt64, sitk.sitkUInt64)
    return sitk.Cast(image, sitk.sitkFloat32) if image.GetPixelID() in odd else image


def read_label_image(file: Path, known: Collection[int]) -> sitk.Image:
    """Read a label map.

    Args:
        file: of whole numbers, which may be stored as float.
        known: the values that it may have.

    Returns:
        The map as uint8, or uint16 where values are larger.

    Raises:
        UserError: as of `read_scan`, and if a value is no whole number or is not known.
    """
    image = _read(file)
    labels = whole_numbers(sitk.GetArrayViewFromImage(image), file=file)
    if unknown := sorted(set(np.unique(labels).tolist()) - set(known)):
        raise UserError(
            f"{file} has the value{'s' * (len(unknown) > 1)} {', '.join(map(str, unknown[:3]))}, but the labels are "
            f"{', '.join(map(str, sorted(known)))}. Name all labels with --labels, or fix the file."
        )
    return on_grid(labels.astype(np.uint8 if max(known) < 256 else np.uint16), image)


def _read(file: Path) -> sitk.Image:
    try:
        image = sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise UserError(f"{file} cannot be read: {str(error).strip().splitlines()[-1]}") from None
    if image.GetDimension() not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(
            f"{file} has {image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} channels. "
            "Expected is one image of two or three dimensions and one channel: write each channel to its own file."
        )
    axes = np.reshape(image.GetDirection(), (image.GetDimension(), image.GetDimension()))
    positions = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    if not np.isfinite(positions).all() or not np.allclose(axes @ axes.T, np.eye(len(axes)), atol=ORTHONORMAL):
        raise UserError(
            f"{file} says that its axes have the directions {_numbers(image.GetDirection())}, which are not at right "
            "angles. Mend the header, or resample the image to a grid of right angles."
        )
    return image


def on_grid(values: np.ndarray, like: sitk.Image) -> sitk.Image:
    """An array, (Z, Y, X) or (Y, X), as an image with the geometry of another."""
    image = sitk.GetImageFromArray(values)
    image.CopyInformation(like)
    return image


def difference(one: sitk.Image, other: sitk.Image) -> str:
    """In what two grids differ, in words; empty if they are the same within `TOLERANCE`."""
    if one.GetSize() != other.GetSize():
        return f"{_size(one)} and {_size(other)} voxels"
    corners = itertools.product(*((0, size - 1) for size in one.GetSize()))
    places = ([image.TransformIndexToPhysicalPoint(at) for image in (one, other)] for at in corners)
    # places are affine in the index, so that they are furthest apart at a corner
    apart = max(float(np.linalg.norm(np.subtract(first, second))) for first, second in places)
    if apart <= TOLERANCE * min(*one.GetSpacing(), *other.GetSpacing()):
        return ""
    parts = {
        "spacing": (one.GetSpacing(), other.GetSpacing()),
        "origin": (one.GetOrigin(), other.GetOrigin()),
        "direction": (one.GetDirection(), other.GetDirection()),
    }
    differing = [
        f"{name} {_numbers(first)} and {_numbers(second)}"
        for name, (first, second) in parts.items()
        if not np.allclose(first, second, rtol=1e-4, atol=1e-4)
    ]
    return f"{', '.join(differing) or 'positions'}, up to {apart:.3g} mm apart"


def has_no_position(image: sitk.Image) -> bool:
    """Whether the header is the one of an image that was written without any: spacing 1, origin 0, axes in order."""
    plain = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    return (image.GetSpacing(), image.GetOrigin(), image.GetDirection()) == (
        plain.GetSpacing(),
        plain.GetOrigin(),
        plain.GetDirection(),
    )


def coverage(grid: sitk.Image, image: sitk.Image) -> float:
    """The share of a grid's voxels that lie within an image, by what their headers say."""
    field_of_view = on_grid(np.ones(image.GetSize()[::-1], np.uint8), image)
    covered = sitk.Resample(field_of_view, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return float(sitk.GetArrayViewFromImage(covered).mean())


def _size(image: sitk.Image) -> str:
    return " x ".join(map(str, image.GetSize()))


def _numbers(values: Collection[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
