"""Folds of a dataset: few-shot draws of patients, cross-validation, those of several sources, what they have seen."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import read_dataset_json
from nnunet_ext.formats.names import case_names, composed
from nnunet_ext.formats.splits import PARTS, Fold, check_has_folds, read_splits, same_fold
from nnunet_ext.messages import some
from nnunet_ext.nnunet_folders import dataset_folder, folder_of_variable, raw_folder
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.preprocessing.raw.raw_dataset import training_cases

FOLDS = 5  # that nnU-Net draws if there are none; it stops if there are fewer cases
SEED = 12345  # of those folds
LARGEST_SEED = 2**32 - 1  # that scikit-learn takes


def find_dataset(dataset: str) -> tuple[Path, list[str]]:
    """The folder in nnUNet_preprocessed whose splits_final.json a training reads, and the dataset's cases in order.

    The cases are those of ``gt_segmentations``, which nnU-Net's preprocessing writes once for all configurations: they
    can all be loaded. Before preprocessing they are the training cases of the raw dataset, and the folder may not exist
    yet. A UserError says if the dataset is in neither place or has no case.
    """
    preprocessed = dataset_folder("nnUNet_preprocessed", dataset)
    if preprocessed is not None and (cases := preprocessed_cases(preprocessed)):
        return preprocessed, cases
    raw = raw_folder(dataset)
    cases = list(training_cases(raw, read_dataset_json(raw / "dataset.json")))
    if not cases:
        raise UserError(f"{raw} has no training case: its imagesTr is empty.")
    return preprocessed or folder_of_variable("nnUNet_preprocessed") / raw.name, cases


def preprocessed_cases(folder: Path) -> list[str]:
    """The cases of a dataset's folder in nnUNet_preprocessed, in order; none before its preprocessing."""
    if not (folder / "gt_segmentations").is_dir() or not (folder / "dataset.json").is_file():
        return []
    ending = read_dataset_json(folder / "dataset.json")["file_ending"]
    return case_names(folder / "gt_segmentations", ending)


def group_cases(cases: Sequence[str], pattern: str | None) -> dict[str, list[str]]:
    """The cases of each patient, both in order.

    The pattern is a regular expression that is searched in each name: its first group is the patient, or the whole
    match if it has no group. None makes each case a patient of its own. Names in different forms of Unicode are
    the same, also to the pattern. A UserError says if the pattern is wrong or leaves a case without a patient.
    """
    groups: dict[str, list[str]] = {}
    if pattern is None:
        for case in sorted(cases):
            groups.setdefault(composed(case), []).append(case)
        return {same[0]: same for same in groups.values()}  # named as nnU-Net would, which draws by the same names
    try:
        expression = re.compile(composed(pattern))
    except re.error as error:
        raise UserError(f"{pattern!r} is no regular expression: {error}.") from None
    for case in sorted(cases):
        match = expression.search(composed(case))
        groups.setdefault((match and match[1 if expression.groups else 0]) or "", []).append(case)
    if missed := groups.pop("", []):
        raise UserError(
            f"{pattern!r} finds no patient in the names of {len(missed)} of {len(cases)} cases: {some(missed, 3)}. "
            "Every case needs one: the first group of the pattern, or the whole match."
        )
    return dict(sorted(groups.items()))


def draw_fold(
    groups: Mapping[str, Sequence[str]], *, shots: int, seed: int, fold: int, validation: int | None = None
) -> Fold:
    """One few-shot fold: the first patients of a permutation for training, the last ones for validation.

    The permutation depends on the patients, the seed and the fold alone. So the draws of one seed are nested:
    one shot is among five shots, five are among ten, with the same validation cases for the same `validation`.

    Args:
        groups: cases by patient; a UserError says if there are too few patients.
        shots: patients for training, at least 1.
        seed: of the draws, not negative.
        fold: which of the draws, from 0.
        validation: patients for validation, at least 1; None takes all that are left.
    """
    total = len(groups)
    if validation is None and shots == total:
        raise UserError(
            f"{shots} shots are the whole dataset, and a fold of nnU-Net needs a case for validation. Take fewer, or "
            "train on all cases: nnUNetv2_train … all"
        )
    if shots + (validation or 0) > total:
        asked = f"{shots} shots" + (f" and {validation} for validation" if validation else "")
        raise UserError(f"{asked} need {shots + (validation or 0)}, but the dataset has {total}. Take fewer.")
    order = np.random.default_rng((seed, fold)).permutation(sorted(groups)).tolist()
    return _cases_of({"train": order[:shots], "val": order[shots if validation is None else -validation :]}, groups)


def cross_validation(groups: Mapping[str, Sequence[str]]) -> list[Fold]:
    """Folds of whole patients, each of whom is in the validation of one of them.

    They are drawn as nnU-Net draws its own: with one case for each patient, named by it, they are the very same. There
    are fewer if there are fewer patients, and none of a single patient.
    """
    folds = min(FOLDS, len(groups))
    return divide(groups, folds=folds) if folds > 1 else []


