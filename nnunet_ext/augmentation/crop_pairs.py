"""Two crops of one scan at a time, for pre-trainings that compare or blend them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from torch import Tensor
from torch.nn.functional import interpolate

from nnunet_ext.augmentation.changed_cases import ChangedCases
from nnunet_ext.augmentation.draws import drawn_generator
from nnunet_ext.augmentation.image_border import OUTSIDE
from nnunet_ext.augmentation.patch_places import random_place

INSIDE = 0


class PairsOfCrops(ChangedCases):
    """One of nnU-Net's datasets, of which each case is two crops of a scan, drawn anew whenever it is loaded.

    The crops have the size of the patch, so that nnU-Net's data loader takes them whole. Each is a box at a random
    place of the scan, with sides of a random factor times those of the patch, resampled linearly to the patch. Where
    the scan is smaller than the box along an axis, the scan is in the middle of the box.
    """

    def __init__(self, cases: Any, patch_size: Sequence[int], scales: tuple[float, float]) -> None:
        """
        Args:
            cases: the dataset: ``identifiers`` and ``load_case``.
            patch_size: ([X,] Y, Z); one of two axes is cropped from slices.
            scales: the smallest and the largest side of a box, as a factor of the patch's.
        """
        super().__init__(cases)
        self.patch_size, self.scales = list(patch_size), scales

    def load_case(self, identifier: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], None, dict[str, Any]]:
        """What nnU-Net's loader expects of a dataset.

        Returns:
            Images (2C, X, Y, Z), the channels of one crop after those of the other; segmentation (2, X, Y, Z), -1 where
            a crop reaches beyond the scan, else 0; None; and properties, by which every location is the middle.
        """
        image, _, _, properties = self.cases.load_case(identifier)
        rng = drawn_generator()
        crops = [self._crop(image, rng) for _ in range(2)]
        middle = [0, *(length // 2 for length in crops[0][0].shape[1:])]
        places = {label: np.array([middle]) for label in properties["class_locations"]}
        images, borders = (np.concatenate(parts) for parts in zip(*crops))
        return images, borders, None, {**properties, "class_locations": places}

    def _crop(self, image: Any, rng: np.random.Generator) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """A crop (C, X, Y, Z) and its border (1, X, Y, Z)."""
        scale = rng.uniform(*self.scales)
        sides = [max(1, round(scale * length)) for length in self.patch_size]
        flat = [1] * (image.ndim - 1 - len(sides))
        box = random_place(image.shape[1:], [*flat, *sides], rng)
        everywhere = np.broadcast_to(np.float32(1), (1, *image.shape[1:]))
        crop, is_inside = (torch.from_numpy(np.array(crop_and_pad_nd(one, box, 0))) for one in (image, everywhere))
        # a voxel that any padding went into is outside
        border = torch.where(self._resampled(is_inside) > 1 - 1e-4, INSIDE, OUTSIDE)
        return self._resampled(crop.float()).numpy(), border.numpy().astype(np.int16)

    def _resampled(self, crop: Tensor) -> Tensor:
        """A box (C, X, Y, Z) in the size of the patch."""
        is_flat = len(self.patch_size) == 2
        flat = crop[:, 0] if is_flat else crop
        mode = "bilinear" if is_flat else "trilinear"
        resampled = interpolate(flat[None], self.patch_size, mode=mode, align_corners=False)[0]
        return resampled[:, None] if is_flat else resampled


class EachCrop(BasicTransform):
    """Applies transforms to each of the two crops of a pair, with draws of their own.

    Takes and returns ``image`` (2C, [X,] Y, Z) and ``segmentation`` (2, [X,] Y, Z) as `PairsOfCrops` has them.
    """

    def __init__(self, transform: BasicTransform) -> None:
        super().__init__()
        self.transform = transform

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        images, borders = data_dict["image"].chunk(2), data_dict["segmentation"].chunk(2)
        # intensity transforms write into what they are given
        crops = [self.transform(image=one.clone(), segmentation=border) for one, border in zip(images, borders)]
        return {**data_dict, **{key: torch.cat([one[key] for one in crops]) for key in ("image", "segmentation")}}
