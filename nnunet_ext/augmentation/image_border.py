"""Which voxels of a patch lie inside the image, carried through nnU-Net's loading and augmentation.

nnU-Net pads a patch that reaches beyond the image: the image with 0, the segmentation with -1. Rotation and scaling do
the same. Its last transform then turns -1 into background. That is harmless where everything is annotated, and wrong
where labels are partial: nobody annotated what lies outside the image.

The number -1 has a second meaning. Preprocessing writes it where a voxel is 0 in every channel, lies outside of what is
not 0, and has label 0 (`crop_to_nonzero`). Such air belongs to the image and was annotated as background, so here it
stays background. To tell the two apart, air is marked by -2 while a case is loaded (`CasesWithMarkedAir`); what is -1
after the spatial augmentation came from padding and is kept to the end (`KeepOutside`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform
from torch import Tensor

from nnunet_ext.augmentation.changed_cases import ChangedCases

OUTSIDE = -1
"""What nnU-Net pads segmentations with, and what preprocessing writes into air."""
AIR = -2
"""What air is marked with while a case is loaded. nnU-Net masks images where a segmentation is negative, so it must
be negative too."""


class MarkedAir:
    """A stored segmentation (1, X, Y, Z), in memory or in a file, in which air is -2. It is read as it is cropped."""

    def __init__(self, segmentation: Any) -> None:
        self.segmentation = segmentation
        self.shape: tuple[int, ...] = segmentation.shape

    def __getitem__(self, box: tuple[slice, ...]) -> npt.NDArray[Any]:
        cropped = np.asarray(self.segmentation[box])
        return np.where(cropped == OUTSIDE, np.array(AIR, dtype=cropped.dtype), cropped)


class CasesWithMarkedAir(ChangedCases):
    """One of nnU-Net's datasets, whose segmentations are `MarkedAir`."""

    def load_case(self, identifier: str) -> tuple[Any, MarkedAir, Any, Any]:
        """Image, segmentation, the previous stage's segmentation (None without a cascade), and properties."""
        image, segmentation, previous, properties = self.cases.load_case(identifier)
        return image, MarkedAir(segmentation), previous, properties


class KeepOutside(SegOnlyTransform):
    """Turns air into background, and leaves -1 where a voxel lies outside the image.

    Returns ``segmentation`` (1 or 2, [X,] Y, Z) with -1 in its first channel alone: the second, which a cascade's first
    stage has found, has 0 there, as nnU-Net expects.
    """

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        segmentation[segmentation == AIR] = 0
        segmentation[1:][segmentation[1:] == OUTSIDE] = 0
        return segmentation


def keeping_outside(transforms: ComposeTransforms) -> ComposeTransforms:
    """nnU-Net's transforms for training or validation, which tell in their result what lies outside the image.

    Args:
        transforms: what nnU-Net's trainer composes; they stay as they are.

    Returns:
        The same transforms in the same order, but labels keep -1 outside the image. Regions get one more channel at
        their end, which is true there.
    """
    return ComposeTransforms([_keeping_outside(one) for one in transforms.transforms])


def _keeping_outside(transform: BasicTransform) -> BasicTransform:
    if isinstance(transform, RemoveLabelTransform) and transform.label_value == OUTSIDE:
        return KeepOutside()
    if isinstance(transform, ConvertSegmentationToRegionsTransform):
        regions = [[int(label) for label in region] for region in transform.regions]
        return ConvertSegmentationToRegionsTransform([*regions, [OUTSIDE]], transform.channel_in_seg)
    return transform


def without_outside(target: Tensor, *, has_regions: bool) -> tuple[Tensor, Tensor]:
    """What nnU-Net would have given as the target, and which voxels lie inside the image.

    Args:
        target: (B, 1, [X,] Y, Z) labels with -1 outside the image, or (B, R + 1, [X,] Y, Z) regions whose last
            channel is true there.
        has_regions: which of the two it is.

    Returns:
        The target with background outside the image, (B, 1 or R, [X,] Y, Z); and a boolean (B, 1, [X,] Y, Z).
    """
    if has_regions:
        return target[:, :-1], ~target[:, -1:].bool()
    is_inside = target != OUTSIDE
    return torch.where(is_inside, target, 0), is_inside


def ignored_outside(target: Tensor, is_inside: Tensor, ignore_label: int | None, *, has_regions: bool) -> Tensor:
    """nnU-Net's target with the ignore label outside the image, if the dataset has one.

    Args:
        target: (B, 1, [X,] Y, Z) labels, or (B, R, [X,] Y, Z) regions, the last one that of the ignore label.
        is_inside: (B, 1, [X,] Y, Z).
        ignore_label: None returns the target as it is.
        has_regions: which of the two kinds the target is.
    """
    if ignore_label is None:
        return target
    if has_regions:
        return torch.cat([target[:, :-1], target[:, -1:].bool() | ~is_inside], dim=1)
    return torch.where(is_inside, target, ignore_label)
