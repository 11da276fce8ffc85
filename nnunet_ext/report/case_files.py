"""Where the images and references of cases are, for their pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.case_sets import raw_test_cases
from nnunet_ext.files import read_json
from nnunet_ext.preprocessing.raw.raw_dataset import training_cases

VARIABLE = "nnUNet_raw"


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case, as far as they are known; they may not exist.

    Attributes:
        prediction: predicted label map.
        reference: label map.
        image: of the first channel.
    """

    prediction: Path
    reference: Path | None
    image: Path | None


@dataclass(frozen=True)
class RawFiles:
    """The first images and the references of a raw dataset's cases.

    Attributes:
        description: its dataset.json.
        images: by case.
        references: by case.
    """

    description: Mapping[str, Any]
    images: Mapping[str, Path]
    references: Mapping[str, Path]


def find_raw_dataset(dataset: str, near: Iterable[Path]) -> Path | None:
    """The folder of a raw dataset, where it can be guessed.

    Looks in the folder that the variable nnUNet_raw names, then for a folder ``nnUNet_raw`` beside those that hold the
    given paths (as beside nnUNet_results), then for the dataset's own folder among them.

    Args:
        dataset: name of its folder; empty if it is not known.
        near: files and folders that came of it.
    """
    if not dataset:
        return None
    root = os.environ.get(VARIABLE)
    candidates = [Path(root) / dataset] if root else []
    for path in near:
        for parent in path.parents:
            candidates += [parent] if parent.name == dataset else []
            candidates.append(parent / VARIABLE / dataset)
    return next((folder for folder in candidates if _is_raw(folder)), None)


def _is_raw(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() and any((folder / name).is_dir() for name in ("labelsTr", "labelsTs"))


def read_raw_files(folder: Path, *, references: str | None = None) -> RawFiles:
    """The files of a raw dataset's training and test cases.

    Args:
        folder: of the dataset.
        references: name of the folder that the references are in, where it is not labelsTr and labelsTs.
    """
    description = read_json(folder / "dataset.json")
    cases = raw_test_cases(folder, description) | training_cases(folder, description)
    images = {name: case.images[0] for name, case in cases.items() if case.images}
    labels = {name: case.label for name, case in cases.items()}
    if references is not None:
        labels = {name: folder / references / f"{name}{description['file_ending']}" for name in labels}
    return RawFiles(description, images, labels)
