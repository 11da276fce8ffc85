"""Where the images and references of cases are, for their pictures."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.case_sets import raw_test_cases, with_references
from nnunet_ext.formats.dataset_json import read_dataset_json
from nnunet_ext.preprocessing.raw.raw_dataset import training_cases

VARIABLE = "nnUNet_raw"


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case, as far as they are known; they may not exist."""

    prediction: Path  # label map
    reference: Path | None  # label map
    image: Path | None  # first channel


@dataclass(frozen=True)
class RawFiles:
    """A raw dataset's dataset.json, and the first image and the reference of each case; empty if it was not found."""

    description: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)


def find_raw_files(dataset: str, near: Iterable[Path], *, references: str | None = None) -> RawFiles:
    """The files of a raw dataset's training and test cases.

    The dataset is looked for in the folder that the variable nnUNet_raw names, then in a folder ``nnUNet_raw`` beside
    those that hold the files and folders `near` it, such as results (as beside nnUNet_results), then among these
    folders themselves. `dataset` is empty if it is not known; `references` names the folder with the references, where
    it is not labelsTr and labelsTs.
    """
    root = os.environ.get(VARIABLE)
    candidates = [Path(root) / dataset] if root else []
    for path in near:
        for parent in path.parents:
            candidates += [parent] if parent.name == dataset else []
            candidates.append(parent / VARIABLE / dataset)
    folder = next((one for one in candidates if dataset and _is_raw(one)), None)
    if folder is None:
        return RawFiles()
    description = read_dataset_json(folder / "dataset.json")
    cases = raw_test_cases(folder, description) | training_cases(folder, description)
    cases = with_references(cases, folder, description, references)
    images = {name: case.images[0] for name, case in cases.items() if case.images}
    return RawFiles(description, images, {name: case.label for name, case in cases.items()})


def _is_raw(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() and any((folder / name).is_dir() for name in ("labelsTr", "labelsTs"))
