"""Volume Fusion (MIS-FM, arXiv 2306.16925): two crops are blended block by block, and a network tells how much."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from nnunet_ext.augmentation.blocks import at_voxels, chosen_blocks
from nnunet_ext.augmentation.draws import drawn_generator
from nnunet_ext.augmentation.image_border import OUTSIDE


class VolumeFusion(BasicTransform):
    """Blends two crops x₁ and x₂ by blocks: x = α x₁ + (1 − α) x₂ with α = k/K, and makes k the label of a voxel.

    The patch is divided into blocks, with sides that are drawn for each patch and axis. A share of the blocks gets a k
    from 1 to K, uniformly; the others have k = 0, which is x₂ alone.

    Takes a pair of `nnunet_ext.augmentation.crop_pairs`. Returns ``image`` (C, [X,] Y, Z) and ``segmentation``
    (1, [X,] Y, Z), int16: k, and -1 where either crop reaches beyond its scan, as padding tells crops apart.

    Source: Wang et al., arXiv 2306.16925, equations 1 and 2.
    """

    def __init__(self, classes: int, sides: tuple[int, int], share: float) -> None:
        """
        Args:
            classes: K.
            sides: the smallest and the largest side of a block, in voxels. See `side_limits` for small patches.
            share: of the blocks that get a k of at least 1, more than 0 and less than 1.
        """
        super().__init__()
        self.classes, self.sides, self.share = classes, sides, share

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        rng = drawn_generator()
        shape = data_dict["image"].shape[1:]
        sides = [int(rng.integers(*limits, endpoint=True)) for limits in side_limits(shape, self.sides)]
        chosen = chosen_blocks(shape, sides, self.share, rng)
        labels = np.where(chosen, rng.integers(1, self.classes, size=chosen.shape, endpoint=True), 0)
        return {"label": torch.from_numpy(at_voxels(labels, sides, shape).copy())}

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        label = params["label"]
        alpha = (label / self.classes).to(data_dict["image"].dtype)
        first, second = data_dict["image"].chunk(2)
        is_outside = (data_dict["segmentation"] == OUTSIDE).any(dim=0)
        target = torch.where(is_outside, OUTSIDE, label).to(torch.int16)
        return {**data_dict, "image": alpha * first + (1 - alpha) * second, "segmentation": target[None]}


def side_limits(shape: Sequence[int], sides: tuple[int, int]) -> list[tuple[int, int]]:
    """The smallest and largest side of a block along each axis, at most a quarter and half of the patch's there."""
    smallest = [max(1, min(sides[0], length // 4)) for length in shape]
    return [(low, max(low, min(sides[1], length // 2))) for low, length in zip(smallest, shape)]
