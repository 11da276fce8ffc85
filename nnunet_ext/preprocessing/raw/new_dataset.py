"""Making new nnU-Net raw datasets of images that are there already."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.files import MARKER, read_json, write_json
from nnunet_ext.plans.plans_file import dataset_folder, folder_of_variable, matching_datasets
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset

NAME = re.compile(r"Dataset(\d{3})_.+")
REQUEST = ".request.json"


def check_new_name(name: str, *, force: bool) -> Path:
    """Where a new raw dataset goes.

    Args:
        name: ``DatasetXXX_Name``.
        force: one that this package made may be replaced.

    Raises:
        UserError: if the name is not of that form, or the name or its id is taken.
    """
    match = NAME.fullmatch(name)
    if match is None or Path(name).name != name:
        raise UserError(
            f"{name!r} is no name for a dataset of nnU-Net: expected is Dataset and three digits, _, a name."
        )
    root = folder_of_variable("nnUNet_raw")
    target = root / name
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        if not os.environ.get(variable):
            continue
        others = [path for path in matching_datasets(folder_of_variable(variable), match[1]) if path.name != name]
        if others:
            raise UserError(f"The id {match[1]} is taken by {others[0]}. Choose another.")
    if target.exists():
        if not (target / MARKER).is_file():
            raise UserError(f"{target} exists, and this package did not make it. Choose another name.")
        if not force:
            raise UserError(f"{target} exists. Choose another name, or add --force to replace it.")
    return target


@contextmanager
def new_dataset(name: str, *, force: bool, request: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield an empty folder that becomes the raw dataset only if the block ends without an exception.

    With a `request`, what the block had written when it was interrupted is there again the next time that the same is
    asked, so that long work goes on where it was.

    Args:
        name: ``DatasetXXX_Name``.
        force: replace one of the name that this package made, and unfinished work of another request.
        request: what decides the content, for JSON. None begins anew every time.

    Raises:
        UserError: as of `check_new_name`; if there is unfinished work of another request and `force` is off; if the
            folder cannot be written.
    """
    target = check_new_name(name, force=force)
    unfinished = target.with_name(f".{name}.unfinished")
    wanted = json.loads(json.dumps(request))
    if not _goes_on(unfinished, wanted, name=name, force=force):
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        (unfinished / MARKER).touch()
        if request is not None:
            write_json(unfinished / REQUEST, wanted)
        yield unfinished
        (unfinished / REQUEST).unlink(missing_ok=True)
        if target.exists():
            shutil.rmtree(target)
        unfinished.rename(target)
    except OSError as error:
        raise UserError(f"{target} cannot be written ({error.strerror}).") from None
    finally:
        if request is None or not _has_content(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)


def _goes_on(unfinished: Path, wanted: Mapping[str, Any] | None, *, name: str, force: bool) -> bool:
    """Whether unfinished work is of the same request.

    Raises:
        UserError: if it is of another one and `force` is off.
    """
    if wanted is None or not (unfinished / REQUEST).is_file() or not _has_content(unfinished):
        return False
    before = read_json(unfinished / REQUEST)
    if before == wanted:
        return True
    if force:
        return False
    differing = ", ".join(key for key in {**wanted, **before} if before.get(key) != wanted.get(key))
    raise UserError(
        f"{name} was begun and interrupted with other arguments; they differ in: {differing}. Give the same to go on, "
        "choose another name, or add --force to begin anew."
    )


def _has_content(unfinished: Path) -> bool:
    return any(path.is_file() and path.name not in (MARKER, REQUEST) for path in unfinished.rglob("*"))


def write_description(
    folder: Path, name: str, cases: Mapping[str, Case], content: Mapping[str, Any], *, about: Mapping[str, Any]
) -> None:
    """Write the dataset.json of a new dataset whose images stay where they are and whose labels are in labelsTr.

    Images below nnUNet_raw are named relative to the dataset, so that nnUNet_raw can be moved as a whole; others by
    their absolute paths.

    Args:
        folder: that `new_dataset` gave.
        name: of the new dataset.
        cases: those that it has; their labels are not used.
        content: a dataset.json with channel names, labels and file ending; its list of files is replaced.
        about: where the dataset comes from, kept under ``nnunet_ext``.
    """
    home = folder_of_variable("nnUNet_raw").resolve() / name
    ending = content["file_ending"]
    listed = {
        case: {
            "images": [_reference(image, home) for image in cases[case].images],
            "label": f"labelsTr/{case}{ending}",
        }
        for case in cases
    }
    description = {key: value for key, value in content.items() if key not in ("dataset", "numTraining", "nnunet_ext")}
    write_json(
        folder / "dataset.json",
        {**description, "name": name, "numTraining": len(cases), "nnunet_ext": dict(about), "dataset": listed},
    )


def _reference(image: Path, home: Path) -> str:
    image = image.resolve()
    if image.is_relative_to(home.parent):
        return Path(os.path.relpath(image, home)).as_posix()
    return image.as_posix()


def copy_splits(source: RawDataset, folder: Path) -> None:
    """Keep the folds that a raw dataset comes with, and those of its preprocessing: patients must not leak.

    nnU-Net's planning takes a splits_final.json in the raw dataset over.
    """
    beside = [source.folder]
    if os.environ.get("nnUNet_preprocessed"):
        preprocessed = dataset_folder("nnUNet_preprocessed", source.folder.name)
        beside += [preprocessed] if preprocessed else []
    for place in beside:
        if (place / "splits_final.json").is_file():
            write_json(folder / "splits_final.json", read_json(place / "splits_final.json"))
            return
