"""Bodies as functions of the position in mm, drawn on any grid: images whose true registration is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

Floats = npt.NDArray[np.float64]
CENTRE = np.array([10.0, -20.0, 35.0])
RADII = np.array([34.0, 28.0, 31.0])
BLOBS = 14


def grid(
    size: Sequence[int] = (44, 44, 44),
    spacing: Sequence[float] = (2.0, 2.0, 2.0),
    *,
    direction: npt.ArrayLike | None = None,
    centre: npt.ArrayLike = CENTRE,
) -> sitk.Image:
    """An empty image whose centre lies at `centre`."""
    dimensions = len(size)
    axes = np.eye(dimensions) if direction is None else np.asarray(direction)
    image = sitk.Image(list(size), sitk.sitkFloat32)
    image.SetSpacing(list(spacing))
    image.SetDirection(axes.ravel().tolist())
    half = (np.asarray(size) - 1) / 2 * np.asarray(spacing)
    image.SetOrigin((np.asarray(centre)[:dimensions] - axes @ half).tolist())
    return image


def positions(image: sitk.Image) -> Floats:
    """(Z, Y, X, dimensions) or (Y, X, dimensions): the voxels' places in mm."""
    dimensions = image.GetDimension()
    indices = np.moveaxis(np.indices(image.GetSize()[::-1]), 0, -1)[..., ::-1]
    direction = np.reshape(image.GetDirection(), (dimensions, dimensions))
    return np.asarray(image.GetOrigin()) + (indices * np.asarray(image.GetSpacing())) @ direction.T


def depth(points: Floats) -> Floats:
    """1 at the body's centre, 0 on its surface, below outside."""
    dimensions = points.shape[-1]
    return 1 - np.linalg.norm((points - CENTRE[:dimensions]) / RADII[:dimensions], axis=-1)


def intensities(points: Floats) -> Floats:
    """An ellipsoid with a soft edge, full of dark and bright blobs."""
    dimensions = points.shape[-1]
    rng = np.random.default_rng(5)
    values = np.full(points.shape[:-1], 100.0)
    for _ in range(BLOBS):
        place = CENTRE[:dimensions] + rng.uniform(-0.65, 0.65, dimensions) * RADII[:dimensions]
        width, height = rng.uniform(3.0, 7.0), rng.choice([-50.0, 70.0, 120.0])
        values += height * np.exp(-((points - place) ** 2).sum(axis=-1) / (2 * width**2))
    return values / (1 + np.exp(-60 * depth(points)))


def organs(points: Floats) -> npt.NDArray[np.uint8]:
    """Three labels that touch: a ball, a shell around it, and a ball beside."""
    dimensions = points.shape[-1]
    from_centre = np.linalg.norm(points - CENTRE[:dimensions], axis=-1)
    beside = np.linalg.norm(points - CENTRE[:dimensions] - np.eye(dimensions)[0] * 20, axis=-1)
    return np.select([from_centre < 8, from_centre < 12, beside < 9], [3, 2, 1], 0).astype(np.uint8)


def drawn(
    image: sitk.Image,
    function: Callable[[Floats], npt.NDArray[np.generic]],
    *,
    placed: Callable[[Floats], Floats] = lambda points: points,
    noise: float = 0.0,
    seed: int = 0,
) -> sitk.Image:
    """`function` on the image's grid.

    Args:
        placed: from the grid's positions to those that the function is asked at.
        noise: standard deviation of what is added.
    """
    values = function(placed(positions(image)))
    if noise:
        values = values + np.random.default_rng(seed).normal(0, noise, values.shape)
    result = sitk.GetImageFromArray(values.astype(np.uint8 if values.dtype == np.uint8 else np.float32))
    result.CopyInformation(image)
    return result


def transformed(transform: sitk.Transform) -> Callable[[Floats], Floats]:
    """A transform as a function of an array of positions."""

    def apply(points: Floats) -> Floats:
        rows = [transform.TransformPoint(row) for row in points.reshape(-1, points.shape[-1]).tolist()]
        return np.asarray(rows).reshape(points.shape)

    return apply


def rigid(degrees: Sequence[float], shift: Sequence[float]) -> sitk.Transform:
    """A rotation about the body's centre and a translation in mm, in two or three dimensions."""
    dimensions = len(shift)
    transform = sitk.Euler2DTransform() if dimensions == 2 else sitk.Euler3DTransform()
    transform.SetCenter(CENTRE[:dimensions].tolist())
    transform.SetTranslation(list(shift))
    if dimensions == 2:
        transform.SetAngle(float(np.deg2rad(degrees[0])))
    else:
        transform.SetRotation(*np.deg2rad(degrees).tolist())
    return transform
