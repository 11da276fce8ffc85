"""What must hold before a self-training: all fits, and no held-out case is labelled or trained on."""

from collections.abc import Mapping

import numpy as np

from nnunet_ext.checkpoints.trained_model import TrainedModel
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.model_evaluation import check_inputs
from nnunet_ext.evaluation.scored_labels import match_labels
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.splits import check_has_folds, read_splits
from nnunet_ext.messages import some
from nnunet_ext.nnunet_folders import DATA, folder_of_variable, matching_datasets, preprocessed_folder
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset, read_label_map, read_raw_dataset, reader_for
from nnunet_ext.pseudo_labels.datasets import (
    check_addition,
    check_distinct,
    check_open,
    labels_of_all,
    missing_values,
    without_ignore,
)
from nnunet_ext.pseudo_labels.teachers import check_fit, check_labels

TRAINED = "Scores on cases that were trained on say nothing."


def check_data(
    unlabelled: RawDataset, labelled: RawDataset, held_out: CaseSet, fold: int | str, teacher: TrainedModel | None
) -> list[str]:
    """Raise a UserError unless datasets and teacher fit, and no held-out case is labelled or trained on.

    Returns:
        What could not be checked, as sentences.
    """
    here, there, held = unlabelled.folder.name, labelled.folder.name, held_out.name
    if check_open(unlabelled):
        if without_ignore(unlabelled.description) != without_ignore(labelled.description):
            raise UserError(
                f"{here} has the labels {without_ignore(unlabelled.description)}, and {there} has "
                f"{without_ignore(labelled.description)}. They must be the same."
            )
        missing_values(unlabelled)
    check_addition(unlabelled, labelled, labels_of_all([labelled.description]))
    check_inputs(labelled.description, held_out.description, name=held)
    unknown = _check_labels(labelled, held_out)
    _check_fully_labelled(held_out)
    trained = {name: labelled.cases[name] for name in training_cases_of(labelled, fold)}
    for cases, name in ((unlabelled.cases, here), (trained, f"the training cases of {there}")):
        check_distinct(cases, held_out.cases, here=name, there=held, why=TRAINED)
    if teacher is None:
        return unknown
    check_fit(unlabelled, teacher, labels_count=False)
    check_labels(labelled, teacher)
    seen = _cases_of_teacher(teacher)
    if seen is None:
        return [
            *unknown,
            f"Whether the teacher has trained on a held-out case is not known: {teacher.trained_on} or its folds are "
            "not here. If it has, round 0 is scored too well, and no student improves on it.",
        ]
    name = f"the training cases of {teacher.trained_on}"
    check_distinct(seen, held_out.cases, here=name, there=held, why=f"The teacher has trained on them. {TRAINED}")
    return unknown


def _check_labels(labelled: RawDataset, held_out: CaseSet) -> list[str]:
    """Raise a UserError if held-out cases have other values or no label in common; what they lack, as sentences."""
    matched = match_labels(labelled.description, held_out.description, name=held_out.name)
    if not matched.only_model:
        return []
    return [f"The held-out cases have no label {some(matched.only_model)}, so that the other labels alone decide."]


def training_cases_of(labelled: RawDataset, fold: int | str) -> list[str]:
    """The cases that a fold of a dataset trains on; a UserError if there is no such fold."""
    if fold == "all":
        return list(labelled.cases)
    file = preprocessed_folder(labelled.folder.name) / SPLITS
    folds = read_splits(file)
    check_has_folds(folds, [int(fold)], file=file, advice="Give a fold that is there, or all.")
    if unknown := [name for name in folds[int(fold)]["train"] if name not in labelled.cases]:
        raise UserError(f"Fold {fold} of {file} names cases that {labelled.folder.name} does not have: {some(unknown)}")
    return folds[int(fold)]["train"]


def check_free(numbers: list[int]) -> None:
    """Raise a UserError if a dataset in one of nnU-Net's folders has one of some ids."""
    for number in numbers:
        if number > 999:
            raise UserError(f"The rounds need the ids up to {number}, but nnU-Net's end at 999. Take a lower --id.")
        for variable in DATA:
            if taken := matching_datasets(folder_of_variable(variable), str(number)):
                raise UserError(f"The id {number} is taken by {taken[0]}. Choose another --id, or remove it.")


def _check_fully_labelled(held_out: CaseSet) -> None:
    """Raise a UserError if a held-out case has voxels that nobody annotated."""
    ignore = held_out.description["labels"].get("ignore")
    if ignore is None:
        return
    reader = reader_for(held_out.description, next(iter(held_out.cases.values())).label)
    for name, case in held_out.cases.items():
        if np.any(read_label_map(reader, case.label)[0] == ignore):
            raise UserError(
                f"{case.label} of the held-out case {name} has voxels with the ignore label. Held-out cases need a "
                "label for every voxel. Name others with --held-out."
            )


def _cases_of_teacher(teacher: TrainedModel) -> Mapping[str, Case] | None:
    """The cases that a model has trained on, by its plans and their folds; None if these are not to be found."""
    try:
        dataset = read_raw_dataset(teacher.trained_on)
        names = {name for fold in teacher.folds for name in training_cases_of(dataset, fold)}
    except UserError:
        return None
    channels = len(channel_names(dataset.description))
    return {name: dataset.cases[name] for name in names if dataset.cases[name].has_channels(channels)}
