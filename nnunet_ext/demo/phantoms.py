"""Digital phantoms: small synthetic scans with organs and lesions, for demonstrations and tests.

Geometry (where things are) and imaging (what they look like) are separate, so that one geometry can be imaged twice,
for a second channel or a second date, and so that labels can be thinned out without touching the images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json

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
AIR, FAT, LIVER_TISSUE, SPLEEN_TISSUE, BONE, VESSEL, BOWEL, LESION_TISSUE = range(8)

MIN_SHAPE = 32
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # 26-connectivity


@dataclass(frozen=True)
class Geometry:
    """Where everything is in one phantom.

    Attributes:
        tissues: (X, Y, Z) map of the tissues that the image shows, one of the tissue constants of this module.
        organs: (X, Y, Z) label map with the values of `LABELS`.
        lesion_instances: (X, Y, Z), 0 outside lesions, else the lesion's number 1..n; lesions never touch one another,
            so that they are the 26-connected components of label 3.
        spacing: voxel size in mm along X, Y, Z.
    """

    tissues: LabelArray
    organs: LabelArray
    lesion_instances: InstanceArray
    spacing: Spacing


@dataclass(frozen=True)
class Phantom:
    """One image with its labels; arrays as in `Geometry`.

    Attributes:
        image: (X, Y, Z) intensities in arbitrary units, air near 0 and bone near 280.
        organs: 0 background, 1 the large organ, 2 the second organ, 3 lesion.
        lesion_instances: 0 outside lesions, else the lesion's number.
        spacing: voxel size in mm along X, Y, Z.
    """

    image: FloatArray
    organs: LabelArray
    lesion_instances: InstanceArray
    spacing: Spacing


def smooth_noise(rng: np.random.Generator, shape: Shape, scale: tuple[float, float, float]) -> FloatArray:
    """Gaussian noise smoothed to a given size of its blobs, with mean 0 and standard deviation 1.

    Args:
        rng: source of randomness.
        shape: (X, Y, Z).
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