def divide(groups: Mapping[str, Sequence[str]], *, folds: int = FOLDS, seed: int = SEED) -> list[Fold]:
    """A cross-validation as above, of a number of folds and by a seed; a UserError if it cannot have as many folds."""
    if len(groups) < 2:
        raise UserError("A cross-validation needs at least two patients or cases. Add some, or train on fold all.")
    if folds < 2:
        raise UserError("A cross-validation needs at least 2 folds. Take more.")
    if folds > len(groups):
        unit = "patients" if any(len(cases) > 1 for cases in groups.values()) else "cases"
        raise UserError(f"{folds} folds need {folds} {unit}, but the dataset has {len(groups)}. Take fewer folds.")
    if seed > LARGEST_SEED:
        raise UserError(f"The seed of a cross-validation is at most {LARGEST_SEED}. Take a smaller one than {seed}.")
    from nnunetv2.utilities.crossval_split import generate_crossval_split  # scikit-learn takes a second to import

    drawn = generate_crossval_split(sorted(groups), seed=seed, n_splits=folds)
    return [_cases_of(fold, groups) for fold in drawn]


def joined(sources: Sequence[tuple[Sequence[Fold], Sequence[str]]]) -> list[Fold]:
    """Folds of several sources, each with its cases, as folds of all of them.

    A source that has fewer folds than the others is trained on as a whole in those that it lacks.
    """
    together = []
    for number in range(max(len(folds) for folds, _ in sources)):
        parts = [
            folds[number] if number < len(folds) else {"train": list(cases), "val": []} for folds, cases in sources
        ]
        together.append({part: sorted(case for fold in parts for case in fold[part]) for part in PARTS})
    return together


def _cases_of(patients: Mapping[str, Sequence[str]], groups: Mapping[str, Sequence[str]]) -> Fold:
    """The fold of cases that belongs to a fold of patients."""
    return {part: sorted(case for patient in patients[part] for case in groups[patient]) for part in PARTS}


def appended(existing: Sequence[Fold], drawn: Sequence[Fold]) -> tuple[list[Fold], list[int]]:
    """Put folds behind existing ones unless they are there; all folds, and the number of each drawn one among them."""
    folds, numbers = list(existing), []
    for fold in drawn:
        numbers.append(next((at for at, present in enumerate(folds) if same_fold(fold, present)), len(folds)))
        if numbers[-1] == len(folds):
            folds.append(fold)
    return folds, numbers


def splits_files(raw: Path) -> list[Path]:
    """The files of a dataset's folds that there are: that which a training reads, then that of the raw dataset."""
    folders = [raw]
    if os.environ.get("nnUNet_preprocessed") and (folder := dataset_folder("nnUNet_preprocessed", raw.name)):
        folders.insert(0, folder)
    return [folder / SPLITS for folder in folders if (folder / SPLITS).is_file()]


def folds_that_have_not_seen(
    cases: Iterable[str], splits: Sequence[Fold], folds: Sequence[int | str], *, file: Path
) -> dict[str, list[int]]:
    """For each case, which of the model's folds did not train on it, by the splits that were read from `file`.

    Raises:
        UserError: if a fold is not among the splits, or all folds have trained on a case.
    """
    unknown = "What it has trained on is not known: leave that fold out, or leave --out-of-fold out."
    check_has_folds(splits, folds, file=file, advice=unknown)
    trained = {int(fold): set(splits[int(fold)]["train"]) for fold in folds}
    chosen = {case: [fold for fold in trained if case not in trained[fold]] for case in cases}
    seen = [case for case, unseen in chosen.items() if not unseen]
    if seen:
        raise UserError(
            f"Every one of the folds {' '.join(map(str, folds))} has trained on {len(seen)} of {len(chosen)} cases, "
            f"e.g. on {seen[0]}. Give the folds that validate them too (after -f), or leave --out-of-fold out."
        )
    return chosen


def check_known(folds: Sequence[Fold], cases: Sequence[str], *, file: Path) -> None:
    """Raise a UserError if the folds of a file name cases that are not in the dataset."""
    unknown = sorted({case for fold in folds for part in PARTS for case in fold[part]} - set(cases))
    if unknown:
        raise UserError(
            f"{file} names {len(unknown)} cases that are not in the dataset: {some(unknown, 3)}. Fix it, or replace it "
            "by leaving --append out and adding --force."
        )


def refused_by_planning(dataset: str, folds: Sequence[Fold]) -> Path | None:
    """The raw dataset's own splits_final.json, if nnU-Net's planning would stop because these folds differ from it.

    Planning copies that file to nnUNet_preprocessed. If there is one already, it may only have further folds behind.
    """
    if not os.environ.get("nnUNet_raw"):
        return None
    source = folder_of_variable("nnUNet_raw") / dataset / SPLITS
    if not source.is_file():
        return None
    theirs = read_splits(source)
    fits = len(theirs) <= len(folds) and all(same_fold(one, other) for one, other in zip(theirs, folds))
    return None if fits else source
