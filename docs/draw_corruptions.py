"""Draw the pictures of the pre-trainings' tasks with the package's own transforms: ``python docs/draw_corruptions.py``.

The patches are digital phantoms, and every draw is seeded, so that the pictures are the same everywhere;
tests/docs/test_draw_corruptions.py fails when they are not those on disk.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from matplotlib.figure import Figure
from PIL import Image

from nnunet_ext.augmentation.block_masking import BlockMasking
from nnunet_ext.augmentation.crop_pairs import PairsOfCrops
from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, LocalShuffling, Painting
from nnunet_ext.augmentation.restoration import CleanImageAsTarget
from nnunet_ext.augmentation.volume_fusion import VolumeFusion
from nnunet_ext.demo.phantoms import make_geometry, render
from nnunet_ext.files import written_whole
from nnunet_ext.techniques.pretraining import MAESettings, ModelsGenesisSettings, VolumeFusionSettings
from nnunet_ext.trainers.reproducibility import restored_global_generators, seed_global_generators

IMAGES = Path(__file__).resolve().parent / "images"

PATCH_SEED = 0
SEED = 51
"""Of the corruptions: one for which the slice that is shown crosses a box of the in-painting in every column."""

COLUMNS = 4
SHAPE = (72, 72, 40)
SPACING = (1.0, 1.0, 2.0)

# Pixels. A dark background of its own is readable on light and on dark pages.
ZOOM = 2
GAP = 8
TITLES = 148
BACKGROUND, INK = "#1c1c1c", "#f0f0f0"
DPI = 100
GREYS = 32

Grey = npt.NDArray[np.uint8]


class Row(NamedTuple):
    """What happens to the patches in one row of a picture.

    Attributes:
        title: as it stands beside the row.
        transforms: in their order; none for the patches as they are.
        shown: ``image`` or ``segmentation``, and its channel.
        white: of the range from black to white; None for the range of the patch.
    """

    title: str
    transforms: Sequence[BasicTransform] = ()
    shown: tuple[str, int] = ("image", 0)
    white: float | None = None


class Picture(NamedTuple):
    """A picture: its file, its rows, and whether a column has the same draws in all of them."""

    name: str
    rows: Sequence[Row]
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

PICTURES = (
    Picture(
        "genesis_corruptions",
        (
            Row("patch"),
            Row("local shuffling", [LocalShuffling()]),
            Row("intensity,\nrising curve", [BezierIntensity(p_invert=0.0)]),
            Row("intensity,\nfalling curve", [BezierIntensity(p_invert=1.0)]),
            Row("in-painting", [Painting(p_inside=1.0)]),
            Row("out-painting", [Painting(p_inside=0.0)]),
            Row(
                "together,\nas in training",
                [
                    RandomTransform(LocalShuffling(), apply_probability=GENESIS.shuffling_probability),
                    RandomTransform(BezierIntensity(), apply_probability=GENESIS.intensity_probability),
                    RandomTransform(Painting(), apply_probability=GENESIS.painting_probability),
                ],
            ),
        ),
    ),
    Picture(
        "volume_fusion",
        (
            Row("first crop", [TwoCrops()]),
            Row("second crop", [TwoCrops()], shown=("image", 1)),
            Row("coefficient", [TwoCrops(), BLEND], shown=("segmentation", 0), white=FUSION.classes),
            Row("blend", [TwoCrops(), BLEND]),
        ),
        same_draws=True,
    ),
    Picture(
        "masked_blocks",
        (
            Row("patch"),
            Row("masked", [CleanImageAsTarget(), BlockMasking(MASKING.block_size, MASKING.masked_share)]),
        ),
    ),
)


def patches() -> list[torch.Tensor]:
    """The patch of each column, (1, X, Y, Z), normalised as nnU-Net does with magnetic resonance images."""
    made = []
    for rng in np.random.default_rng(PATCH_SEED).spawn(COLUMNS):
        image = render(rng, make_geometry(rng, SHAPE, SPACING))
        made.append(torch.from_numpy((image - image.mean()) / image.std())[None])
    return made


def corrupted(patch: torch.Tensor, about: Picture, row: int, column: int) -> dict[str, torch.Tensor]:
    """A patch after the transforms of a row; what is drawn depends on row and column alone."""
    with restored_global_generators():
        seed_global_generators(SEED, 0 if about.same_draws else row, column)
        sample = {"image": patch, "segmentation": torch.zeros(patch.shape, dtype=torch.int16)}
        return ComposeTransforms(list(about.rows[row].transforms))(**sample)


def panels(about: Picture) -> list[list[Grey]]:
    """The middle slice of every patch as it is shown, row by row: (Y, X), black and white the range of the patch."""
    shown: list[list[Grey]] = []
    columns = patches()
    for number, row in enumerate(about.rows):
        shown.append([])
        for column, patch in enumerate(columns):
            # the extremes are single voxels of noise
            low, high = np.percentile(patch.numpy(), (0.1, 99.9)) if row.white is None else (0.0, row.white)
            key, channel = row.shown
            middle = corrupted(patch, about, number, column)[key][channel, :, :, SHAPE[2] // 2].numpy().T
            unit = ((middle - low) / (high - low)).clip(0, 1)
            shown[-1].append((np.round(unit * (GREYS - 1)) * (255 / (GREYS - 1))).astype(np.uint8))
    return shown


def corner(row: int, column: int) -> tuple[int, int]:
    """Where a panel begins in the picture: pixels from the left and from the top."""
    return TITLES + column * (ZOOM * SHAPE[0] + GAP), GAP + row * (ZOOM * SHAPE[1] + GAP)


def picture(about: Picture, shown: Sequence[Sequence[Grey]]) -> Image.Image:
    """The titles, with the panels beside them."""
    width, height = corner(len(about.rows), COLUMNS)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)
    for number, row in enumerate(about.rows):
        _, top = corner(number, 0)
        middle = top + ZOOM * SHAPE[1] / 2
        figure.text(2 * GAP / width, 1 - middle / height, row.title, color=INK, size=11, va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    result = Image.open(buffer).convert("L")
    for number, of_row in enumerate(shown):
        for column, panel in enumerate(of_row):
            # pixel by pixel, so that a voxel is the same square everywhere
            result.paste(Image.fromarray(panel.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)), corner(number, column))
    return result


def draw(about: Picture) -> Path:
    """Write a picture as a PNG file; returns where."""
    target = IMAGES / f"{about.name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as temporary:
        picture(about, panels(about)).save(temporary, format="png", optimize=True)
    return target


def main() -> int:
    """Draw them."""
    for about in PICTURES:
        print(f"docs/{draw(about).relative_to(IMAGES.parent).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
