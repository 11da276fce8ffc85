"""Datasets that are labelled by models, and those that are trained on beside them: do they fit, and share no case?"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.model_evaluation import check_inputs
from nnunet_ext.formats.splits import Fold, read_splits
from nnunet_ext.messages import some
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset, copy_label_map, raw_test_cases
from nnunet_ext.preprocessing.raw.same_images import same_images
from nnunet_ext.preprocessing.raw.splits import cross_validation, splits_files
from nnunet_ext.preprocessing.raw.unlabelled import is_unlabelled
from nnunet_ext.pseudo_labels.teachers import check_all_annotated

TABLE = "pseudo_labels.csv"  # a row for each case
PICTURES = "least_certain"  # folder


def check_open(source: RawDataset) -> bool:
    """Whether a dataset has labels beside what nobody annotated; a UserError if every voxel has one."""
    if is_unlabelled(source):
        return False
    if source.ignore_label is None and not source.annotated_labels().are_partial(source.cases):
        raise UserError(
            f"Every voxel of {source.folder.name} has a label: there is no ignore label, its dataset.json lists no "
            "case that was annotated for some labels alone, and it was not made by `nnunet_ext unlabelled`. For "
            "instances that nobody annotated, use `nnunet_ext complete`."
        )
    return True


def missing_values(source: RawDataset) -> dict[str, list[int]]:
    """The values that each case of a dataset with labels was not annotated for, which its label maps do not have.

    Raises:
        UserError: if the lists of dataset.json are wrong, name cases that are not there or lack one, or if a label map
            has a label that its case was not annotated for.
    """
    lists = source.annotated_labels()
    missing = {case: lists.missing(case) for case in source.cases}
    if unknown := source.unknown_cases():
        raise UserError(
            f"{lists.where} lists labels of cases that {source.folder.name} does not have: {some(unknown)}. Fix "
            "their names: a case that is not listed counts as annotated for the labels of `default`."
        )
    if not any(missing.values()):
        return {case: [] for case in source.cases}
    values, reader = source.foreground_values(), source.reader_writer()
    for case, names in tqdm(missing.items(), desc="Checking labels", unit="case", disable=None):
        labels, _ = source.read_labels(reader, case)
        if present := [name for name in names if np.any(labels == values[name])]:
            raise UserError(
                f"{source.cases[case].label} has {some(present)}, which the case was not annotated for by "
                f"{lists.where}. Complete the list, or remove the values. `nnunet_ext check --trainer "
                "nnUNetTrainerPartialLabels` finds all such cases."
            )
    return {case: [values[name] for name in names] for case, names in missing.items()}


def without_ignore(description: Mapping[str, Any]) -> dict[str, Any]:
    """The labels of a dataset.json but the ignore label."""
    return {name: value for name, value in description["labels"].items() if name != "ignore"}


def labels_of_all(models: list[Mapping[str, Any]]) -> dict[str, int]:
    """The labels of models, which must be equal, with an ignore label behind them; a UserError if they differ."""
    first, *others = map(without_ignore, models)
    if regions := [name for name, value in first.items() if isinstance(value, list)]:
        raise UserError(f"The models have regions ({', '.join(regions)}). Each label needs one value here.")
    if different := next((one for one in others if one != first), None):
        raise UserError(f"The models have different labels: {first} and {different}. They must be the same.")
    return {**first, "ignore": max(first.values()) + 1}


def check_addition(source: RawDataset, labelled: RawDataset, labels: Mapping[str, int]) -> None:
    """Raise a UserError if a labelled dataset cannot be added, or it or its test has a case that is to be labelled."""
    here, there = source.folder.name, labelled.folder.name
    check_inputs(source.description, labelled.description, name=there)
    theirs = without_ignore(labelled.description)
    if theirs != {name: value for name, value in labels.items() if name != "ignore"}:
        raise UserError(f"{there} has the labels {theirs}, and the models have {dict(labels)}.")
    check_distinct(source.cases, labelled.cases, here=here, there=there, why="The annotation would be lost.")
    test = raw_test_cases(labelled.folder, labelled.description)
    why = "A case of the test must not be trained on."
    check_distinct(source.cases, test, here=here, there=f"imagesTs of {there}", why=why)
    check_all_annotated(labelled, instead="Let `nnunet_ext pseudo-label` complete it first")
    reader = labelled.reader_writer()
    for name in labelled.cases:
        labelled.read_labels(reader, name)


def check_distinct(ours: Mapping[str, Case], theirs: Mapping[str, Case], *, here: str, there: str, why: str) -> None:
    """Raise a UserError if two sets of cases have one in common, by its name or by the content of its first image.

    Args:
        here: what the message calls the first set.
        there: what it calls the second one.
        why: a sentence about what would be wrong.
    """
    if same := sorted(set(ours) & set(theirs)):
        raise UserError(f"{some(same, 3)}: cases of that name are in {here} and {there}. {why} Rename one.")
    for name, twin in same_images(ours, theirs).items():
        image = ours[name].images[0]
        raise UserError(f"{image} of case {name} is the image of {twin} in {there}. {why} Leave {name} out of {here}.")


def copy_annotated(labelled: RawDataset, folder: Path) -> None:
    """Copy the label maps of the labelled cases beside the others.

    If they have an ignore label, it has the value of the new dataset's: it stands behind all labels in both.
    """
    for name, case in labelled.cases.items():
        copy_label_map(case.label, folder / "labelsTr" / f"{name}{labelled.ending}")


def folds_for(source: RawDataset, labelled: RawDataset | None, chosen: list[str]) -> list[Fold]:
    """The folds of the annotated cases, with pseudo-labelled cases for training alone where both are there."""
    origin = source if labelled is None else labelled
    files = splits_files(origin.folder)[:1]
    if labelled is None:
        folds = read_splits(files[0]) if files else []
        return [{part: [case for case in cases if case in chosen] for part, cases in fold.items()} for fold in folds]
    folds = read_splits(files[0]) if files else cross_validation({name: [name] for name in labelled.cases})
    return [{"train": [*fold["train"], *chosen], "val": fold["val"]} for fold in folds]


def has_empty_part(folds: list[Fold]) -> bool:
    """Whether a fold has no case to train on or none to validate."""
    return any(not cases for fold in folds for cases in fold.values())
