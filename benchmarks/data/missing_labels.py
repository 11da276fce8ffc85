"""Labels that are missing in some cases: pretended sources of a dataset whose labels are complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from benchmarks.engine.experiment import Dataset, Draw, Fold, Folds
from nnunet_ext.preprocessing.simulate.missing_labels import lists_by_case

SEED = 0


@dataclass(frozen=True)
class AnnotatedFolds:
    """Folds whose training cases are those that were annotated for some labels."""

    folds: Folds  # of all cases
    lists: Callable[[], Mapping[str, Sequence[str]]]  # returns the labels of each case
    labels: Sequence[str]  # that a training case must have

    def __call__(self, sizes: Sequence[int | None], seeds: Sequence[int]) -> list[Fold]:
        lists = self.lists()
        return [
            {**fold, "train": [case for case in fold["train"] if set(self.labels) <= set(lists[case])]}
            for fold in self.folds(sizes, seeds)
        ]


@dataclass(frozen=True, eq=False)
class PretendedSources:
    """A dataset with complete labels, and what would be known of it if its cases came from several sources."""

    complete: Dataset
    groups: Callable[[], Sequence[Mapping[str, Sequence[str]]]]  # returns the patients of each fold and their cases
    folds: Folds
    sources: Sequence[tuple[str, ...]]  # labels of each; the last one has all of them, others may have the same
    pattern: str  # of the patient in a case's name

    def lists(self) -> Mapping[str, Sequence[str]]:
        """The labels of each case, as the command draws them."""
        patients = {patient: cases for group in self.groups() for patient, cases in group.items()}
        return lists_by_case(patients, self.sources, np.random.default_rng(SEED))

    @property
    def parts(self) -> list[tuple[str, ...]]:
        """The different labels of the sources that do not have all of them."""
        everything = set().union(*self.sources)
        return [labels for labels in dict.fromkeys(self.sources) if set(labels) != everything]

    @property
    def description(self) -> str:
        """Who has which labels."""
        return (
            "Patients are dealt out evenly to pretended sources with the labels "
            f"{'; '.join(', '.join(labels) for labels in self.sources)}. All models train on the same patients, and "
            "are scored against every label of others."
        )

    @cached_property
    def merged(self) -> Dataset:
        """All cases, each with the labels of its source."""
        return self._dataset(self.complete.number + 1, "Merged", self.sources, self.folds)

    def with_labels(self, number: int, title: str, labels: Sequence[str]) -> Dataset:
        """The cases whose source has some labels, with these alone."""
        return self._dataset(number, title, [labels], AnnotatedFolds(self.folds, self.lists, labels))

    def _dataset(self, number: int, title: str, sources: Sequence[Sequence[str]], folds: Folds) -> Dataset:
        make = partial(simulated, source=self.complete.number, sources=sources, pattern=self.pattern)
        return Dataset(number, title, make, folds=folds, plans_of=self.complete)


def simulated(folder: Path, draw: Draw, *, source: int, sources: Sequence[Sequence[str]], pattern: str) -> list[str]:
    """The command that makes a dataset of pretended sources."""
    command = ["nnunet_ext", "simulate", "labels", str(source), "-o", folder.name, "--seed", str(SEED)]
    command += ["--group", pattern]
    return [*command, "--sources", *(",".join(labels) for labels in sources)]
