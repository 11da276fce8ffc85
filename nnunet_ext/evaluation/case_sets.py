"""Which cases of a raw dataset to score a model on, and where their files are."""

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.formats.annotated_labels import TEST, TRAINING, annotated_labels
from nnunet_ext.formats.dataset_json import channel_names, read_dataset_json
from nnunet_ext.formats.names import problem_with_name
from nnunet_ext.formats.splits import check_has_folds, read_splits
from nnunet_ext.messages import quoted, some
from nnunet_ext.nnunet_folders import preprocessed_folder, raw_folder
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.preprocessing.raw.raw_dataset import Case, raw_test_cases, training_cases

SELECTIONS = ("test", "val", "all")
SHOWN = 3  # examples in a message


@dataclass(frozen=True)
class CaseSet:
    """Some cases of a dataset."""

    dataset: str  # ``DatasetXXX_Name``
    selection: str  # ``test``, ``val`` or ``all``; ``predicted`` for what is in a folder of predictions
    description: Mapping[str, Any]  # the dataset's dataset.json
    cases: Mapping[str, Case]
    references: str | None = None  # name of the folder with the references where it is not nnU-Net's own
    instances: Path | None = None  # folder with maps of the references' instances

    @property
    def name(self) -> str:
        """What its predictions are called."""
        return f"{self.dataset}_{self.selection}"

    @property
    def title(self) -> str:
        """What tells its scores from those against other references."""
        return self.name if self.references is None else f"{self.name} ({self.references})"

    def annotated(self, labels: Collection[str]) -> dict[str, list[str]]:
        """The cases that were annotated for each of some labels: all, unless dataset.json lists others."""
        lists = annotated_labels(self.description, where=f"dataset.json of {self.dataset}")
        lists = lists.against(self.references or (TEST if self.selection == "test" else TRAINING[0]))
        return {label: [case for case in self.cases if lists.is_annotated(case, label)] for label in labels}

    def instance_map(self, case: str) -> Path | None:
        """The file that tells the instances of a case's reference apart."""
        return None if self.instances is None else self.instances / f"{case}{self.description['file_ending']}"


def select_cases(
    dataset: str,
    selection: str | None,
    *,
    folds: Sequence[int | str],
    references: str | None = None,
    instances: str | None = None,
    partial: bool = False,
) -> CaseSet:
    """The cases to score.

    Args:
        dataset: id or name of a dataset in nnUNet_raw.
        selection: ``test`` for imagesTs with labelsTs; ``val`` for the validation cases of the model's fold by the
            dataset's own splits_final.json in nnUNet_preprocessed; ``all`` for imagesTr with labelsTr. None takes
            ``test`` if each image in imagesTs has a label, with `partial` if one has, else ``val``.
        folds: those that the model consists of; ``val`` needs exactly one, as the others have trained on its cases.
        references: name of a folder of the dataset to take the references from; without, labelsTr or labelsTs.
        instances: name of a folder of the dataset with maps of the references' instances.
        partial: whether cases may lack a reference; `labelled_cases` leaves them out.

    Raises:
        UserError: if the dataset or files of it are missing, the references are in no folder directly in it, or the
            folds have no validation cases.
    """
    folder = raw_folder(dataset)
    references, instances = (None if name is None else _part(folder, name) for name in (references, instances))
    if references is not None and (problem := problem_with_name(references)):
        raise UserError(
            f"{quoted(references, longest=200)} cannot name the references of scores: {problem}. The name of a folder "
            f"in {folder} is expected. Move the label maps to one, such as {folder / 'labelsTr_dense'}, or make a link "
            "of that name."
        )
    description = read_dataset_json(folder / "dataset.json")
    if selection is None:
        test = with_references(raw_test_cases(folder, description), folder, description, references)
        labelled = len(test) - len(_without_label(test))
        selection = "test" if labelled and (partial or labelled == len(test)) else "val"
    if selection == "test":
        cases = raw_test_cases(folder, description)
    else:
        cases = training_cases(folder, description)
        if selection == "val":
            cases = _validation_cases(cases, folder.name, folds)
    cases = with_references(cases, folder, description, references)
    if not cases:
        raise UserError(f"{folder} has no cases in {'imagesTs' if selection == 'test' else 'imagesTr'}.")
    if (missing := _without_label(cases)) and not partial:
        others = " or ".join(f"{folder.name}:{name}" for name in SELECTIONS if name != selection)
        leave_out = "Add --partial to leave them out, or choose" if len(missing) < len(cases) else "Choose"
        raise UserError(
            f"{len(missing)} of {len(cases)} cases of {folder.name}:{selection} have no label to score against, e.g. "
            f"{missing[0]} does not exist. {leave_out} other cases: {others}."
        )
    channels = len(channel_names(description))
    if wrong := [name for name, case in cases.items() if not case.has_channels(channels)]:
        raise UserError(
            f"{folder.name} has {channels} channels by its dataset.json, but case {wrong[0]} has "
            f"{len(cases[wrong[0]].images)} image files."
        )
    chosen = CaseSet(
        folder.name, selection, description, cases, references, None if instances is None else folder / instances
    )
    if not partial:
        check_instance_maps(chosen)
    return chosen


