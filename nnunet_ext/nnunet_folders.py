"""nnU-Net's folders, which environment variables name, and the datasets in them."""

import os
import re
from pathlib import Path

from nnunet_ext.errors import UserError

NAME = re.compile(r"Dataset(\d{3})_.+")
"""What nnU-Net calls a dataset."""

DATA = {"nnUNet_raw": "raw data", "nnUNet_preprocessed": "preprocessed data", "nnUNet_results": "trained models"}
"""What is in the folders that nnU-Net's variables name."""


def folder_of_variable(variable: str) -> Path:
    """The folder that one of nnU-Net's variables names; a UserError if the variable is not set."""
    root = os.environ.get(variable)
    if not root:
        fix = f"Set it to nnU-Net's folder of {DATA[variable]}, e.g. export {variable}=$HOME/{variable}"
        raise UserError(f"The environment variable {variable} is not set. {fix}")
    return Path(root)


def raw_folder(dataset: str) -> Path:
    """The dataset's folder in nnUNet_raw, see `preprocessed_folder`."""
    root = folder_of_variable("nnUNet_raw")
    if found := dataset_folder("nnUNet_raw", dataset):
        return found
    there = ", ".join(sorted(path.name for path in root.glob("Dataset*"))) or "no dataset"
    raise UserError(f"Dataset {dataset} is not in {root}. There is: {there}.")


def preprocessed_folder(dataset: str) -> Path:
    """The dataset's folder in nnUNet_preprocessed, by id ("4", "004") or name; a UserError unless there is just one."""
    root = folder_of_variable("nnUNet_preprocessed")
    if found := dataset_folder("nnUNet_preprocessed", dataset):
        return found
    fix = f"nnUNetv2_plan_and_preprocess -d {dataset_number(dataset)}"
    raise UserError(f"Dataset {dataset} is not in {root}. Plan it first: {fix}")


def dataset_folder(variable: str, dataset: str) -> Path | None:
    """The dataset's folder below one of nnU-Net's folders, None if it is not there; a UserError if several fit."""
    root = folder_of_variable(variable)
    if Path(dataset).name != dataset or "\\" in dataset:
        raise UserError(f"{dataset!r} is a path. Give the id or the name of a dataset in {root}.")
    found = matching_datasets(root, dataset)
    if len(found) > 1:
        raise UserError(f"Several datasets in {root} fit {dataset!r}: {', '.join(path.name for path in found)}.")
    return found[0] if found else None


def matching_datasets(root: Path, dataset: str) -> list[Path]:
    """Folders in `root` with the name `dataset`, or with the id if `dataset` is a number."""
    if is_number(dataset):
        return sorted(path for path in root.glob(f"Dataset{int(dataset):03d}_*") if path.is_dir())
    return [root / dataset] if (root / dataset).is_dir() else []


def is_number(text: str) -> bool:
    """Whether a text is a whole number in digits that `int` takes and people type, which ``²`` and ``٣`` are not."""
    return text.isascii() and text.isdecimal()


def dataset_number(name: str) -> str:
    """``4`` for ``Dataset004_Hippocampus``, as commands take it; the name itself if it is none of nnU-Net's."""
    found = NAME.fullmatch(name)
    return str(int(found[1])) if found else name
