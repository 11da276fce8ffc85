"""What experiments on cine MRI of the heart (ACDC) share: datasets, methods, runs, and folds by patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnunet_ext.errors import UserError

STAGES = ("primary", "full")
CONFIGURATIONS = ("3d_fullres", "2d")
ORIGIN = "Dataset027_ACDCScribble"
LABEL_NAMES = {"RV": 1, "MYO": 2, "LV": 3}
TEST_FOLDS = 3
PILOT_TRAINING_FOLD, PILOT_TEST_FOLD = 4, 3
"""Of the original's folds: no patient of these two is ever tested."""

PILOT_FOLD, PILOT_SEED = 0, 0

Fold = dict[str, list[str]]
"""One entry of splits_final.json: the cases of ``train`` and of ``val``."""


@dataclass(frozen=True)
class Inputs:
    """A derived dataset.

    Attributes:
        number: nnU-Net's id.
        suffix: of its name.
        description: what is learned from, for the results.
    """

    number: int
    suffix: str
    description: str

    @property
    def name(self) -> str:
        """nnU-Net's name."""
        return f"Dataset{self.number}_ACDC{self.suffix}"


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        name: in the results.
        family: methods of one family share the learning rate.
        trainer: class name.
        inputs: the dataset that it learns from.
        description: for the results.
        settings: beside those that all runs share.
        is_primary: whether the primary comparison has it.
    """

    name: str
    family: str
    trainer: str
    inputs: Inputs
    description: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    is_primary: bool = True

    @property
    def slug(self) -> str:
        """The name as part of a configuration's name."""
        return self.name.lower().replace(" ", "_").replace(",", "").replace("+", "and")


@dataclass(frozen=True)
class Run:
    """One training that is evaluated.

    Attributes:
        method: how.
        seed: of the draw of the training patients and of the training; it decides the test patients.
        is_all: whether it learns from all training patients instead of a draw of them.
    """

    method: Method
    seed: int
    is_all: bool = False

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        return f"{self.method.slug}{'_all' if self.is_all else ''}_s{self.seed}"

    @property
    def fold(self) -> int:
        """Of the derived datasets' splits_final.json."""
        return fold_number(self.seed, is_all=self.is_all)


@dataclass(frozen=True)
class Pilot:
    """One training that is compared with others, on patients who are in no test, to choose a learning rate."""

    method: Method
    lr: float
    seed: int = PILOT_SEED

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        return f"pilot_{self.method.slug}_lr{self.lr:g}"

    @property
    def fold(self) -> int:
        """Of the derived datasets' splits_final.json."""
        return PILOT_FOLD


@dataclass(frozen=True)
class Design:
    """Who is trained on and tested.

    Attributes:
        patients: how many a training is given, except for those that are given all.
        test_patients: at most so many are tested for each seed.
        seeds: how many seeds.
    """

    patients: int
    test_patients: int
    seeds: int

    def folds(self, groups: Sequence[Sequence[str]]) -> list[Fold]:
        """The folds of the derived datasets: the pilot's, then for each seed that with few and that with all patients.

        Validation is the test: nothing is chosen by it, and nnU-Net's training computes nothing but its pseudo Dice on
        it. For a seed, fewer training patients are among more.

        Args:
            groups: the patients of each of the original's five validation sets.

        Raises:
            UserError: if there are too few patients to train on.
        """
        pilot = drawn(groups[PILOT_TRAINING_FOLD], PILOT_SEED)[: self.patients]
        folds = [fold(pilot, drawn(groups[PILOT_TEST_FOLD], PILOT_SEED)[: self.test_patients])]
        for seed in range(self.seeds):
            tested = held_out_fold(seed)
            test = drawn(groups[tested], tested)[: self.test_patients]  # seeds that share a fold share its patients
            others = [patient for number, group in enumerate(groups) if number != tested for patient in group]
            if self.patients > len(others):
                raise UserError(f"--patients {self.patients}: there are {len(others)} to train on. Give fewer.")
            folds += [fold(drawn(others, seed)[: self.patients], test), fold(others, test)]
        return folds


def fold(train: Sequence[str], test: Sequence[str]) -> Fold:
    """An entry of splits_final.json."""
    return {"train": sorted(train), "val": sorted(test)}


def drawn(patients: Sequence[str], seed: int) -> list[str]:
    """The patients in a random order that depends on who they are and on the seed."""
    return [str(patient) for patient in np.random.default_rng(seed).permutation(sorted(patients))]


def held_out_fold(seed: int) -> int:
    """The fold of the original whose patients a seed tests: each of the first three seeds has its own."""
    return seed % TEST_FOLDS


def fold_number(seed: int, *, is_all: bool) -> int:
    """Which of `Design.folds` a run has."""
    return 1 + 2 * seed + is_all


def patient_groups(splits: Sequence[Mapping[str, Sequence[str]]], patient_of: Mapping[str, str]) -> list[list[str]]:
    """The patients of each validation set of the original's folds.

    Args:
        splits: content of its splits_final.json; the validation sets hold every case once.
        patient_of: the patient of each case.

    Raises:
        UserError: if there are not five folds, or a patient is in two of them.
    """
    needed = 1 + max(PILOT_TRAINING_FOLD, PILOT_TEST_FOLD)
    if len(splits) < needed:
        raise UserError(f"splits_final.json of {ORIGIN} has {len(splits)} folds; the experiment needs {needed}.")
    groups = [sorted({patient_of[case] for case in one["val"] if case in patient_of}) for one in splits[:needed]]
    for number, group in enumerate(groups):
        for other in range(number):
            if shared := sorted(set(group) & set(groups[other])):
                raise UserError(
                    f"splits_final.json of {ORIGIN} has {shared[0]} in the validation sets of the folds {other} and "
                    f"{number}; each patient must be in one."
                )
    return groups


def ordered_runs(methods: Sequence[Method], until: str, seeds: int) -> list[Run]:
    """The runs of a stage and of all before it, in the order in which they are done: one whole seed after another.

    Args:
        methods: in the order of their weight.
        until: one of `STAGES`.
        seeds: how many.
    """
    primary = [Run(method, seed) for seed in range(seeds) for method in methods if method.is_primary]
    if until == "primary":
        return primary
    more = [Run(method, seed) for seed in range(seeds) for method in methods if not method.is_primary]
    everyone = [Run(method, seed, is_all=True) for seed in range(seeds) for method in methods]
    return [*primary, *more, *everyone]


def pilots_of(methods: Sequence[Method], lrs: Sequence[float]) -> list[Pilot]:
    """The trainings that choose the learning rates.

    Args:
        methods: one of each family.
        lrs: to choose from. Of one there is nothing to choose, so that there are no trainings.
    """
    return [Pilot(method, lr) for method in methods for lr in lrs] if len(lrs) > 1 else []
