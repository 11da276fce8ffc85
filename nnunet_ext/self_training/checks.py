"""What must hold before a self-training: all fits, and no held-out case or patient is labelled or trained on."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from nnunet_ext.checkpoints.trained_model import TrainedModel
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.model_evaluation import check_inputs
from nnunet_ext.evaluation.patients import read_patients
from nnunet_ext.evaluation.scored_labels import match_labels
from nnunet_ext.evaluation.trained_cases import cases_of_model, training_cases_of
from nnunet_ext.messages import some
from nnunet_ext.nnunet_folders import DATA, folder_of_variable, matching_datasets, raw_folder
from nnunet_ext.preprocessing.raw.patients import PAIRS, patients_of_cases
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset, read_label_map, reader_for
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
    unlabelled: RawDataset,
    labelled: RawDataset,
    held_out: CaseSet,
    fold: int | str,
    teacher: TrainedModel | None,
    *,
    patients: Path | None = None,
) -> list[str]:
    """Raise a UserError unless datasets and teacher fit, and no held-out case or patient is labelled or trained on.

    Args:
        unlabelled: what teachers label.
        labelled: what is trained on beside it.
        held_out: what the rounds are scored on.
        fold: of the labelled dataset.
        teacher: of round 0, if one is given.
        patients: file that names the patients of cases. Those of other cases are as `nnunet_ext pair` recorded them.

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
    held_patients = _patients(held_out.cases, held_out.dataset, patients)
    for cases, dataset, name in ((unlabelled.cases, here, here), (trained, there, f"the training cases of {there}")):
        check_distinct(cases, held_out.cases, here=name, there=held, why=TRAINED)
        _check_patients(_patients(cases, dataset, patients), held_patients, here=name, there=held)
    if teacher is None:
        return unknown
    check_fit(unlabelled, teacher, labels_count=False)
    check_labels(labelled, teacher)
    seen = cases_of_model(teacher)
    if seen is None:
        return [
            *unknown,
            f"Whether the teacher has trained on a held-out case is not known: {teacher.trained_on} or its folds are "
            "not here. If it has, round 0 is scored too well, and no student improves on it.",
        ]
    name = f"the training cases of {teacher.trained_on}"
    check_distinct(seen, held_out.cases, here=name, there=held, why=f"The teacher has trained on them. {TRAINED}")
    _check_patients(_patients(seen, teacher.trained_on, patients), held_patients, here=name, there=held)
    return unknown


def _patients(cases: Collection[str], dataset: str, file: Path | None) -> dict[str, str]:
    """The patients of a dataset's cases, as far as the file or else the dataset's record of pairs names them."""
    recorded = patients_of_cases(raw_folder(dataset) / PAIRS)
    given = {} if file is None else read_patients(file, cases, are_all_named=False)
    return {case: recorded[case] for case in cases if case in recorded} | given


def _check_patients(ours: Mapping[str, str], theirs: Mapping[str, str], *, here: str, there: str) -> None:
    """Raise a UserError if cases, whose patients are given, are of patients who are held out."""
    held = {patient: case for case, patient in theirs.items()}
    if same := sorted(case for case, patient in ours.items() if patient in held):
        patient = ours[same[0]]
        raise UserError(
            f"{some(same, 3)} in {here}: their patients are held out, such as {patient} with {held[patient]} in "
            f"{there}. Scores on patients who were trained on say nothing. Leave these cases out, hold out others with "
            "--held-out, or make folds of whole patients (nnunet_ext split --cross-validation --group REGEX). If they "
            "are different patients of one name, give --patients with a name for each."
        )


def _check_labels(labelled: RawDataset, held_out: CaseSet) -> list[str]:
    """Raise a UserError if held-out cases have other values or no label in common; what they lack, as sentences."""
    matched = match_labels(labelled.description, held_out.description, name=held_out.name)
    if not matched.only_model:
        return []
    return [f"The held-out cases have no label {some(matched.only_model)}, so that the other labels alone decide."]


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
