"""The tasks of the pre-trainings without labels, made of phantoms by the package's own transforms."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from drawing.layout import Panel, Picture, Pixels, Row
from drawing.scans import SHAPE, SPACING, greys
from nnunet_ext.augmentation.block_masking import BlockMasking
from nnunet_ext.augmentation.crop_pairs import PairsOfCrops
from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, LocalShuffling, Painting
from nnunet_ext.augmentation.restoration import CleanImageAsTarget
from nnunet_ext.augmentation.volume_fusion import VolumeFusion
from nnunet_ext.demo.phantoms import make_geometry, render
from nnunet_ext.techniques.pretraining import MAESettings, ModelsGenesisSettings, VolumeFusionSettings
from nnunet_ext.trainers.reproducibility import restored_global_generators, seed_global_generators

PATCH_SEED = 0
SEED = 51
"""Of the corruptions: one for which the slice that is shown crosses a box of the in-painting in every column."""
COLUMNS = 3


class Step(NamedTuple):
    """What happens to the patches in one row of a picture.

    Attributes:
        title: as it stands above the row.
        transforms: in their order; none for the patches as they are.
        shown: ``image`` or ``segmentation``, and its channel.
        white: of the range from black to white; None for the range of the patch.
    """

    title: str
    transforms: Sequence[BasicTransform] = ()
    shown: tuple[str, int] = ("image", 0)
    white: float | None = None


class Task(NamedTuple):
    """The rows of a picture, and whether a column has the same draws in all of them."""

    steps: Sequence[Step]
    same_draws: bool = False


class TwoCrops(BasicTransform):
    """Two crops of a patch in its size, as `PairsOfCrops` draws them of a scan."""

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        scan = data_dict["image"].numpy(), None, None, {"class_locations": {}}
        cases = SimpleNamespace(identifiers=["patch"], load_case=lambda identifier: scan)
        images, borders, _, _ = PairsOfCrops(cases, SHAPE, (FUSION.smallest_crop, 1.0)).load_case("patch")
        return {"image": torch.from_numpy(images), "segmentation": torch.from_numpy(borders)}


GENESIS, FUSION, MASKING = ModelsGenesisSettings(), VolumeFusionSettings(), MAESettings()
BLEND = VolumeFusion(FUSION.classes, (FUSION.smallest_block, FUSION.largest_block), FUSION.blended_share)

TASKS = {
    "genesis_corruptions": Task(
        (
            Step("Patch, which the network has to restore"),
            Step("Local shuffling", [LocalShuffling()]),
            Step("Intensities, by a rising curve", [BezierIntensity(p_invert=0.0)]),
            Step("by a falling curve", [BezierIntensity(p_invert=1.0)]),
            Step("In-painting", [Painting(p_inside=1.0)]),
            Step("Out-painting", [Painting(p_inside=0.0)]),
            Step(
                "Together, as in training",
                [
                    RandomTransform(LocalShuffling(), apply_probability=GENESIS.shuffling_probability),
                    RandomTransform(BezierIntensity(), apply_probability=GENESIS.intensity_probability),
                    RandomTransform(Painting(), apply_probability=GENESIS.painting_probability),
                ],
            ),
        ),
    ),
    "volume_fusion": Task(
        (
            Step("Two crops of a scan: the first", [TwoCrops()]),
            Step("and the second", [TwoCrops()], shown=("image", 1)),
            Step("What the network sees: their blend", [TwoCrops(), BLEND]),
            Step(
                "What it has to predict: the coefficient",
                [TwoCrops(), BLEND],
                shown=("segmentation", 0),
                white=FUSION.classes,
            ),
        ),
        same_draws=True,
    ),
    "masked_blocks": Task(
        (
            Step(
                "What the network sees", [CleanImageAsTarget(), BlockMasking(MASKING.block_size, MASKING.masked_share)]
            ),
            Step("Patch, which it has to restore"),
        ),
    ),
}


@cache
def patches() -> list[torch.Tensor]:
    """The patch of each column, (1, X, Y, Z), normalised as nnU-Net does with magnetic resonance images."""
    made = []
    for rng in np.random.default_rng(PATCH_SEED).spawn(COLUMNS):
        image = render(rng, make_geometry(rng, SHAPE, SPACING))
        made.append(torch.from_numpy((image - image.mean()) / image.std())[None])
    return made


def corrupted(patch: torch.Tensor, task: Task, row: int, column: int) -> dict[str, torch.Tensor]:
    """A patch after the transforms of a row; what is drawn depends on row and column alone."""
    with restored_global_generators():
        seed_global_generators(SEED, 0 if task.same_draws else row, column)
        sample = {"image": patch, "segmentation": torch.zeros(patch.shape, dtype=torch.int16)}
        return ComposeTransforms(list(task.steps[row].transforms))(**sample)


def middle_slice(task: Task, row: int, column: int) -> Pixels:
    """A patch as it is shown in a row; black and white are the range of the patch."""
    patch, step = patches()[column], task.steps[row]
    # the extremes are single voxels of noise
    low, high = np.percentile(patch.numpy(), (0.1, 99.9)) if step.white is None else (0.0, step.white)
    key, channel = step.shown
    return greys(corrupted(patch, task, row, column)[key][channel, :, :, SHAPE[2] // 2].numpy().T, low, high)


def rows(task: Task) -> list[Row]:
    """The middle slice of every patch after each step."""
    return [
        Row(step.title, [Panel("", middle_slice(task, number, column)) for column in range(COLUMNS)])
        for number, step in enumerate(task.steps)
    ]


PICTURES = [Picture(name, partial(rows, task)) for name, task in TASKS.items()]
