"""From dense label maps to scribbles: the slices that are drawn in, and the strokes of a class in a slice."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

from nnunet_ext.preprocessing.raw.raw_dataset import Labels

Mask = npt.NDArray[np.bool_]
VoxelCounts = npt.NDArray[np.int64]

EIGHT_NEIGHBOURS = np.ones((3, 3), bool)
GAP = 2  # voxels


@dataclass(frozen=True)
class Strokes:
    """How scribbles are drawn; by default about as much, and as often wrong, as what people drew into ACDC's images."""

    interior: float = 0.8  # how much of the skeleton of a region the interior stroke follows, above 0 and at most 1
    boundary: float = 0.7  # how much of the line one voxel inside its boundary the second stroke follows, 0 to 1
    thickness: int = 1  # of all strokes, in voxels, at least 1. Thick strokes end where their region does
    noise: float = 0.2  # standard deviation of each stroke's displacement along each axis of its slice, in voxels
    # which connected components of a class in a slice have strokes: at least this share of the largest's size, 0 to 1
    components: float = 0.1
    slices: float = 1.0  # the share of a case's slices that are drawn in, above 0 and at most 1
    num_slices: int | None = None  # their number instead, at least 1; None for the share


def slicing_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """The axis across the slices in which a person would draw: that of the largest spacing, the first of equal ones.

    An axis of one voxel comes first, whatever its spacing: that is a two-dimensional image. Spacings are compared to a
    thousandth of a millimetre.
    """
    if 1 in shape:
        return list(shape).index(1)
    return int(np.argmax(np.round(spacing, 3)))


def scribble_map(
    labels: Labels, values: Sequence[int], ignore: int, strokes: Strokes, rng: np.random.Generator, *, axis: int
) -> tuple[Labels, list[int]]:
    """The scribbles that someone might have drawn who has the dense label map in mind.

    Every class of a slice that is drawn in has a stroke there. Where strokes of two classes meet, a voxel goes to the
    class that it has in the label map. Each class of the case is drawn in at least one slice.

    Args:
        labels: the dense label map, (Z, Y, X).
        values: the classes, background included. Voxels with other values are never drawn on.
        ignore: value of voxels without scribble.
        strokes: how to draw.
        rng: draws.
        axis: that the slices are across.

    Returns:
        The label map with `ignore` wherever there is no stroke; and the slices drawn in, in order.
    """
    scribbles = np.full(labels.shape, ignore, np.promote_types(labels.dtype, np.min_scalar_type(ignore)))
    planes, drawn = np.moveaxis(labels, axis, 0), np.moveaxis(scribbles, axis, 0)
    chosen = annotated_slices(planes, values, strokes, rng)
    for index in chosen:
        plane = planes[index]
        known, present = np.isin(plane, values), voxels_of(plane[None], values)[0]
        of_value = {value: draw_class(plane == value, strokes, rng) for value, voxels in zip(values, present) if voxels}
        for value, stroke in of_value.items():
            drawn[index][stroke & known] = value
        for value, stroke in of_value.items():
            drawn[index][stroke & (plane == value)] = value
    return scribbles, chosen


def annotated_slices(planes: Labels, values: Sequence[int], strokes: Strokes, rng: np.random.Generator) -> list[int]:
    """Which slices of a dense label map, slices first, are drawn in: evenly spread from a random start.

    For a class that none of them has, the slice with most of its voxels is added. Slices without any class are not
    drawn in.
    """
    voxels = voxels_of(planes, values)
    possible = np.flatnonzero(voxels.any(axis=1))
    number = round(strokes.slices * len(possible)) if strokes.num_slices is None else strokes.num_slices
    number = min(max(1, number), len(possible))
    if number == 0:
        return []
    places = (np.arange(number) + rng.random()) * len(possible) / number
    chosen = set(possible[places.astype(int)].tolist())
    for of_class in voxels.T:
        if of_class.any() and not of_class[list(chosen)].any():
            chosen.add(int(of_class.argmax()))
    return sorted(chosen)


def voxels_of(planes: Iterable[Labels], values: Sequence[int]) -> VoxelCounts:
    """How many voxels of each slice have each value, (slices, values)."""
    return np.stack([np.bincount(plane.ravel(), minlength=max(values) + 1)[list(values)] for plane in planes])


