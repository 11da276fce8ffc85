"""The corruptions of Models Genesis (arXiv 2004.07882), which a network learns to undo.

Each is a batchgeneratorsv2 transform of the image alone: ``get_parameters`` draws everything and ``apply`` nothing.
Images are (C, [X,] Y, Z), float, normalised by nnU-Net; fills and curves keep to the range of each channel of the
patch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform

Box = tuple[slice, ...]


def drawn_generator() -> np.random.Generator:
    """A generator seeded from numpy's global one, which all transforms of batchgeneratorsv2 draw from, so that what
    seeds theirs seeds ours."""
    return np.random.default_rng(np.random.randint(2**31, dtype=np.int64))  # noqa: NPY002


class CleanImageAsTarget(BasicTransform):
    """Puts a copy of the image in the place of the segmentation, which nnU-Net's loader hands on as the target.

    Returns ``image`` as it is and ``segmentation``, (C, [X,] Y, Z) float: the image before the corruptions that follow.
    """

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        return {**data_dict, "segmentation": data_dict["image"].clone()}


class LocalShuffling(ImageOnlyTransform):
    """Shuffles voxels within small boxes, all channels alike: texture is lost, shapes stay.

    The patch is cut into boxes of one drawn size, and each box is shuffled with a drawn probability; that is repeated
    with other sizes. Returns an image with the same values in each channel.
    """

    def __init__(self, *, repeats: int = 4, largest: float = 0.1, share: tuple[float, float] = (0.2, 0.8)) -> None:
        """
        Args:
            repeats: how often the patch is cut into boxes.
            largest: longest side of a box, as a share of the patch's.
            share: range of the share of boxes that are shuffled.
        """
        super().__init__()
        self.repeats = repeats
        self.largest = largest
        self.share = share

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        shape = data_dict["image"].shape[1:]
        rounds = []
        for _ in range(self.repeats):
            sides = [int(rng.integers(1, max(2, round(self.largest * length)) + 1)) for length in shape]
            sides = [min(side, length) for side, length in zip(sides, shape)]
            offsets = [int(rng.integers(length % side + 1)) for side, length in zip(sides, shape)]
            counts = [(length - offset) // side for side, offset, length in zip(sides, offsets, shape)]
            boxes, voxels = math.prod(counts), math.prod(sides)
            order = torch.from_numpy(rng.random((boxes, voxels))).argsort(dim=1)
            stays = torch.from_numpy(rng.random(boxes) >= rng.uniform(*self.share))
            order[stays] = torch.arange(voxels)
            rounds.append((sides, offsets, counts, order))
        return {"rounds": rounds}

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        img = img.clone()
        for sides, offsets, counts, order in params["rounds"]:
            box = (slice(None), *(slice(o, o + n * s) for o, n, s in zip(offsets, counts, sides)))
            window = img[box]
            window.copy_(_from_boxes(_to_boxes(window, sides).gather(2, order.expand(len(img), -1, -1)), sides, counts))
        return img


def _to_boxes(img: torch.Tensor, sides: list[int]) -> torch.Tensor:
    """(C, X, Y, …) as (C, boxes, voxels of a box); the sides divide the shape."""
    dims = len(sides)
    split = [part for length, side in zip(img.shape[1:], sides) for part in (length // side, side)]
    order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2)]
    return img.reshape(len(img), *split).permute(order).reshape(len(img), -1, math.prod(sides))


def _from_boxes(boxes: torch.Tensor, sides: list[int], counts: list[int]) -> torch.Tensor:
    """The reverse of `_to_boxes`."""
    dims = len(sides)
    order = [0, *(axis for dim in range(dims) for axis in (1 + dim, 1 + dims + dim))]
    shape = [count * side for count, side in zip(counts, sides)]
    return boxes.reshape(len(boxes), *counts, *sides).permute(order).reshape(len(boxes), *shape)


class BezierIntensity(ImageOnlyTransform):
    """Maps intensities by a monotone cubic Bézier curve over the patch's range, half the time a falling one.

    Returns an image with the same minimum and maximum in each channel.
    """

    def __init__(self, *, p_invert: float = 0.5, points: int = 1000) -> None:
        """
        Args:
            p_invert: probability of a falling curve.
            points: of the curve, between which it is linear.
        """
        super().__init__()
        self.p_invert = p_invert
        self.points = points

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        return {
            "controls": [rng.random((2, 2)) for _ in range(len(data_dict["image"]))],
            "invert": bool(rng.random() < self.p_invert),
        }

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        result = torch.empty_like(img)
        for channel, controls in enumerate(params["controls"]):
            low, high = img[channel].amin(), img[channel].amax()
            if high == low:
                result[channel] = img[channel]
                continue
            x, y = bezier_curve(controls, self.points)
            if params["invert"]:
                y = 1 - y
            unit = ((img[channel] - low) / (high - low)).double().numpy()
            mapped = torch.from_numpy(np.interp(unit, x, y)).to(img)
            result[channel] = low + (high - low) * mapped
        return result


def bezier_curve(controls: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray]:
    """A rising cubic Bézier curve from (0, 0) to (1, 1).

    Args:
        controls: (2, 2), the x and y of two control points between 0 and 1; sorted, so that the curve is monotone.
        points: how many.

    Returns:
        x and y, each rising from 0 to 1.
    """
    t = np.linspace(0, 1, points)[:, None]
    first, second = np.sort(controls, axis=0)
    curve = 3 * t * (1 - t) ** 2 * first + 3 * t**2 * (1 - t) * second + t**3
    return curve[:, 0], curve[:, 1]


class Painting(ImageOnlyTransform):
    """Fills boxes of the patch with noise, or everything but boxes, all channels at the same places.

    Returns an image that is the old one in the voxels that are left, and in the others uniform noise in the range of
    the patch, channel by channel.
    """

    def __init__(
        self,
        *,
        p_inside: float = 0.2,
        inside: tuple[float, float] = (1 / 8, 1 / 6),
        outside: tuple[float, float] = (3 / 7, 4 / 7),
        boxes: int = 5,
    ) -> None:
        """
        Args:
            p_inside: probability of noise in the boxes; else it is around them.
            inside: range of a box's side as a share of the patch's, where the noise is inside.
            outside: the same where it is around.
            boxes: how many.
        """
        super().__init__()
        self.p_inside = p_inside
        self.inside = inside
        self.outside = outside
        self.boxes = boxes

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        image = data_dict["image"]
        is_inside = bool(rng.random() < self.p_inside)
        shares = self.inside if is_inside else self.outside
        painted = torch.zeros(image.shape[1:], dtype=torch.bool)
        for _ in range(self.boxes):
            painted[_random_box(image.shape[1:], shares, rng)] = True
        noise = torch.from_numpy(rng.random(tuple(image.shape))).to(image.dtype)
        return {"painted": painted if is_inside else ~painted, "noise": noise}

    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        over = tuple(range(1, img.ndim))
        low, high = img.amin(over, keepdim=True), img.amax(over, keepdim=True)
        return torch.where(params["painted"], low + (high - low) * params["noise"], img)


def _random_box(shape: torch.Size, shares: tuple[float, float], rng: np.random.Generator) -> Box:
    """A box whose sides are drawn shares of the shape's, at a random place within it."""
    box = []
    for length in shape:
        side = min(length, max(1, round(rng.uniform(*shares) * length)))
        start = int(rng.integers(length - side + 1))
        box.append(slice(start, start + side))
    return tuple(box)
