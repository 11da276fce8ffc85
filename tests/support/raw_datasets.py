"""Raw datasets of a few voxels, written from arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from skimage import io

SPACING = (1.0, 1.5, 3.0)
DATASET_JSON = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}


def write_raw(
    folder: Path,
    labels: Mapping[str, np.ndarray],
    *,
    names: Mapping[str, Any] | None = None,
    channels: Sequence[str] = ("MRI",),
    ending: str = ".nii.gz",
    **content: Any,
) -> Path:
    """Write a raw dataset.

    Args:
        folder: of the dataset.
        labels: by case; images of the same shape are made up.
        names: the labels of dataset.json.
        channels: names.
        ending: of all files.
        content: more entries of dataset.json.

    Returns:
        The folder.
    """
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for case, array in labels.items():
        write_array(array, folder / "labelsTr" / f"{case}{ending}")
        for channel in range(len(channels)):
            write_array(image_like(array, case), folder / "imagesTr" / f"{case}_{channel:04d}{ending}")
    description = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, "lesion": 1} if names is None else dict(names),
        "numTraining": len(labels),
        "file_ending": ending,
        **content,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def image_like(labels: np.ndarray, case: str = "") -> np.ndarray:
    """An image of a label map's shape that is nowhere 0; another one for each case."""
    return np.random.default_rng(list(case.encode())).integers(1, 255, labels.shape).astype(np.uint8)


def write_array(array: np.ndarray, file: Path, spacing: Sequence[float] = SPACING) -> None:
    """Write an array, (Z, Y, X) or (Y, X), in the format that the file's ending tells."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.name.endswith(".png"):
        io.imsave(file, array, check_contrast=False)
        return
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[: array.ndim])
    sitk.WriteImage(image, str(file))


def read_array(file: Path) -> np.ndarray:
    """Read it back."""
    if file.name.endswith(".png"):
        return io.imread(file)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
