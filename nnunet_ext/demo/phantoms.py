"""Digital phantoms: small synthetic scans with organs and lesions, for demonstrations and tests.

Geometry (where things are) and imaging (what they look like) are separate, so that one body can be imaged twice.
Arrays are (X, Y, Z), `spacing` is the voxel size in mm, and `rng` is the source of randomness.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

FloatArray = npt.NDArray[np.float32]
MaskArray = npt.NDArray[np.bool_]
LabelArray = npt.NDArray[np.uint8]
InstanceArray = npt.NDArray[np.uint16]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]

SPACING: Spacing = (1.5, 1.5, 2.0)
LABELS = {"background": 0, "liver": 1, "spleen": 2, "lesion": 3}
LIVER, SPLEEN, LESION = 1, 2, 3

# Tissues, i.e. what differs in intensity. Several are unlabelled and look like a labelled one: the bowel's intensity
# overlaps the liver's, the vessels' is the lesions', and the bias field blurs the rest, so that no threshold works.
AIR, FAT, LIVER_TISSUE, SPLEEN_TISSUE, BOWEL, BONE, VESSEL, LESION_TISSUE = range(8)
INTENSITIES = np.array([[90, 5], [150, 7], [185, 7], [150, 15], [280, 15], [235, 10], [235, 10]])
"""Mean and standard deviation over patients of each tissue's intensity, from `FAT` on; air is 0."""


@dataclass(frozen=True)
class Organ:
    """An organ as a rough ellipsoid; sizes are relative to the grid's."""

    tissue: int
    label: int  # a value of LABELS
    center: tuple[float, float, float]
    radii: tuple[float, float, float]
    roughness: float


ORGANS = (  # each leaves room to those before it
    Organ(BONE, 0, (0.5, 0.80, 0.5), (0.09, 0.08, 2.0), 0.05),
    Organ(LIVER_TISSUE, LIVER, (0.34, 0.42, 0.52), (0.21, 0.24, 0.30), 0.13),
    Organ(SPLEEN_TISSUE, SPLEEN, (0.71, 0.56, 0.58), (0.15, 0.18, 0.27), 0.12),
    Organ(BOWEL, 0, (0.64, 0.28, 0.32), (0.13, 0.10, 0.16), 0.15),
)

MIN_SHAPE = 32
NOISE, TEXTURE = 9.0, 6.0  # standard deviations of intensity: independent, and of smooth variation inside the body
BLUR = 0.5  # standard deviation of the point spread, in voxels
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # 26-connectivity


@dataclass(frozen=True)
class Geometry:
    """Where everything is in one phantom.

    Lesions never touch one another, so that they are the 26-connected components of label 3.
    """

    tissues: LabelArray  # what the image shows, as the tissue constants of this module
    organs: LabelArray  # the values of LABELS
    lesion_instances: InstanceArray  # 0 outside lesions, else the lesion's number 1..n
    spacing: Spacing


def smooth_noise(rng: np.random.Generator, shape: Shape, scale: npt.ArrayLike) -> FloatArray:
    """Gaussian noise smoothed to a given size of its blobs, with mean 0 and standard deviation 1.

    Args:
        scale: standard deviation of the smoothing kernel along each axis, in voxels.
    """
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), scale, mode="wrap")
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)


def largest_component(mask: MaskArray) -> MaskArray:
    """The largest 26-connected component of a mask; an empty mask stays empty."""
    components, count = ndimage.label(mask, structure=TOUCHING)
    if count <= 1:
        return mask
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    return components == sizes.argmax()


def positions(shape: Shape, spacing: Spacing) -> npt.NDArray[np.float64]:
    """(X, Y, Z, 3) positions of the voxels in mm from the first one."""
    return np.moveaxis(np.indices(shape), 0, -1) * np.asarray(spacing)


