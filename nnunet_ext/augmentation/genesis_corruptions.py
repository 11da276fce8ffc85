"""The corruptions of Models Genesis (arXiv 2004.07882), which a network learns to undo.

They are those of the authors' code (MrGiovanni/ModelsGenesis, commit 32b7b5e, pytorch/utils.py), made to work for
patches of any size and several channels. Images are (C, [X,] Y, Z), float, normalised by nnU-Net and so without common
limits: where the authors' images lie between 0 and 1, curves and noise keep to the range that each channel has in the
patch.

Each is a batchgeneratorsv2 transform of the image alone: ``get_parameters`` draws everything and ``apply`` nothing.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import ImageOnlyTransform
from torch import Tensor

from nnunet_ext.augmentation.draws import drawn_generator

Box = tuple[slice, ...]

COVERAGE = 10_000 * (3.5 * 3.5 * 2) / (64 * 64 * 32)
"""Expected volume of all shuffled boxes over that of the patch: 10,000 boxes with mean sides of 3.5, 3.5 and 2 voxels
in patches of 64 x 64 x 32."""

CURVE_POINTS = 1000
"""Between which a curve of intensities is linear."""

MARGIN = 3
"""Voxels between a box of painting and the border of the patch."""


class LocalShuffling(ImageOnlyTransform):
    """Shuffles voxels within many small boxes, all channels alike: texture is lost, shapes stay.

    The voxels of each box are taken from the image as it was and written in random order over what earlier boxes left.
    So values move within one box alone, and some come to stand twice while others are lost. The authors know one
    channel; that several move together is this package's choice.

    Returns an image in which each voxel has the values, in all channels, of one in a box around it. Along axes of less
    than 20 voxels none moves, as no box has a side of more than one there.
    """

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        shape = data_dict["image"].shape[1:]
        starts, sides = boxes_to_shuffle(shape, rng)
        return {"source": torch.from_numpy(shuffled_places(starts, sides, shape, rng))}

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return img.flatten(1)[:, params["source"]].reshape(img.shape)


def boxes_to_shuffle(shape: Sequence[int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Boxes whose sides are uniform from 1 voxel to a tenth of the patch's, at uniform places within the patch.

    There are as many as make the expected volume of all of them 1.87 times the patch's, whatever its size and number
    of axes. For 64 x 64 x 32 voxels those are the 10,000 of the authors.

    Args:
        shape: of the patch, ([X,] Y, Z).
        rng: draws.

    Returns:
        Where the boxes start and their sides, (N, axes) each, in voxels.
    """
    lengths = np.array(shape)
    longest = np.maximum(lengths // 10, 1)
    count = round(COVERAGE * math.prod(shape) / math.prod((longest + 1) / 2))
    sides = rng.integers(1, longest, size=(count, len(shape)), endpoint=True)
    return rng.integers(lengths - sides, endpoint=True), sides


def shuffled_places(
    starts: np.ndarray, sides: np.ndarray, shape: Sequence[int], rng: np.random.Generator
) -> np.ndarray:
    """Where the value of each voxel comes from when the voxels of one box after the other are shuffled.

    Args:
        starts: of the boxes, (N, axes).
        sides: of the boxes, (N, axes).
        shape: of the patch, ([X,] Y, Z).
        rng: draws.

    Returns:
        (voxels of the patch,), flat positions: of another voxel of the last box that covers a voxel, or its own.
    """
    volumes = sides.prod(axis=1)
    box = np.arange(len(sides)).repeat(volumes)
    rest = np.arange(len(box)) - (volumes.cumsum() - volumes).repeat(volumes)
    place, stride = np.zeros_like(rest), 1
    for axis in reversed(range(len(shape))):
        rest, within = np.divmod(rest, sides[box, axis])
        place += stride * (starts[box, axis] + within)
        stride *= shape[axis]
    source = np.arange(stride)
    # sorted by box and a fraction, places change only within boxes; of several writes to a place numpy keeps the last
    source[place] = place[(box + rng.random(len(box))).argsort()]
    return source


class BezierIntensity(ImageOnlyTransform):
    """Maps intensities by a cubic Bézier curve over the patch's range, half the time a falling one.

    Each channel has a curve and a direction of its own, as nnU-Net draws its changes of intensity: channels are
    different contrasts. (The authors know one channel.) Returns an image that keeps to the range of each channel.
    """

    def __init__(self, *, p_invert: float = 0.5) -> None:
        """`p_invert` is the probability of a falling curve."""
        super().__init__()
        self.p_invert = p_invert

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        channels = len(data_dict["image"])
        return {"controls": rng.random((channels, 2, 2)), "falls": rng.random(channels) < self.p_invert}

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        result = img.clone()
        for values, controls, falls in zip(result, params["controls"], params["falls"]):
            low, high = values.amin(), values.amax()
            if high == low:
                continue
            x, y = bezier_curve(controls, CURVE_POINTS)
            unit = ((values - low) / (high - low)).double().numpy()
            mapped = torch.from_numpy(np.interp(unit, x, y[::-1] if falls else y)).to(img)
            values.copy_(low + (high - low) * mapped)
        return result


def bezier_curve(controls: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """A cubic Bézier curve from (0, 0) to (1, 1).

    Both coordinates rise along it, whichever control point comes first: a coordinate with controls a and b has the
    derivative 3 (1 - t)² a + 6 t (1 - t) (b - a) + 3 t² (1 - b), which is never negative for a and b between 0 and 1,
    as a - b is then at most a (1 - b). Sorting the coordinates, as the authors do, corrects rounding alone.

    Args:
        controls: (2, 2), the x and y of the first and the second control point, between 0 and 1.
        points: how many.

    Returns:
        x and y, (points,) each, rising from 0 to 1.
    """
    t = np.linspace(0, 1, points)[:, None]
    first, second = controls
    curve = 3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3
    x, y = np.sort(curve, axis=0).T
    return x, y


class Painting(ImageOnlyTransform):
    """Fills boxes of the patch with noise (in-painting), or all but boxes (out-painting), alike in all channels.

    In-painting has up to five boxes, with sides from a sixth to a third of the patch's, and out-painting one to five,
    with sides from about 3/7 to 4/7. A box follows another, and in-painting has a first one, with probability 0.95
    each. They lie at least three voxels from the border of the patch, or in the middle where it is too small for that.
    These are the sizes of Models Genesis; the code released with DBDMP paints in smaller boxes, of 1/8 to 1/6.

    Returns an image that is the old one in the voxels that are left, and in the others uniform noise in the range of
    the patch, channel by channel.
    """

    def __init__(self, *, p_inside: float = 0.2, p_next: float = 0.95, most: int = 5) -> None:
        """With probability `p_inside` noise is in the boxes, else around them; each further box has `p_next`."""
        super().__init__()
        self.p_inside, self.p_next, self.most = p_inside, p_next, most

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        image = data_dict["image"]
        shape = image.shape[1:]
        is_inside = bool(rng.random() < self.p_inside)
        if is_inside:
            sides = [(max(1, length // 6), max(1, length // 3)) for length in shape]
        else:
            sides = [(length - 4 * length // 7, length - 3 * length // 7) for length in shape]
        count = 0 if is_inside else 1
        while count < self.most and rng.random() < self.p_next:
            count += 1
        boxes = [box_to_paint(shape, sides, rng) for _ in range(count)]
        noise = torch.from_numpy(rng.random(tuple(image.shape))).to(image.dtype)
        return {"is_inside": is_inside, "boxes": boxes, "noise": noise}

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        over = tuple(range(1, img.ndim))
        low, high = img.amin(over, keepdim=True), img.amax(over, keepdim=True)
        painted = torch.full(img.shape[1:], not params["is_inside"])
        for box in params["boxes"]:
            painted[box] = params["is_inside"]
        return torch.where(painted, low + (high - low) * params["noise"], img)


def box_to_paint(shape: Sequence[int], sides: Sequence[tuple[int, int]], rng: np.random.Generator) -> Box:
    """A box at a uniform place, `MARGIN` voxels from the border of the patch; as far as it can be in a smaller patch.

    Args:
        shape: of the patch, ([X,] Y, Z).
        sides: the smallest and the largest side of the box along each axis, in voxels.
        rng: draws.
    """
    box = []
    for length, (smallest, largest) in zip(shape, sides):
        side = int(rng.integers(smallest, largest, endpoint=True))
        margin = min(MARGIN, (length - side) // 2)
        start = int(rng.integers(margin, length - side - margin, endpoint=True))
        box.append(slice(start, start + side))
    return tuple(box)
