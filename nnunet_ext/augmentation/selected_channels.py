"""Intensity augmentation of some channels alone: of a prior scan's binary labels, intensities mean nothing.

batchgeneratorsv2 transforms. Images are (C, [X,] Y, Z).
"""

from collections.abc import Sequence
from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.nnunet.random_binary_operator import ApplyRandomBinaryOperatorTransform
from batchgeneratorsv2.transforms.nnunet.remove_connected_components import (
    RemoveRandomConnectedComponentFromOneHotEncodingTransform,
)
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

# image-only, but of the labels that a cascade's first stage has put beside the image, which they count from the end
OF_A_CASCADE = (ApplyRandomBinaryOperatorTransform, RemoveRandomConnectedComponentFromOneHotEncodingTransform)


class OnChannels(BasicTransform):
    """Applies a transform of the image to some of its channels, as if there were no others.

    Returns ``image`` with the other channels as they were, bit by bit; the rest of the sample is not looked at.
    """

    def __init__(self, transform: BasicTransform, channels: Sequence[int]) -> None:
        """
        Args:
            transform: of the image alone, such as an ImageOnlyTransform or a RandomTransform around one. It sees an
                image of these channels, in this order.
            channels: from 0, at least one, none twice.

        Raises:
            ValueError: if there is no channel, or one twice.
        """
        super().__init__()
        self.transform = transform
        self.channels = list(channels)
        if not self.channels or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels is {self.channels}; expected at least one, and none twice.")

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        return self.transform.get_parameters(image=data_dict["image"][self.channels])

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        image: Tensor = data_dict["image"]
        changed = self.transform.apply({"image": image[self.channels]}, **params)["image"]
        image = image.clone()  # as the sample may still be used, e.g. as the target
        image[self.channels] = changed
        return {**data_dict, "image": image}


def is_intensity_transform(transform: BasicTransform) -> bool:
    """Whether this is a RandomTransform of nnU-Net's that changes the intensities of all channels."""
    inner = getattr(transform, "transform", None) if isinstance(transform, RandomTransform) else None
    return isinstance(inner, ImageOnlyTransform) and not isinstance(inner, OF_A_CASCADE)


def only_image_channels(transforms: ComposeTransforms, channels: Sequence[int]) -> ComposeTransforms:
    """nnU-Net's training transforms with those of the intensities restricted to some channels.

    Args:
        transforms: what nnUNetTrainer.get_training_transforms gives; it stays as it is.
        channels: those that hold images, from 0.
    """
    restricted = list(transforms.transforms)
    for place, one in enumerate(restricted):
        if is_intensity_transform(one):
            restricted[place] = RandomTransform(OnChannels(one.transform, channels), one.apply_probability)
    return ComposeTransforms(restricted)


def before_intensity(transforms: ComposeTransforms, added: BasicTransform) -> ComposeTransforms:
    """nnU-Net's training transforms with one more between those that move the patch and those of its intensities.

    There the patch has its final size and, with nnU-Net's dummy 2D augmentation, its three dimensions back.

    Args:
        transforms: what nnUNetTrainer.get_training_transforms gives, not yet restricted by `only_image_channels`; it
            stays as it is.
        added: the transform that is put in.

    Raises:
        ValueError: if no transform changes intensities, or they are restricted already.
    """
    for place, one in enumerate(transforms.transforms):
        if is_intensity_transform(one):
            return ComposeTransforms([*transforms.transforms[:place], added, *transforms.transforms[place:]])
    raise ValueError("There is no intensity transform of all channels among these, before which another could be put.")
