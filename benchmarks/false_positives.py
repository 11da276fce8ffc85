"""Where predictions are wrong: ``python -m benchmarks.false_positives REFERENCES NAME=FOLDER[,FOLDER…] …``.

Compares foreground that a model predicts and nobody drew with the distance to what was drawn, and with the distance to
the border of the image in its slice. Prints a table with a row for each name, whose folders are pooled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import distance_transform_edt

from benchmarks.engine.provenance import markdown_table
from nnunet_ext.cli import FINE, WRONG_USAGE
from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.raw_dataset import Labels

FAR, NEAR_BORDER = 20.0, 20.0  # mm


def border_distance(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Distance of each pixel of a slice to the nearest edge of the slice, in mm.

    Args:
        shape: (rows, columns).
        spacing: of rows and columns, in mm.
    """
    along = [np.minimum(np.arange(size), np.arange(size)[::-1]) * step for size, step in zip(shape, spacing)]
    return np.minimum(along[0][:, None], along[1][None, :])


def false_positives(predicted: Labels, reference: Labels, spacing: Sequence[float]) -> tuple[float, float, float]:
    """Volumes of false foreground of a case (slices, rows, columns), as multiples of the reference's foreground.

    Args:
        predicted: label map.
        reference: label map with some foreground.
        spacing: in mm, in the order of the axes.

    Returns:
        All of it, what lies more than `FAR` from the reference, and of this what lies within `NEAR_BORDER` of the edge
        of its slice.
    """
    drawn = reference > 0
    far = (predicted > 0) & (distance_transform_edt(~drawn, sampling=spacing) > FAR)
    at_border = far & (border_distance(drawn.shape[1:], spacing[1:]) < NEAR_BORDER)
    volumes = [((predicted > 0) & ~drawn).sum(), far.sum(), at_border.sum()]
    return tuple(float(volume / drawn.sum()) for volume in volumes)  # type: ignore[return-value]


def row_of(name: str, folders: Sequence[Path], references: Path) -> list[str]:
    """The means over all cases of some folders of predictions."""
    found = []
    for file in [file for folder in folders for file in sorted(folder.glob("*.nii.gz"))]:
        if not (references / file.name).is_file():
            raise UserError(f"{file} has no reference of the same name in {references}.")
        images = sitk.ReadImage(file), sitk.ReadImage(references / file.name)
        predicted, reference = map(sitk.GetArrayFromImage, images)
        found.append(false_positives(predicted, reference, images[0].GetSpacing()[::-1]))
    if not found:
        raise UserError(f"{name}: there is no prediction *.nii.gz in {', '.join(map(str, folders))}.")
    return [name, *(f"{value:.3f}" for value in np.mean(found, axis=0)), str(len(found))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("references", type=Path, help="folder with the dense label maps, CASE.nii.gz")
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER", help="folders of predictions, separated by commas")
    options = parser.parse_args(arguments)
    runs = [run.partition("=") for run in options.runs]
    try:
        rows = [row_of(name, [*map(Path, folders.split(","))], options.references) for name, _, folders in runs]
    except UserError as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    away, near = f"over {FAR:g} mm away", f"of it, under {NEAR_BORDER:g} mm from the edge"
    print("\n".join(markdown_table(["", "false foreground", away, near, "cases"], rows)))
    return FINE


if __name__ == "__main__":
    sys.exit(main())
