"""Who is trained on and tested: folds that keep the cases of a patient together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.engine.experiment import Fold
from nnunet_ext.errors import UserError


@dataclass(frozen=True)
class PatientFolds:
    """Folds out of groups of patients: a seed tests one group and draws the patients to train on from the others.

    Validation is the test: nothing is chosen by it, and nnU-Net's training computes only its pseudo Dice on it. For a
    seed, fewer training patients are among more.
    """

    # returns the groups, each with its patients and their cases
    groups: Callable[[], Sequence[Mapping[str, Sequence[str]]]]
    tested: int = 3  # as many of the first groups are tested; seed s tests group s modulo this number
    pilot_test: int = 3  # number of the group that the pilot tests, which no run does
    # number of the group that the pilot draws from; None for all but that which it tests
    pilot_train: int | None = None
    most_tested: int | None = None  # patients of each group that are tested, at most; None for all
    pilot_size: int | None = None  # patients that the pilot trains on; None for as many as the first size, or all

    def __call__(self, sizes: Sequence[int | None], seeds: Sequence[int]) -> list[Fold]:
        """The pilot's fold, then for each size one for each seed.

        Raises:
            UserError: if there are too few patients to train on.
        """
        groups = self.groups()
        pilot_size = self.pilot_size or (sizes[0] if sizes else None)
        folds = [self._fold(groups, self.pilot_test, pilot_size, seed=0, pool=self.pilot_train)]
        folds += [self._fold(groups, seed % self.tested, size, seed=seed) for size in sizes for seed in seeds]
        return folds

    def _fold(
        self,
        groups: Sequence[Mapping[str, Sequence[str]]],
        tested: int,
        size: int | None,
        *,
        seed: int,
        pool: int | None = None,
    ) -> Fold:
        """A fold that draws from the group `pool`, or from all but the one that it tests."""
        pools = [groups[pool]] if pool is not None else [*groups[:tested], *groups[tested + 1 :]]
        patients = {patient: cases for group in pools for patient, cases in group.items()}
        if size is not None and size > len(patients):
            raise UserError(f"A fold wants {size} patients to train on; there are {len(patients)}.")
        # seeds that share a group share the patients who are tested
        test, train = drawn(groups[tested], tested)[: self.most_tested], drawn(patients, seed)[:size]
        return {
            "train": sorted(case for patient in train for case in patients[patient]),
            "val": sorted(case for patient in test for case in groups[tested][patient]),
        }


def drawn(patients: Sequence[str] | Mapping[str, object], seed: int) -> list[str]:
    """The patients in a random order that depends on who they are and on the seed."""
    return [str(patient) for patient in np.random.default_rng(seed).permutation(sorted(patients))]


def grouped(validation_sets: Sequence[Sequence[str]], patient_of: Callable[[str], str]) -> list[dict[str, list[str]]]:
    """The patients and cases of each validation set of a splits_final.json.

    Raises:
        UserError: if a patient is in two of them.
    """
    groups: list[dict[str, list[str]]] = [{} for _ in validation_sets]
    fold_of: dict[str, int] = {}
    for number, cases in enumerate(validation_sets):
        for case in cases:
            patient = patient_of(case)
            groups[number].setdefault(patient, []).append(case)
            if fold_of.setdefault(patient, number) != number:
                raise UserError(
                    f"{patient} is in the validation sets of the folds {fold_of[patient]} and {number} of "
                    "splits_final.json; each patient must be in one."
                )
    return groups
