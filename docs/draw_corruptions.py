"""Draw ``docs/images/genesis_corruptions.png`` with the package's own transforms: ``python docs/draw_corruptions.py``.

The patches are digital phantoms, and every draw is seeded, so that the picture is the same everywhere;
tests/docs/test_draw_corruptions.py fails when it is not the one on disk.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from matplotlib.figure import Figure
from PIL import Image

from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, LocalShuffling, Painting
from nnunet_ext.demo.phantoms import make_geometry, render
from nnunet_ext.files import written_whole
from nnunet_ext.techniques.pretraining import ModelsGenesisSettings
from nnunet_ext.trainers.reproducibility import restored_global_generators, seed_global_generators

PICTURE = Path(__file__).resolve().parent / "images" / "genesis_corruptions.png"

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
    """What happens to the patches in one row of the picture.

    Attributes:
        title: as it stands beside the row.
        corruptions: in their order; none for the patches as they are.
    """

    title: str
    corruptions: Sequence[BasicTransform] = ()


DEFAULTS = ModelsGenesisSettings()
ROWS = (
    Row("patch"),
    Row("local shuffling", [LocalShuffling()]),
    Row("intensity,\nrising curve", [BezierIntensity(p_invert=0.0)]),
    Row("intensity,\nfalling curve", [BezierIntensity(p_invert=1.0)]),
    Row("in-painting", [Painting(p_inside=1.0)]),
    Row("out-painting", [Painting(p_inside=0.0)]),
    Row(
        "together,\nas in training",
        [
            RandomTransform(LocalShuffling(), apply_probability=DEFAULTS.shuffling_probability),
            RandomTransform(BezierIntensity(), apply_probability=DEFAULTS.intensity_probability),
            RandomTransform(Painting(), apply_probability=DEFAULTS.painting_probability),
        ],
    ),
)


def patches() -> list[torch.Tensor]:
    """The patch of each column, (1, X, Y, Z), normalised as nnU-Net does with magnetic resonance images."""
    made = []
    for rng in np.random.default_rng(PATCH_SEED).spawn(COLUMNS):
        image = render(rng, make_geometry(rng, SHAPE, SPACING))
        made.append(torch.from_numpy((image - image.mean()) / image.std())[None])
    return made


def corrupted(patch: torch.Tensor, row: int, column: int) -> torch.Tensor:
    """A patch after the corruptions of a row; what is drawn depends on row and column alone."""
    with restored_global_generators():
        seed_global_generators(SEED, row, column)
        return ComposeTransforms(list(ROWS[row].corruptions))(image=patch)["image"]


def panels() -> list[list[Grey]]:
    """The middle slice of every patch as it is shown, row by row: (Y, X), black and white the range of the patch."""
    shown: list[list[Grey]] = []
    columns = patches()
    for row in range(len(ROWS)):
        shown.append([])
        for column, patch in enumerate(columns):
            # the extremes are single voxels of noise
            low, high = np.percentile(patch.numpy(), (0.1, 99.9))
            middle = corrupted(patch, row, column)[0, :, :, SHAPE[2] // 2].numpy().T
            unit = ((middle - low) / (high - low)).clip(0, 1)
            shown[-1].append((np.round(unit * (GREYS - 1)) * (255 / (GREYS - 1))).astype(np.uint8))
    return shown


def corner(row: int, column: int) -> tuple[int, int]:
    """Where a panel begins in the picture: pixels from the left and from the top."""
    return TITLES + column * (ZOOM * SHAPE[0] + GAP), GAP + row * (ZOOM * SHAPE[1] + GAP)


def picture(shown: Sequence[Sequence[Grey]]) -> Image.Image:
    """The titles, with the panels beside them."""
    width, height = corner(len(ROWS), COLUMNS)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND)
    for row, about in enumerate(ROWS):
        _, top = corner(row, 0)
        middle = top + ZOOM * SHAPE[1] / 2
        figure.text(2 * GAP / width, 1 - middle / height, about.title, color=INK, size=11, va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    result = Image.open(buffer).convert("L")
    for row, of_row in enumerate(shown):
        for column, panel in enumerate(of_row):
            # pixel by pixel, so that a voxel is the same square everywhere
            result.paste(Image.fromarray(panel.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)), corner(row, column))
    return result


def draw(target: Path) -> None:
    """Write the picture as a PNG file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(target) as temporary:
        picture(panels()).save(temporary, format="png", optimize=True)


def main() -> int:
    """Draw it."""
    draw(PICTURE)
    print(f"docs/{PICTURE.relative_to(PICTURE.parents[1]).as_posix()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
