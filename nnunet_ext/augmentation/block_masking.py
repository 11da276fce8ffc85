"""The corruption of a masked autoencoder: most blocks of a patch are removed, and a network learns to restore them."""

from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from nnunet_ext.augmentation.blocks import at_voxels, chosen_blocks
from nnunet_ext.augmentation.draws import drawn_generator


class BlockMasking(BasicTransform):
    """Sets a share of the patch's blocks to 0, in all channels alike; the others do not count in the loss.

    Returns ``image`` with 0 in the masked blocks, and ``segmentation``, as of
    `nnunet_ext.augmentation.restoration.CleanImageAsTarget`, whose last channel is 0 in all others.

    Source: the masked autoencoder of nnssl (arXiv 2410.23132), after He et al., arXiv 2111.06377.
    """

    def __init__(self, block_size: int, share: float) -> None:
        """
        Args:
            block_size: side of a block in voxels. A smaller patch gets smaller blocks, see `block_sides`.
            share: of the blocks that are masked, more than 0 and less than 1.
        """
        super().__init__()
        self.block_size, self.share = block_size, share

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        shape = data_dict["image"].shape[1:]
        sides = block_sides(shape, self.block_size)
        chosen = chosen_blocks(shape, sides, self.share, drawn_generator())
        return {"masked": torch.from_numpy(at_voxels(chosen, sides, shape).copy())}

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        masked, target = params["masked"], data_dict["segmentation"].clone()
        target[-1] *= masked
        return {**data_dict, "image": torch.where(masked, 0, data_dict["image"]), "segmentation": target}


def block_sides(shape: Sequence[int], block_size: int) -> list[int]:
    """The side of a block along each axis: `block_size`, but at most a quarter of the patch, and at least a voxel."""
    return [max(1, min(block_size, length // 4)) for length in shape]