def random_direction(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A vector of length 1, uniform over all directions."""
    direction = rng.standard_normal(3)
    return direction / np.linalg.norm(direction)


def blob(
    rng: np.random.Generator,
    shape: Shape,
    spacing: Spacing,
    *,
    center: npt.ArrayLike,
    radii: npt.ArrayLike,
    roughness: float = 0.12,
    max_degrees: float = 25.0,
) -> MaskArray:
    """A connected ellipsoid whose surface is pushed in and out by smooth noise.

    Args:
        center: position in mm from the corner of the grid.
        radii: half axes in mm.
        roughness: standard deviation of the surface's displacement, relative to the radius; 0 gives an ellipsoid.
        max_degrees: the ellipsoid is rotated by at most this much about a random axis.
    """
    radii = np.asarray(radii, dtype=np.float64)
    grid = positions(shape, spacing) - np.asarray(center)
    axis = random_direction(rng)
    rotation = Rotation.from_rotvec(rng.uniform(-max_degrees, max_degrees) * axis, degrees=True).as_matrix()
    distance = np.linalg.norm(grid @ rotation / radii, axis=-1)
    scale = 0.5 * radii.mean() / np.asarray(spacing)
    return largest_component(distance + roughness * smooth_noise(rng, shape, scale) < 1)


def tube(
    rng: np.random.Generator, shape: Shape, spacing: Spacing, *, through: npt.ArrayLike, radius: float
) -> MaskArray:
    """A straight tube in a random direction, `through` a point in mm from the grid's corner, with a radius in mm."""
    direction, grid = random_direction(rng), positions(shape, spacing) - np.asarray(through)
    along = grid @ direction
    return np.linalg.norm(grid - along[..., None] * direction, axis=-1) < radius


def make_lesions(
    rng: np.random.Generator, allowed: MaskArray, preferred: MaskArray, spacing: Spacing, count: int
) -> InstanceArray:
    """Place lesions that do not touch one another; a map, (X, Y, Z), with 0 outside and 1..n in them.

    Args:
        allowed: (X, Y, Z) where lesions may be; at least one is placed if this leaves any room.
        preferred: (X, Y, Z) part of `allowed` that holds the first lesion and about half of the others.
        count: how many to place; fewer are placed where there is no room.
    """
    instances = np.zeros(allowed.shape, dtype=np.uint16)
    free = allowed
    placed = 0
    for attempt in range(count):
        inside = preferred if attempt == 0 or rng.random() < 0.5 else allowed
        radii = rng.uniform(4.5, 8.0) * rng.uniform(0.8, 1.2, size=3)
        depth = ndimage.distance_transform_edt(free, sampling=spacing)
        centers = np.argwhere((depth > 0.8 * radii.max()) & inside)
        if len(centers) == 0:
            continue
        center = rng.choice(centers) * np.asarray(spacing)
        shape = blob(rng, allowed.shape, spacing, center=center, radii=radii, roughness=0.08, max_degrees=90)
        lesion = largest_component(shape & free)
        placed += 1
        instances[lesion] = placed
        free = free & ~ndimage.binary_dilation(lesion, structure=TOUCHING, iterations=2)
    return instances


def make_geometry(
    rng: np.random.Generator,
    shape: Shape = (48, 48, 40),
    spacing: Spacing = SPACING,
    *,
    lesions_between: tuple[int, int] = (1, 6),
) -> Geometry:
    """Draw a body with organs, lesions and unlabelled structures; a ValueError if the grid is too small.

    Args:
        shape: (X, Y, Z) of the grid, at least 32 voxels each.
        lesions_between: fewest and most lesions to place; there are fewer where there is no room.
    """
    if min(shape) < MIN_SHAPE:
        raise ValueError(f"shape is {shape}; a phantom needs at least {MIN_SHAPE} voxels along each axis.")
    size = np.asarray(shape) * np.asarray(spacing)

    body = blob(
        rng,
        shape,
        spacing,
        center=size * 0.5,
        radii=size * np.array([0.46, 0.42, 0.9]) * rng.uniform(0.92, 1.04, size=3),
        roughness=0.03,
        max_degrees=5,
    )
    tissues, organs = np.where(body, FAT, AIR).astype(np.uint8), np.zeros(shape, dtype=np.uint8)
    for organ in ORGANS:
        center = np.asarray(organ.center) + rng.uniform(-0.04, 0.04, size=3)
        radii = np.asarray(organ.radii) * rng.uniform(0.85, 1.15, size=3)
        mask = blob(rng, shape, spacing, center=center * size, radii=radii * size, roughness=organ.roughness)
        mask &= tissues == FAT
        tissues[mask], organs[mask] = organ.tissue, organ.label

    # the air beyond the body is as far from a lesion as the grid's border is
    depth = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    liver = organs == LIVER
    room = (depth > 3.0) & (liver | (tissues == FAT))
    fewest, most = lesions_between
    lesions = make_lesions(rng, room, room & liver, spacing, int(rng.integers(fewest, most + 1)))
    vessel = np.zeros(shape, dtype=bool)
    for _ in range(3):
        through = size * rng.uniform(0.3, 0.7, size=3)
        vessel |= tube(rng, shape, spacing, through=through, radius=rng.uniform(2.0, 3.0))
    vessel &= body & (tissues != BONE)
    vessel &= ~ndimage.binary_dilation(lesions > 0, structure=TOUCHING, iterations=2)
    tissues[vessel] = VESSEL  # inside an organ it belongs to the organ
    tissues[lesions > 0], organs[lesions > 0] = LESION_TISSUE, LESION
    return Geometry(tissues=tissues, organs=organs, lesion_instances=lesions, spacing=spacing)


def render(rng: np.random.Generator, geometry: Geometry, *, bias: float = 0.12) -> FloatArray:
    """Image a geometry: contrast, partial volume, texture, a bias field, and noise; (X, Y, Z), in arbitrary units.

    Another `rng` gives another scan of the same anatomy. `bias` is the standard deviation of the logarithm of the bias
    field, by which intensities are multiplied.
    """
    shape: Shape = geometry.tissues.shape
    # of each tissue, in the order of the constants, as one scanner shows it for one patient
    contrast = np.concatenate([[0.0], rng.normal(*INTENSITIES.T)]).astype(np.float32)
    image = ndimage.gaussian_filter(contrast[geometry.tissues], BLUR)
    image += TEXTURE * smooth_noise(rng, shape, (1.5, 1.5, 1.5)) * (geometry.tissues != AIR)
    image *= np.exp(bias * smooth_noise(rng, shape, np.array(shape) / 4))
    image += NOISE * rng.standard_normal(shape)
    return image.astype(np.float32)


def make_phantom(rng: np.random.Generator, shape: Shape) -> dict[str, npt.NDArray[Any]]:
    """Draw a body and image it: the ``images``, ``labels`` and lesion ``instances`` of one case."""
    geometry = make_geometry(rng, shape)
    return {"images": render(rng, geometry), "labels": geometry.organs, "instances": geometry.lesion_instances}
