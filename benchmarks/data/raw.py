"""What the preparations share: the user's datasets, linked into the experiment's nnUNet_raw, and copies of parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.data.folds import grouped
from benchmarks.engine.experiment import Draw
from nnunet_ext.files import link_or_copy, read_json
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.preprocessing.raw.raw_dataset import Case, copy_label_map

ENDING = ".nii.gz"


def original(name: str) -> Path:
    """The folder of a dataset in nnUNet_raw."""
    return Path(os.environ["nnUNet_raw"]) / name


def linked(folder: Path, draw: object, *, name: str) -> None:
    """Make a dataset that is the original, but for the folds."""
    folder.mkdir()
    for part in original(name).iterdir():
        if part.name != SPLITS:
            link_or_copy(part, folder / part.name)


def groups_of_splits(name: str, patient_of: Callable[[str], str]) -> list[dict[str, list[str]]]:
    """The patients and cases of each validation set of the original's own splits_final.json."""
    splits = read_json(original(name) / SPLITS)
    return grouped([fold["val"] for fold in splits], patient_of)


def copy_labels(cases: Mapping[str, Case], folder: Path) -> None:
    """Copy the label maps of some cases into a folder of a new dataset."""
    folder.mkdir()
    for case in cases.values():
        copy_label_map(case.label, folder / case.label.name)


def unlabelled(folder: Path, draw: object, *, name: str) -> Sequence[str]:
    """The command that makes a dataset of an original's images, with placeholders for labels."""
    return ["nnunet_ext", "unlabelled", str(original(name).resolve() / "imagesTr"), "-o", folder.name]


def pseudo_labelled(folder: Path, draw: Draw, *, source: int, largest_component: str = "") -> Sequence[str]:
    """The command that labels by the teacher's model what nobody annotated, where it is sure."""
    command = ["nnunet_ext", "pseudo-label", str(draw.model), "-d", str(source), "-o", folder.name]
    command += ["--largest-component", largest_component] if largest_component else []
    return [*command, "-f", str(draw.fold), "--threshold", "0.8", "--disable-tta", "--device", draw.device]
