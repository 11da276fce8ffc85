"""Digital phantoms for the pictures, and their slices as pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from drawing.layout import Colour, Pixels, levels
from nnunet_ext.demo.phantoms import LESION, LIVER, SPLEEN, Geometry, make_geometry, render, smooth_noise
from nnunet_ext.demo.two_dates import TwoDates, changed_contrast, make_two_dates

SHAPE = (72, 72, 40)
SPACING = (1.0, 1.0, 2.0)

COLOURS: dict[int, Colour] = {LIVER: (86, 180, 233), SPLEEN: (80, 200, 120), LESION: (255, 150, 40)}
NAMES: dict[int, str] = {LIVER: "liver", SPLEEN: "spleen", LESION: "lesion"}
BACKGROUND_STROKE: Colour = (214, 120, 190)
STROKES = {**COLOURS, 0: BACKGROUND_STROKE}
LABELS = [(name, COLOURS[value]) for value, name in NAMES.items()]
"""The legend of label maps."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scan:
    """A phantom, (X, Y, Z), and the slice of it that is shown."""

    image: npt.NDArray[np.float32]
    labels: Array
    instances: Array
    slice: int

    def plane(self, values: Array | torch.Tensor) -> Array:
        """(Y, X) of the slice, of an array or a tensor of the phantom's size."""
        return np.asarray(values)[:, :, self.slice].T

    def shown(self, image: Array | torch.Tensor | None = None, labels: Array | torch.Tensor | None = None) -> Pixels:
        """The slice of an image, by default its own, with labels over it."""
        window = np.percentile(self.image, (0.1, 99.9))  # the extremes are single voxels of noise
        grey = greys(self.plane(self.image if image is None else image), *window)
        return grey if labels is None else over(grey, self.plane(labels))


@cache
def scan(seed: int, *, lesions_between: tuple[int, int] = (4, 6)) -> Scan:
    """A phantom, normalised as nnU-Net does with magnetic resonance images."""
    rng = np.random.default_rng(seed)
    geometry = make_geometry(rng, SHAPE, SPACING, lesions_between=lesions_between)
    image = render(rng, geometry)
    return Scan((image - image.mean()) / image.std(), geometry.organs, geometry.lesion_instances, busiest(geometry))


def two_dates(rng: np.random.Generator) -> tuple[TwoDates, Array, Array]:
    """A patient at two dates, with the current scan and the prior one, (X, Y, Z), from another scanner."""
    dates = make_two_dates(rng, SHAPE)
    return dates, render(rng, dates.current), changed_contrast(rng, render(rng, dates.prior))


def busiest(geometry: Geometry) -> int:
    """The slice that shows most labels and lesions; the one with most lesion voxels if several do."""

    def shows(z: int) -> tuple[int, int]:
        instances = geometry.lesion_instances[:, :, z]
        return len(np.unique(geometry.organs[:, :, z])) + len(np.unique(instances)), int((instances > 0).sum())

    return max(range(SHAPE[2]), key=shows)


def greys(values: Array, low: float = 0.0, high: float = 1.0) -> Pixels:
    """(Y, X) values as grey pixels."""
    return levels((values - low) / (high - low))[..., None].repeat(3, axis=-1)


def over(grey: Pixels, labels: Array, colours: dict[int, Colour] = COLOURS, opacity: float = 0.6) -> Pixels:
    """Pixels with a label map, (Y, X), in colours over them."""
    result = grey.copy()
    for value, colour in colours.items():
        mask = labels == value
        result[mask] = np.round((1 - opacity) * grey[mask] + opacity * np.array(colour))
    return result


def soft(shares: Array) -> Pixels:
    """Shares of classes, (C, Y, X) with background first, as a mixture of their colours on black."""
    colours = np.array([(0, 0, 0), *(COLOURS[value] for value in range(1, len(shares)))])
    return np.einsum("cyx,cd->yxd", levels(shares) / 255, colours).round().clip(0, 255).astype(np.uint8)


def heat(values: Array, colour: Colour = COLOURS[LESION]) -> Pixels:
    """Values from 0 to 1, (Y, X), from black to a colour."""
    return (levels(values)[..., None] / 255 * np.array(colour)).round().astype(np.uint8)


def stand_in(
    labels: Array,
    rng: np.random.Generator,
    *,
    classes: int = 4,
    blur: float = 2.0,
    certainty: float = 8.0,
    doubt: float = 1.2,
) -> torch.Tensor:
    """Logits (1, C, X, Y, Z) in place of those of a network that has begun to learn: the truth, blurred, with doubts.

    Args:
        labels: the truth, (X, Y, Z).
        rng: draws the doubts.
        classes: C.
        blur: standard deviation in voxels of the blur.
        certainty: logit of a class inside it, without doubts.
        doubt: standard deviation of smooth noise that is added to the logits.
    """
    logits = []
    for value in range(classes):
        near = ndimage.gaussian_filter((labels == value).astype(np.float32), blur)
        logits.append(certainty * near + doubt * smooth_noise(rng, labels.shape, (4, 4, 3)))
    return torch.from_numpy(np.stack(logits))[None]
