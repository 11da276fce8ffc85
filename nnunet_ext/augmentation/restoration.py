"""The target of a pre-training that restores images: the image as it was, and where restoring it counts."""

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor

from nnunet_ext.augmentation.image_border import OUTSIDE


class CleanImageAsTarget(BasicTransform):
    """Puts the image in the place of the segmentation, which nnU-Net's loader hands on as the target.

    Returns ``image`` as it is, and ``segmentation``, (C + 1, [X,] Y, Z) float: the image before the corruptions that
    follow, and 1 in the voxels that count, which are those inside the image. It takes a segmentation with -1 where
    nnU-Net padded the patch, and there alone.
    """

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        image = data_dict["image"]
        counts = (data_dict["segmentation"][:1] != OUTSIDE).to(image.dtype)
        return {**data_dict, "segmentation": torch.cat([image, counts])}


def image_and_counts(target: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts of such a target (B, C + 1, [X,] Y, Z): the image, and a boolean (B, 1, [X,] Y, Z)."""
    return target[:, :-1], target[:, -1:] > 0
