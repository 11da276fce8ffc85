"""Making new nnU-Net raw datasets of images that are there already."""

import glob
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart, write_json
from nnunet_ext.folders import check_output_folder, folder_written_whole
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.splits import read_splits
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.nnunet_folders import DATA, NAME, folder_of_variable, matching_datasets
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset, copy_label_map
from nnunet_ext.preprocessing.raw.splits import splits_files

PROGRESS = ".progress.json"
WEAK, DENSE, INSTANCES = "labelsTr", "labelsTr_dense", "instancesTr"
"""Folders of a dataset whose annotation was simulated: the labels, and the labels and instances they were made from."""


def check_new_name(name: str, *, force: bool) -> Path:
    """Where a new raw dataset ``DatasetXXX_Name`` goes; a UserError if the name or id is wrong or taken."""
    match = NAME.fullmatch(name)
    if match is None or Path(name).name != name:
        raise UserError(f"{name!r} cannot name a dataset of nnU-Net. Expected: Dataset, three digits, _ and a name.")
    target = folder_of_variable("nnUNet_raw") / name
    for folder in (folder_of_variable(variable) for variable in DATA if os.environ.get(variable)):
        if others := [path for path in matching_datasets(folder, match[1]) if path.name != name]:
            raise UserError(f"The id {match[1]} is taken by {others[0]}. Choose another.")
    check_output_folder(target, force=force)
    return target


@contextmanager
def new_dataset(
    name: str, *, force: bool, made_from: Iterable[Path] = (), request: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """An empty folder that becomes the raw dataset only if the block ends well; see `folder_written_whole`.

    A UserError says if it would lie in, over or above a file or folder that it is made from.
    """
    target = check_new_name(name, force=force)
    check_apart(target, made_from)
    with only_run(target.with_name(name[: len("Dataset000")])):  # no other dataset gets its id meanwhile
        check_new_name(name, force=force)
        with folder_written_whole(target, force=force, request=request) as folder:
            yield folder


class CaseProgress:
    """Which cases of an unfinished dataset are done, kept in a file so that an interrupted run goes on."""

    def __init__(self, folder: Path, record: str = PROGRESS) -> None:
        self._file = folder / record
        self._done = read_typed(dict[str, dict[str, Any]], self._file) if self._file.is_file() else {}

    def result(self, case: str, state: Any) -> Any:
        """What was kept of a case; None if it is not done, or was done with another `state` of its files."""
        done = self._done.get(case, {})
        return done.get("result") if done.get("state") == json.loads(json.dumps(state)) else None

    def keep(self, case: str, state: Any, result: Any) -> None:
        """Note that a case is done."""
        self._done[case] = {"state": state, "result": result}
        write_json(self._file, self._done)

    def close(self) -> None:
        """Remove the file, once all is done."""
        self._file.unlink(missing_ok=True)


def write_description(
    folder: Path, name: str, cases: Mapping[str, Case], content: Mapping[str, Any], *, about: Mapping[str, Any]
) -> None:
    """Write the dataset.json of a new dataset whose images stay where they are and whose labels are in labelsTr.

    Images below nnUNet_raw are named relative to the dataset, so that nnUNet_raw can be moved as a whole; others by
    their absolute paths.

    `folder` is that of `new_dataset`; the labels of the cases are not used. `content` is a dataset.json with channel
    names, labels and file ending, whose list of files is replaced; `about` tells where the dataset comes from, and is
    kept under ``nnunet_ext``.
    """
    home = folder_of_variable("nnUNet_raw").resolve() / name
    ending = content["file_ending"]
    listed = {
        case: {"images": [_reference(image, home) for image in files.images], "label": f"labelsTr/{case}{ending}"}
        for case, files in cases.items()
    }
    kept = {key: value for key, value in content.items() if key not in ("dataset", "numTraining", KEY)}
    made = {"name": name, "numTraining": len(cases), KEY: dict(about), "dataset": listed}
    write_json(folder / "dataset.json", {**kept, **made})


def _reference(image: Path, home: Path) -> str:
    image = image.parent.resolve() / image.name  # a link to a file stays: its name and the spacing beside it count
    return Path(os.path.relpath(image, home) if image.is_relative_to(home.parent) else image).as_posix()


def copy_splits(source: RawDataset, folder: Path) -> None:
    """Keep the folds that trainings read, or those of the raw dataset: patients must not leak. Planning takes them."""
    for file in splits_files(source.folder)[:1]:
        write_json(folder / SPLITS, read_splits(file))


def copy_dense_labels(source: RawDataset, folder: Path) -> None:
    """Keep what a simulated annotation was made from, to compare new labels with, if the source has it."""
    for name in (DENSE, INSTANCES):
        if (source.folder / name).is_dir():
            (folder / name).mkdir(exist_ok=True)
            for file in sorted((source.folder / name).glob(f"*{glob.escape(source.ending)}")):
                copy_label_map(file, folder / name / file.name)