def labelled_cases(chosen: Sequence[CaseSet]) -> tuple[list[CaseSet], list[str]]:
    """The cases that have every reference that they are to be scored against, so that scores are of the same cases.

    Returns:
        The sets without the other cases, and remarks on what was left out.

    Raises:
        UserError: if no case of a set is left, or a case that is left has no map of instances.
    """
    without: dict[str, dict[str, Path]] = {}
    for cases in chosen:
        lacking = {name: case.label for name, case in cases.cases.items() if not case.label.is_file()}
        without[cases.name] = lacking | without.get(cases.name, {})
    kept = [
        replace(cases, cases={name: case for name, case in cases.cases.items() if name not in without[cases.name]})
        for cases in chosen
    ]
    remarks = {}
    for cases, rest in zip(chosen, kept, strict=True):
        left_out, title = without[cases.name], f"{cases.dataset}:{cases.selection}"
        folders = [one.references for one in chosen if one.name == cases.name and one.references is not None]
        where = f" in {' and '.join(folders)}" if folders else ""
        if not rest.cases:
            raise UserError(
                f"No case of {title} has a label to score against{where}, e.g. {next(iter(left_out.values()))} does "
                "not exist. Add the labels, or choose other cases."
            )
        check_instance_maps(rest)
        if left_out:
            count = f"{len(left_out)} of {len(cases.cases)} cases without label{where}"
            remarks[title] = f"Left out of {title}: {count}: {some(sorted(left_out), SHOWN)}."
    return kept, list(remarks.values())


def _part(folder: Path, name: str) -> str:
    """The name of a folder of a dataset, which may be given as a path; a UserError if it is not there."""
    path = Path(os.path.abspath(folder / name))  # which follows no link: the folder itself may be one
    if not path.is_dir():
        there = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_dir()))
        raise UserError(f"{folder} has no folder {name}. It has: {there}.")
    return path.name if path.parent.resolve() == folder.resolve() else name


def check_instance_maps(cases: CaseSet) -> None:
    """Raises UserError if the cases have maps of instances, but one is missing."""
    total, maps = len(cases.cases), map(cases.instance_map, cases.cases)
    if without := [file for file in maps if file is not None and not file.is_file()]:
        raise UserError(f"{len(without)} of {total} cases have no map of instances: {without[0]} does not exist.")


def with_references(
    cases: Mapping[str, Case], folder: Path, description: Mapping[str, Any], references: str | None
) -> dict[str, Case]:
    """The cases with references from another folder of the dataset, if one is named."""
    if references is None:
        return dict(cases)
    ending = description["file_ending"]
    return {name: Case(case.images, folder / references / f"{name}{ending}") for name, case in cases.items()}


def _validation_cases(cases: Mapping[str, Case], dataset: str, folds: Sequence[int | str]) -> dict[str, Case]:
    """Those of `cases` that are for validation in the one fold."""
    if len(folds) > 1:
        raise UserError(
            f"{dataset}:val cannot score an ensemble of the folds {' '.join(map(str, folds))}: each fold has trained "
            "on the validation cases of the others. Give one fold, or choose test cases."
        )
    if folds[0] == "all":
        raise UserError(f"{dataset}:val cannot score fold all: it has trained on every case. Choose test cases.")
    file = preprocessed_folder(dataset) / SPLITS
    splits, fold = read_splits(file), int(folds[0])
    check_has_folds(splits, [fold], file=file, advice="Give a fold that is there, or choose test cases.")
    if not splits[fold]["val"]:
        raise UserError(f"Fold {fold} of {file} has no validation case.")
    unknown = sorted(set(splits[fold]["val"]) - set(cases))
    if unknown:
        raise UserError(
            f"Fold {fold} of {file} names {len(unknown)} validation cases that the raw dataset does not have, e.g. "
            f"{', '.join(unknown[:SHOWN])}."
        )
    return {name: cases[name] for name in sorted(splits[fold]["val"])}


def _without_label(cases: Mapping[str, Case]) -> list[Path]:
    return [case.label for case in cases.values() if not case.label.is_file()]
