"""How the pictures of the documentation look: rows of panels with titles on a dark background.

A dark background of their own makes them readable on light and on dark pages. They are narrow and have
large letters, so that they can be read on a phone, where they are shown at half their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from nnunet_ext.files import written_whole

IMAGES = Path(__file__).resolve().parents[1] / "images"

Pixels = npt.NDArray[np.uint8]
"""(Y, X, 3)."""
Colour = tuple[int, int, int]

# pixels
SIDE = 216
GAP = 8
HEADING, TITLE = 25, 21  # heights of the letters
LEADING = 1.25

BACKGROUND, INK = 26, 240
GREYS = 20
"""Of text and of scans: a picture has at most 256 colours, which makes its file small."""


class Panel(NamedTuple):
    """A small picture, a pixel for each voxel, and the lines above it."""

    title: str
    pixels: Pixels

    def enlarged(self, side: int) -> Pixels:
        """Of so many pixels on its longer side, or some fewer: each voxel is a square of the same size."""
        zoom = max(1, side // max(self.pixels.shape[:2]))
        return self.pixels.repeat(zoom, axis=0).repeat(zoom, axis=1)


class Row(NamedTuple):
    """Panels side by side under a heading."""

    heading: str
    panels: Sequence[Panel]


class Picture(NamedTuple):
    """A picture of the documentation: the name of its file, what draws its rows, and what its colours mean."""

    name: str
    rows: Callable[[], Sequence[Row]]
    legend: Sequence[tuple[str, Colour]] = ()
    side: int = SIDE  # of its panels, in pixels

    @property
    def file(self) -> Path:
        """Where it is."""
        return IMAGES / f"{self.name}.png"


class Place(NamedTuple):
    """Where something is drawn: pixels from the left and from the top."""

    left: int
    top: int


def height_of(text: str, letters: int) -> int:
    """Pixels that lines of text take."""
    return round(LEADING * letters) * (text.count("\n") + 1) if text else 0


def places(rows: Sequence[Row], side: int) -> Iterator[tuple[Place, Row, list[Place]]]:
    """Of each row the place of its heading, and those of its panels, whose titles are right above them."""
    top = GAP
    for row in rows:
        heading = Place(GAP, top)
        top += height_of(row.heading, HEADING) + GAP * bool(row.heading)
        top += max(height_of(panel.title, TITLE) for panel in row.panels)
        yield heading, row, [Place(GAP + column * (side + GAP), top) for column in range(len(row.panels))]
        top += max(len(panel.enlarged(side)) for panel in row.panels) + 2 * GAP


def drawn(picture: Picture, rows: Sequence[Row]) -> Image.Image:
    """The rows of a picture, with its legend below."""
    side, placed = picture.side, list(places(rows, picture.side))
    *_, (_, last, below) = placed
    bottom = max(place.top + len(panel.enlarged(side)) for place, panel in zip(below, last.panels)) + GAP
    height = bottom + bool(picture.legend) * (height_of("legend", TITLE) + GAP)
    width = GAP + max(len(row.panels) for row in rows) * (side + GAP)
    text = Image.new("L", (width, height), BACKGROUND)
    pen = ImageDraw.Draw(text)
    for heading, row, of_panels in placed:
        pen.text(heading, row.heading, INK, font("DejaVuSans-Bold", HEADING))
        for place, panel in zip(of_panels, row.panels):
            above = place.top - height_of(panel.title, TITLE)
            for number, line in enumerate(panel.title.splitlines()):
                pen.text((place.left, above + number * height_of("line", TITLE)), line, INK, font("DejaVuSans", TITLE))
    squares, left = [], GAP
    for name, colour in picture.legend:
        squares.append((Place(left, bottom + 2), colour))
        pen.text((left + TITLE + GAP, bottom - 1), name, INK, font("DejaVuSans", TITLE))
        left += TITLE + 3 * GAP + round(font("DejaVuSans", TITLE).getlength(name))
    result = Image.fromarray(levels(np.asarray(text) / 255)).convert("RGB")
    for _, row, of_panels in placed:
        for place, panel in zip(of_panels, row.panels):
            result.paste(Image.fromarray(panel.enlarged(side)), place)
    for place, colour in squares:
        result.paste(colour, (*place, place.left + TITLE - 2, place.top + TITLE - 2))
    return result


def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """One of the fonts that matplotlib brings along."""
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), size)


def levels(values: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Values from 0 to 1 as one of `GREYS` greys from 0 to 255."""
    return (np.round(np.clip(values, 0, 1) * (GREYS - 1)) * (255 / (GREYS - 1))).astype(np.uint8)


def titles(picture: Picture, rows: Sequence[Row]) -> str:
    """All text of a picture, which its file holds too."""
    of_rows = (line for row in rows for line in (row.heading, *(panel.title for panel in row.panels)))
    return " | ".join(line.replace("\n", " ") for line in (*of_rows, *(name for name, _ in picture.legend)) if line)


def draw(picture: Picture) -> Path:
    """Write a picture as a PNG file; returns where."""
    rows = picture.rows()
    about = PngInfo()
    about.add_text("Description", titles(picture, rows))
    picture.file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(picture.file) as temporary:
        with_palette(drawn(picture, rows)).save(temporary, format="png", optimize=True, pnginfo=about)
    return picture.file


def with_palette(picture: Image.Image) -> Image.Image:
    """The same picture, of at most 256 colours, with one byte for a pixel."""
    pixels = np.asarray(picture)
    colours, numbers = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) > 256:
        raise ValueError(f"The picture has {len(colours)} colours; a palette has 256. Round the values of its panels.")
    result = Image.fromarray(numbers.reshape(pixels.shape[:2]).astype(np.uint8), mode="P")
    result.putpalette(colours.tobytes())
    return result