def random_rotation(rng: np.random.Generator, max_degrees: float) -> npt.NDArray[np.float64]:
    """A 3 × 3 rotation matrix about a uniformly drawn axis, by a uniform angle of at most `max_degrees`."""
    axis = rng.standard_normal(3)
    axis /= np.linalg.norm(axis)
    angle = np.deg2rad(rng.uniform(-max_degrees, max_degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


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
        rng: source of randomness.
        shape: (X, Y, Z) of the grid.
        spacing: voxel size in mm.
        center: position in mm from the corner of the grid.
        radii: half axes in mm.
        roughness: standard deviation of the surface's displacement, relative to the radius; 0 gives an ellipsoid.
        max_degrees: the ellipsoid is rotated by at most this much about a random axis.

    Returns:
        (X, Y, Z) mask.
    """
    radii = np.asarray(radii, dtype=np.float64)
    grid = positions(shape, spacing) - np.asarray(center)
    distance = np.linalg.norm(grid @ random_rotation(rng, max_degrees) / radii, axis=-1)
    blob_size = 0.5 * float(radii.mean())
    scale = (blob_size / spacing[0], blob_size / spacing[1], blob_size / spacing[2])
    return largest_component(distance + roughness * smooth_noise(rng, shape, scale) < 1)


def tube(
    rng: np.random.Generator, shape: Shape, spacing: Spacing, *, through: npt.ArrayLike, radius: float
) -> MaskArray:
    """A straight tube in a random direction.

    Args:
        rng: source of randomness.
        shape: (X, Y, Z) of the grid.
        spacing: voxel size in mm.
        through: a point of its axis, in mm from the corner of the grid.
        radius: in mm.
    """
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    grid = positions(shape, spacing) - np.asarray(through)
    along = grid @ direction
    return np.linalg.norm(grid - along[..., None] * direction, axis=-1) < radius


def make_lesions(
    rng: np.random.Generator, allowed: MaskArray, preferred: MaskArray, spacing: Spacing, count: int
) -> InstanceArray:
    """Place lesions that do not touch one another.

    Args:
        rng: source of randomness.
        allowed: (X, Y, Z) where lesions may be; at least one is placed if this leaves any room.
        preferred: (X, Y, Z) part of `allowed` that holds the first lesion and about half of the others.
        spacing: voxel size in mm.
        count: how many to place; fewer are placed where there is no room.

    Returns:
        (X, Y, Z) map with 0 outside and 1..n in the lesions.
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
    """Draw a body with organs, lesions and unlabelled structures.

    Args:
        rng: source of randomness.
        shape: (X, Y, Z) of the grid, at least 32 voxels each.
        spacing: voxel size in mm.
        lesions_between: least and most lesions to place; there are fewer where there is no room.

    Raises:
        ValueError: if the grid is too small.
    """
    if min(shape) < MIN_SHAPE:
        raise ValueError(f"shape is {shape}; a phantom needs at least {MIN_SHAPE} voxels along each axis.")
    size = np.asarray(shape) * np.asarray(spacing)

    def place(center: tuple[float, float, float], radii: tuple[float, float, float], roughness: float) -> MaskArray:
        """A blob with center and radii relative to the grid's size, both varied between phantoms."""
        moved = np.asarray(center) + rng.uniform(-0.04, 0.04, size=3)
        scaled = np.asarray(radii) * rng.uniform(0.85, 1.15, size=3)
        return blob(rng, shape, spacing, center=moved * size, radii=scaled * size, roughness=roughness)

    body = blob(
        rng,
        shape,
        spacing,
        center=size * 0.5,
        radii=size * np.array([0.46, 0.42, 0.9]) * rng.uniform(0.92, 1.04, size=3),
        roughness=0.03,
        max_degrees=5,
    )
    bone = place((0.5, 0.80, 0.5), (0.09, 0.08, 2.0), 0.05) & body
    liver = place((0.34, 0.42, 0.52), (0.21, 0.24, 0.30), 0.13) & body & ~bone
    spleen = place((0.71, 0.56, 0.58), (0.15, 0.18, 0.27), 0.12) & body & ~bone & ~liver
    bowel = place((0.64, 0.28, 0.32), (0.13, 0.10, 0.16), 0.15) & body & ~bone & ~liver & ~spleen

    # the air beyond the body is as far from a lesion as the grid's border is
    depth = ndimage.distance_transform_edt(np.pad(body, 1), sampling=spacing)[1:-1, 1:-1, 1:-1]
    room = (depth > 3.0) & ~bone & ~spleen & ~bowel
    fewest, most = lesions_between
    lesions = make_lesions(rng, room, room & liver, spacing, int(rng.integers(fewest, most + 1)))
    vessel = np.zeros(shape, dtype=bool)
    for _ in range(3):
        through = size * rng.uniform(0.3, 0.7, size=3)
        vessel |= tube(rng, shape, spacing, through=through, radius=rng.uniform(2.0, 3.0))
    vessel &= body & ~bone & ~ndimage.binary_dilation(lesions > 0, structure=TOUCHING, iterations=2)

    tissues = np.zeros(shape, dtype=np.uint8)
    organs = np.zeros(shape, dtype=np.uint8)
    for mask, tissue, label in (
        (body, FAT, 0),
        (bowel, BOWEL, 0),
        (liver, LIVER_TISSUE, LIVER),
        (spleen, SPLEEN_TISSUE, SPLEEN),
        (bone, BONE, 0),
        (vessel, VESSEL, None),  # a vessel inside an organ belongs to it
        (lesions > 0, LESION_TISSUE, LESION),
    ):
        tissues[mask] = tissue
        if label is not None:
            organs[mask] = label
    return Geometry(tissues=tissues, organs=organs, lesion_instances=lesions, spacing=spacing)


def draw_contrast(rng: np.random.Generator) -> FloatArray:
    """Mean intensity of each tissue, in the order of the tissue constants, as one scanner shows it for one patient."""
    mean = np.zeros(8, dtype=np.float32)
    mean[FAT] = rng.normal(90, 5)
    mean[LIVER_TISSUE] = rng.normal(150, 7)
    mean[SPLEEN_TISSUE] = rng.normal(185, 7)
    mean[BOWEL] = rng.normal(150, 15)
    mean[BONE] = rng.normal(280, 15)
    mean[VESSEL] = rng.normal(235, 10)
    mean[LESION_TISSUE] = rng.normal(235, 10)
    return mean


def render(
    rng: np.random.Generator,
    geometry: Geometry,
    *,
    noise: float = 9.0,
    texture: float = 6.0,
    bias: float = 0.12,
    blur: float = 0.5,
) -> FloatArray:
    """Image a geometry: contrast, partial volume, texture, a bias field, and noise.

    Args:
        rng: source of randomness; another one gives another scan of the same anatomy.
        geometry: what to image.
        noise: standard deviation of independent Gaussian noise, in intensity units.
        texture: standard deviation of smooth variation inside the body, in intensity units.
        bias: standard deviation of the logarithm of the multiplicative bias field.
        blur: standard deviation of the point spread, in voxels.

    Returns:
        (X, Y, Z) intensities in arbitrary units.
    """
    shape: Shape = geometry.tissues.shape
    image = ndimage.gaussian_filter(draw_contrast(rng)[geometry.tissues], blur)
    image += texture * smooth_noise(rng, shape, (1.5, 1.5, 1.5)) * (geometry.tissues != AIR)
    image *= np.exp(bias * smooth_noise(rng, shape, (shape[0] / 4, shape[1] / 4, shape[2] / 4)))
    image += noise * rng.standard_normal(shape)
    return image.astype(np.float32)


def make_phantom(rng: np.random.Generator, shape: Shape = (48, 48, 40)) -> Phantom:
    """Draw one phantom: a geometry and one image of it.

    Args:
        rng: source of randomness; the same state gives the same phantom.
        shape: (X, Y, Z) of the grid, at least 32 voxels each.

    Raises:
        ValueError: if the grid is too small.
    """
    geometry = make_geometry(rng, shape)
    return Phantom(
        image=render(rng, geometry),
        organs=geometry.organs,
        lesion_instances=geometry.lesion_instances,
        spacing=geometry.spacing,
    )


def write_volume(target: Path, array: npt.NDArray[np.generic], spacing: Spacing) -> None:
    """Write an (X, Y, Z) array in a format that SimpleITK knows by the file's ending."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(target))


def draw_shape(rng: np.random.Generator) -> Shape:
    """A grid of 40 to 48 voxels in plane and 32 to 40 slices: nnU-Net then plans a patch that holds a whole case."""
    return int(rng.integers(40, 49)), int(rng.integers(40, 49)), int(rng.integers(32, 41))


def draw_cases(
    seed: int, cases: int, test_cases: int, *, prefix: str = "phantom"
) -> Iterator[tuple[str, str, np.random.Generator]]:
    """Yield each case's name, the ending of its folders and its own generator, which depends on no other case."""
    training, test = np.random.default_rng(seed).spawn(2)
    for number, rng in enumerate(training.spawn(cases)):
        yield f"{prefix}_{number:03d}", "Tr", rng
    for number, rng in enumerate(test.spawn(test_cases)):
        yield f"{prefix}_test_{number:03d}", "Ts", rng


def empty_dataset(raw_folder: Path, dataset_id: int, name: str, parts: Sequence[str]) -> Path:
    """Make the folder of a raw dataset, with empty folders in it.

    Raises:
        UserError: if that folder exists and is not empty.
        ValueError: if the id is not one of nnU-Net's.
    """
    if not 1 <= dataset_id <= 999:
        raise ValueError(f"dataset_id is {dataset_id}; nnU-Net takes 1 to 999.")
    folder = Path(raw_folder) / f"Dataset{dataset_id:03d}_{name}"
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty. Choose another folder or dataset number, or remove it first.")
    for part in parts:
        (folder / part).mkdir(parents=True, exist_ok=True)
    return folder


def write_phantom_dataset(
    raw_folder: Path,
    *,
    dataset_id: int = 900,
    name: str = "Phantoms",
    cases: int = 24,
    test_cases: int = 6,
    seed: int = 0,
    channels: int = 1,
) -> Path:
    """Write an nnU-Net raw dataset of phantoms.

    Args:
        raw_folder: what nnUNet_raw points at; made if it does not exist.
        dataset_id: 1..999.
        name: what follows the number in the folder's name.
        cases: training cases (imagesTr, labelsTr, and instancesTr with the lesions' numbers), at least 1.
        test_cases: cases in imagesTs and labelsTs.
        seed: case i of a seed is the same whatever the number of cases.
        channels: images of each case, all of the same geometry with other contrasts and noise.

    Returns:
        The dataset's folder, ``<raw_folder>/Dataset900_Phantoms``.

    Raises:
        UserError: if that folder exists and is not empty.
        ValueError: if a number is out of its range.
    """
    if cases < 1 or channels < 1 or test_cases < 0:
        raise ValueError(f"cases ({cases}) and channels ({channels}) must be at least 1, test_cases ({test_cases}) 0.")
    parts = ("imagesTr", "labelsTr", "instancesTr", "imagesTs", "labelsTs")
    folder = empty_dataset(raw_folder, dataset_id, name, parts)
    for case, ending, rng in draw_cases(seed, cases, test_cases):
        geometry = make_geometry(rng, draw_shape(rng))
        for channel in range(channels):
            image = render(rng, geometry)
            write_volume(folder / f"images{ending}" / f"{case}_{channel:04d}.nii.gz", image, geometry.spacing)
        write_volume(folder / f"labels{ending}" / f"{case}.nii.gz", geometry.organs, geometry.spacing)
        if ending == "Tr":
            write_volume(folder / "instancesTr" / f"{case}.nii.gz", geometry.lesion_instances, geometry.spacing)
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {str(channel): f"MR{channel}" for channel in range(channels)},
            "labels": LABELS,
            "numTraining": cases,
            "file_ending": ".nii.gz",
            "name": name,
            "description": "Synthetic phantoms: two organs and lesions among unlabelled look-alikes",
        },
    )
    return folder
