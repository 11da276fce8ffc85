"""Scans and label maps on their grids: reading them, comparing grids, and resampling from one grid to another."""

import itertools
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.formats.tiff_spacing import given_spacing, is_tiff
from nnunet_ext.formats.whole_images import image_written_whole
from nnunet_ext.messages import last_line, size
from nnunet_ext.preprocessing.raw.raw_dataset import check_files, check_values, whole_numbers

Mask = npt.NDArray[np.bool_]

TOLERANCE = 0.1
"""Grids are the same if no voxel lies further from its counterpart than this share of the smallest voxel edge."""

ORTHONORMAL = 1e-3


def read_scan(file: Path) -> sitk.Image:
    """Read an image; a UserError unless it has one channel, 2 or 3 dimensions, finite values, and right angles."""
    image = _read(file)
    if not np.isfinite(sitk.GetArrayViewFromImage(image)).all():
        raise UserError(f"{file} has values that are not finite (NaN or infinite). Replace them, e.g. by that of air.")
    odd = (sitk.sitkFloat64, sitk.sitkInt64, sitk.sitkUInt64)
    return sitk.Cast(image, sitk.sitkFloat32) if image.GetPixelID() in odd else image


def read_label_image(file: Path, known: Collection[int]) -> sitk.Image:
    """Read a label map, with the checks of `read_scan`, as uint8, or as uint16 where `known` values are larger."""
    image = _read(file)
    labels = whole_numbers(sitk.GetArrayViewFromImage(image), file=file)
    check_values(labels, known, file=file, fix="Name all labels with --labels, or fix the file.")
    return on_grid(labels.astype(np.uint8 if max(known) < 256 else np.uint16), image)


def _read(file: Path) -> sitk.Image:
    check_files([file])
    try:
        image = sitk.ReadImage(str(file))
    except RuntimeError as error:
        raise UserError(f"{file} cannot be read: {last_line(error)}") from None
    if image.GetDimension() not in (2, 3) or image.GetNumberOfComponentsPerPixel() != 1:
        raise UserError(
            f"{file} has {image.GetDimension()} dimensions and {image.GetNumberOfComponentsPerPixel()} channels. "
            "Expected: two or three dimensions and one channel, as a pair has one sequence for each date. Write the "
            "one to take to a file of its own."
        )
    if is_tiff(file):
        image.SetSpacing(given_spacing(file)[::-1] if image.GetDimension() == 3 else (1.0, 1.0))
    axes = axis_directions(image)
    positions = (*image.GetSpacing(), *image.GetOrigin(), *image.GetDirection())
    if not np.isfinite(positions).all() or not np.allclose(axes @ axes.T, np.eye(len(axes)), atol=ORTHONORMAL):
        raise UserError(
            f"The axes of {file} have the directions {_numbers(image.GetDirection())}, which are not at right angles. "
            "Fix the header, or resample the image to a grid with right angles."
        )
    return image


def write_image(image: sitk.Image, file: Path) -> None:
    """Write an image compressed, to its end; see `image_written_whole`."""
    with image_written_whole(file):
        sitk.WriteImage(image, str(file), True)


def axis_directions(image: sitk.Image) -> npt.NDArray[np.float64]:
    """The directions of an image's axes as the columns of a matrix."""
    return np.reshape(image.GetDirection(), (image.GetDimension(), image.GetDimension()))


def on_grid(values: npt.NDArray[Any], like: sitk.Image) -> sitk.Image:
    """An array, (Z, Y, X) or (Y, X), as an image with the geometry of another; a mask as uint8."""
    image = sitk.GetImageFromArray(values.astype(np.uint8) if values.dtype == bool else values)
    image.CopyInformation(like)
    return image


def as_bool(mask: sitk.Image) -> Mask:
    """A mask as an array, (Z, Y, X) or (Y, X)."""
    return sitk.GetArrayFromImage(mask).astype(bool)


def unmoved(image: sitk.Image) -> sitk.Transform:
    """The transform that leaves every point of an image in its place."""
    return sitk.Transform(image.GetDimension(), sitk.sitkIdentity)


def moved_image(image: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """An image on another grid, interpolated linearly, as float32. What it does not cover has its lowest value: air.

    `transform` takes points of `grid` to points of `image`, here and below.
    """
    lowest = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(image, grid, transform, sitk.sitkLinear, lowest, sitk.sitkFloat32)


def moved_labels(labels: sitk.Image, grid: sitk.Image, transform: sitk.Transform) -> sitk.Image:
    """A label map on another grid, in its own type; no voxel has a label that its neighbourhood does not have.

    Every label's mask is interpolated linearly and the largest value wins; what is not covered becomes 0. On a phantom
    that was rotated there and back, the mean Dice of three touching labels was 0.981 by this, 0.973 by nearest
    neighbour and 0.899 by label-wise Gaussians; with slices of 10 mm 0.966, 0.943 and 0.089.
    """
    return sitk.Resample(labels, grid, transform, sitk.sitkLabelLinear, 0)


def covered(grid: sitk.Image, image: sitk.Image, transform: sitk.Transform) -> Mask:
    """Which voxels of a grid lie within an image that is moved."""
    field_of_view = on_grid(np.ones(image.GetSize()[::-1], np.uint8), image)
    return as_bool(sitk.Resample(field_of_view, grid, transform, sitk.sitkNearestNeighbor, 0))


def difference(one: sitk.Image, other: sitk.Image) -> str:
    """In what two grids differ, in words; empty if they are the same within `TOLERANCE`."""
    if one.GetSize() != other.GetSize():
        return f"{size(one.GetSize())} and {size(other.GetSize())} voxels"
    corners = itertools.product(*((0, size - 1) for size in one.GetSize()))
    places = ([image.TransformIndexToPhysicalPoint(at) for image in (one, other)] for at in corners)
    # places are affine in the index, so that they are furthest apart at a corner
    apart = max(float(np.linalg.norm(np.subtract(first, second))) for first, second in places)
    if apart <= TOLERANCE * min(*one.GetSpacing(), *other.GetSpacing()):
        return ""
    differing = [
        f"{name} {_numbers(first)} and {_numbers(second)}"
        for name, first, second in zip(("spacing", "origin", "direction"), _position(one), _position(other))
        if not np.allclose(first, second, rtol=1e-4, atol=1e-4)
    ]
    return f"{', '.join(differing) or 'positions'}, up to {apart:.3g} mm apart"


def has_no_position(image: sitk.Image) -> bool:
    """Whether the header is the one of an image that was written without any: spacing 1, origin 0, axes in order."""
    return _position(image) == _position(sitk.Image(image.GetSize(), sitk.sitkUInt8))


def _position(image: sitk.Image) -> tuple[tuple[float, ...], ...]:
    return image.GetSpacing(), image.GetOrigin(), image.GetDirection()


def _numbers(values: Collection[float]) -> str:
    return f"({', '.join(f'{value:.6g}' for value in values)})"
