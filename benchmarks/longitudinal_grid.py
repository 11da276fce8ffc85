"""What the experiment on prior scans compares: methods, datasets, folds, and runs in the order of their weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nnunet_ext.errors import UserError

STAGES = ("primary", "full")
ORIGIN = "Dataset027_ACDCScribble"
TEST_FOLDS = 3
PILOT_TRAINING_FOLD, PILOT_TEST_FOLD = 4, 3
"""Of the original's folds: no patient of these two is ever tested."""

PILOT_FOLD, PILOT_SEED = 0, 0

Fold = dict[str, list[str]]
"""One entry of splits_final.json: the cases of ``train`` and of ``val``."""


@dataclass(frozen=True)
class Inputs:
    """A dataset that shows the current scans, and more or less of the prior ones.

    Attributes:
        number: nnU-Net's id.
        suffix: of its name.
        description: what the channels are, for the results.
    """

    number: int
    suffix: str
    description: str

    @property
    def name(self) -> str:
        """nnU-Net's name."""
        return f"Dataset{self.number}_ACDC{self.suffix}"


LABELS = Inputs(841, "PriorLabels", "current image, prior image, three prior label channels")
IMAGE = Inputs(842, "PriorImage", "current image, prior image")
CURRENT = Inputs(843, "Current", "current image")
WITHHELD = Inputs(844, "PriorWithheld", "current image, and zeros in all prior channels")
TRAINING_INPUTS = (LABELS, IMAGE, CURRENT)


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        name: in the results.
        family: methods of one family share the learning rate.
        trainer: class name.
        inputs: what it sees.
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


STOCK, DUAL = "nnUNetTrainerConfigurable", "nnUNetTrainerDualEncoder"


def dual_encoder(fusion: str, *, width: float = 1.0, is_primary: bool = True) -> Method:
    """The dual encoder with one way of fusing and one width of the prior's encoder."""
    name, settings = f"dual encoder {fusion}", {"dual_encoder.fusion": fusion, "dual_encoder.context_width": width}
    what = f"{DUAL}, fusion `{fusion}`"
    if width != 1:
        name, what = f"{name} width {width:g}", f"{what}, context_width {width:g}"
    return Method(name, "dual encoder", DUAL, LABELS, what, settings, is_primary)


NO_PRIOR = Method("no prior", "no prior", STOCK, CURRENT, "nnU-Net on the current image alone")
EARLY = Method("early concatenation", "early concatenation", STOCK, LABELS, "nnU-Net on all channels")
GATED = dual_encoder("gated")
METHODS = (
    NO_PRIOR,
    EARLY,
    Method(
        "early concatenation without labels",
        EARLY.family,
        STOCK,
        IMAGE,
        "nnU-Net on current and prior image",
    ),
    GATED,
    dual_encoder("add"),
    dual_encoder("concat"),
    dual_encoder("gated", width=0.5),
    Method(
        "dual encoder gated without labels",
        GATED.family,
        DUAL,
        IMAGE,
        f"{DUAL}, fusion `gated`, on current and prior image",
        GATED.settings,
    ),
    Method("early concatenation + MixUp", EARLY.family, "nnUNetTrainerMixUp", LABELS, "MixUp on all channels"),
    Method(
        "dual encoder gated + MixUp",
        GATED.family,
        "nnUNetTrainerDualEncoderMixUp",
        LABELS,
        "nnUNetTrainerDualEncoderMixUp, fusion `gated`",
        GATED.settings,
    ),
    dual_encoder("add", width=0.5, is_primary=False),
    dual_encoder("concat", width=0.5, is_primary=False),
)
PILOTING = (NO_PRIOR, EARLY, GATED)
REFERENCES = (NO_PRIOR, EARLY)
"""What the others are compared with."""


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

    @property
    def is_withheld_later(self) -> bool:
        """Whether the model is also scored with its prior channels at zero."""
        return self.method.inputs == LABELS


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
    """The patients of each validation set of a dataset's folds.

    Args:
        splits: content of splits_final.json; its validation sets hold every case once.
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


def planned_runs(until: str, seeds: int) -> list[Run]:
    """The runs of a stage and of all before it, in the order in which they are done: one whole seed after another.

    Args:
        until: one of `STAGES`.
        seeds: how many.
    """
    primary = [Run(method, seed) for seed in range(seeds) for method in METHODS if method.is_primary]
    if until == "primary":
        return primary
    more = [Run(method, seed) for seed in range(seeds) for method in METHODS if not method.is_primary]
    everyone = [Run(method, seed, is_all=True) for seed in range(seeds) for method in METHODS]
    return [*primary, *more, *everyone]


def planned_pilots(lrs: Sequence[float]) -> list[Pilot]:
    """The trainings that choose the learning rates."""
    return [Pilot(method, lr) for method in PILOTING for lr in lrs]
