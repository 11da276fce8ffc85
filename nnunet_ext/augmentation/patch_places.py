"""Where nnU-Net's data loader takes patches from, for trainings that do not look at labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nnunet_ext.augmentation.changed_cases import ChangedCases
from nnunet_ext.augmentation.draws import drawn_generator


def random_place(shape: Sequence[int], sides: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
    """First voxel and end of a box along each axis: at a uniform place within a scan, or around a smaller one."""
    starts = [
        int(rng.integers(length - side, endpoint=True)) if length >= side else -((side - length) // 2)
        for length, side in zip(shape, sides)
    ]
    return [[start, start + side] for start, side in zip(starts, sides)]


class UniformPatchCases(ChangedCases):
    """One of nnU-Net's datasets, of which patches are taken anywhere, whatever has been annotated.

    With an ignore label, nnU-Net takes patches around annotated voxels. Here every label has one location, drawn anew
    whenever a case is loaded: the middle of a patch at a uniform place within the scan.
    """

    def __init__(self, cases: Any, patch_size: Sequence[int]) -> None:
        """
        Args:
            cases: the dataset: ``identifiers`` and ``load_case``.
            patch_size: ([X,] Y, Z); one of two axes is cut from slices.
        """
        super().__init__(cases)
        self.patch_size = list(patch_size)

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """What nnU-Net's loader expects of a dataset."""
        image, segmentation, previous, properties = self.cases.load_case(identifier)
        sides = [*[1] * (image.ndim - 1 - len(self.patch_size)), *self.patch_size]
        starts = [start for start, _ in random_place(image.shape[1:], sides, drawn_generator())]
        middle = np.array([[0, *(start + side // 2 for start, side in zip(starts, sides))]])
        places = dict.fromkeys(properties["class_locations"], middle)
        return image, segmentation, previous, {**properties, "class_locations": places}
