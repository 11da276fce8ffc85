"""Current scans with priors, of a few voxels, as files."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

HEADER = ("patient", "current_image", "prior_image", "prior_label", "current_label")
SHAPE = (6, 10, 12)
SPACING = (1.0, 1.5, 3.0)


def scan(
    values: np.ndarray, *, origin: Sequence[float] = (5.0, -7.0, 11.0), spacing: Sequence[float] = SPACING
) -> sitk.Image:
    """An array, (Z, Y, X), as an image with a place."""
    image = sitk.GetImageFromArray(values)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    return image


def textured(seed: int, shape: Sequence[int] = SHAPE) -> np.ndarray:
    """Values that are nowhere 0."""
    return np.random.default_rng(seed).integers(1, 200, tuple(shape)).astype(np.int16)


def box(values: Mapping[int, tuple[int, int]], shape: Sequence[int] = SHAPE) -> np.ndarray:
    """Labels that fill columns from the first to before the second."""
    labels = np.zeros(tuple(shape), np.uint8)
    for value, (start, end) in values.items():
        labels[2:4, 3:7, start:end] = value
    return labels


def write_pair(folder: Path, name: str, **replaced: sitk.Image | None) -> dict[str, str]:
    """Write the files of a pair, and give the table's cells.

    Args:
        folder: of the table.
        name: of the patient.
        replaced: images by column, instead of those that are made up; None leaves the file out.
    """
    seed = sum(map(ord, name))
    images = {
        "current_image": scan(textured(seed)),
        "prior_image": scan(textured(seed + 1)),
        "prior_label": scan(box({1: (2, 5), 2: (5, 8)})),
        "current_label": scan(box({1: (3, 5), 2: (5, 7)})),
        **replaced,
    }
    cells = {"patient": name, **dict.fromkeys(images, "")}
    folder.mkdir(parents=True, exist_ok=True)
    for column, image in images.items():
        if image is not None:
            cells[column] = f"{column} {name}.nii.gz"
            sitk.WriteImage(image, str(folder / cells[column]))
    return cells


def write_table(file: Path, rows: Sequence[Mapping[str, str]], *, delimiter: str = ",") -> Path:
    """Write rows of cells below a header of all columns that they have."""
    columns = list(dict.fromkeys([*HEADER, *(column for row in rows for column in row)]))
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return file
