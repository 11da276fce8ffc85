"""Runs, the columns of a report: what the user named, seeds under one name, and which are shown side by side."""

from collections.abc import Sequence
from dataclasses import dataclass

from nnunet_ext.errors import UserError
from nnunet_ext.report.sources import ResultsFolder, ScoredCases
from nnunet_ext.report.training import TrainingRecord


@dataclass(frozen=True)
class Run:
    """What the user named, a column of the report; several sources are seeds of one method."""

    name: str
    sources: tuple[ResultsFolder, ...]

    @property
    def trainings(self) -> dict[str, TrainingRecord]:
        """By folder and fold, those of all seeds."""
        several = len(self.sources) > 1
        return {
            f"{source.path.name}, {fold}" if several else fold: training
            for source in self.sources
            for fold, training in source.trainings.items()
        }


@dataclass(frozen=True)
class Column:
    """A run's scores on the cases of a board."""

    run: str  # name
    number: int  # of the run in the report, which decides its colour
    seeds: tuple[ScoredCases, ...]

    @property
    def cases(self) -> list[str]:
        return list(dict.fromkeys(case for seed in self.seeds for case in seed.files))


@dataclass(frozen=True)
class Board:
    """Runs that are shown in one table."""

    cases_of: str  # what the cases are
    columns: tuple[Column, ...]  # in the report's order


def as_runs(named: Sequence[tuple[str | None, ResultsFolder]]) -> list[Run]:
    """Runs of what was read; a name that is given several times stands for seeds of one method.

    A UserError says if a folder is given twice, or two without a name would be called the same.
    """
    paths = [source.path for _, source in named]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path} is given twice. Leave one out.")
    given = {name for name, _ in named if name is not None}
    runs: dict[str, list[ResultsFolder]] = {}
    for name, source in named:
        key = source.name if name is None else name
        if name is None and (key in runs or key in given):
            raise UserError(
                f"{source.path} would be called {key!r} in the report, like another. Give names: NAME={source.path}. "
                "The same name several times stands for seeds of one method."
            )
        runs.setdefault(key, []).append(source)
    return [Run(name, tuple(sources)) for name, sources in runs.items()]


def boards(runs: Sequence[Run]) -> list[Board]:
    """Which scores stand side by side.

    Where a folder holds scores on several sets of cases, there is a board for each set. Else all runs are on one.
    """
    several = any(len(source.outcomes) > 1 for run in runs for source in run.sources)
    groups: dict[str, dict[int, list[ScoredCases]]] = {}
    for number, run in enumerate(runs):
        for source in run.sources:
            for outcome in source.outcomes:
                groups.setdefault(outcome.cases_of if several else "", {}).setdefault(number, []).append(outcome)
    return [
        Board(
            ", ".join(dict.fromkeys(one.cases_of for outcomes in by_run.values() for one in outcomes if one.cases_of)),
            tuple(Column(runs[number].name, number, tuple(outcomes)) for number, outcomes in by_run.items()),
        )
        for by_run in groups.values()
    ]


def every_case_a_patient(runs: Sequence[Run]) -> dict[str, str]:
    """All cases of the runs, each as the patient that it is of."""
    sources = [source for run in runs for source in run.sources]
    return {case: case for source in sources for outcome in source.outcomes for case in outcome.files}