def draw_class(region: Mask, strokes: Strokes, rng: np.random.Generator) -> Mask:
    """The strokes of one class, (H, W), in one slice. They lie in it but for noise, and each has a voxel there."""
    drawn = np.zeros_like(region)
    numbers, _ = ndimage.label(region, EIGHT_NEIGHBOURS)
    sizes = np.bincount(numbers.ravel())[1:]
    for number, (box, size) in enumerate(zip(ndimage.find_objects(numbers), sizes), start=1):
        if size < strokes.components * sizes.max():
            continue
        # one voxel more on each side shows where the boundary is, and where the image ends
        box = tuple(slice(max(0, side.start - 1), side.stop + 1) for side in box)
        component = numbers[box] == number
        skeleton = skeletonize(component)
        lines = [interior_line(skeleton, strokes.interior, rng)]
        if strokes.boundary > 0:
            lines.append(boundary_line(component, skeleton, strokes.boundary, rng))
        for line in lines:
            stroke = np.zeros_like(region)
            stroke[box] = thickened(line, strokes.thickness) & component
            drawn |= displaced(stroke, region, strokes.noise, rng)
    return drawn


def interior_line(skeleton: Mask, share: float, rng: np.random.Generator) -> Mask:
    """A connected share of the skeleton, (H, W), of a connected region, from one of its ends on."""
    # the end is what is farthest from any place; of a ring, the opposite
    places = np.argwhere(skeleton)
    distances = walked(places, int(rng.integers(len(places))))
    end = int(np.where(np.isfinite(distances), distances, -1).argmax())
    return connected_part(skeleton, end, share)


def boundary_line(region: Mask, skeleton: Mask, share: float, rng: np.random.Generator) -> Mask:
    """A connected share of a line near the boundary of a region, (H, W): one voxel is between them.

    The edge of the image is no boundary. The line leaves out what is within `GAP` voxels of the skeleton: where a
    region is thin the interior stroke is near the boundary anyhow. Nothing is drawn if no line is left.
    """
    inside = ndimage.binary_erosion(region, EIGHT_NEIGHBOURS, border_value=1)
    line = inside & ~ndimage.binary_erosion(inside, border_value=1)
    line &= ~ndimage.binary_dilation(skeleton, EIGHT_NEIGHBOURS, iterations=GAP)
    if not line.any():
        return line
    return connected_part(line, int(rng.integers(np.count_nonzero(line))), share)


def connected_part(line: Mask, start: int, share: float) -> Mask:
    """The share of a line, (H, W), that is nearest along it to one of its voxels: at least one voxel, all connected.

    `start` is that voxel's number among the line's, row by row; the share is of the voxels that are connected with it.
    """
    places = np.argwhere(line)
    distances = walked(places, start)
    number = max(1, round(share * np.count_nonzero(np.isfinite(distances))))
    part = np.zeros_like(line)
    part[tuple(places[np.argsort(distances, kind="stable")[:number]].T)] = True
    return part


def walked(places: npt.NDArray[np.integer], start: int) -> npt.NDArray[np.float64]:
    """How many voxels it is from one voxel of (N, 2) to each over sides and corners; infinity if not connected."""
    tree = KDTree(places)
    steps = tree.sparse_distance_matrix(tree, 1.5, output_type="coo_matrix")
    return np.asarray(dijkstra(steps.tocsr(), indices=start))


def thickened(line: Mask, thickness: int) -> Mask:
    """A line drawn with a square brush."""
    return ndimage.binary_dilation(line, np.ones((thickness, thickness), bool)) if thickness > 1 else line


def displaced(stroke: Mask, region: Mask, noise: float, rng: np.random.Generator) -> Mask:
    """A stroke, (H, W), moved along each axis by a normal draw of `noise` voxels (SD), rounded; it may leave the image.

    A stroke that would miss its region altogether stays where it is.
    """
    steps = [int(step) for step in np.rint(rng.normal(0, noise, 2))]
    moved = np.zeros_like(stroke)
    there, here = (
        tuple(slice(max(0, sign * step), max(0, side + min(0, sign * step))) for step, side in zip(steps, stroke.shape))
        for sign in (1, -1)
    )
    moved[there] = stroke[here]
    return moved if (moved & region).any() else stroke
