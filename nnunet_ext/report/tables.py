"""The tables of scores: each metric's figures with intervals, and paired comparisons with the baseline."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import pandas as pd

from nnunet_ext.evaluation.bootstrap import (
    DIGITS,
    Estimate,
    Resampling,
    SeedScores,
    cases_left_out,
    paired_differences,
)
from nnunet_ext.evaluation.metrics import METRICS, Metric
from nnunet_ext.evaluation.scores_table import labels_with, nanmean, seed_scores
from nnunet_ext.report.runs import Board, Column
from nnunet_ext.report.statistics import SignedRank, holm, signed_rank

MEAN = "Mean"


@dataclass(frozen=True)
class Cell:
    """A figure of a run."""

    estimate: Estimate
    cases: int  # that count in the figure
    of: int  # cases that were scored
    median: float | None = None  # over the cases; None if the figure is computed once from all cases
    worst: float | None = None  # over the cases: the lowest, or the highest distance
    is_best: bool = False  # in its row


@dataclass(frozen=True)
class Comparison:
    """A run beside the baseline, for one label."""

    number: int  # of the run
    run: str
    label: str
    difference: Estimate  # the run's figure minus the baseline's
    pairs: int  # cases that both have
    left_out: int = 0  # cases of which some seeds of both have a value, and others have none
    equal: int = 0  # patients that do not differ
    test: SignedRank | None = None
    corrected: float | None = None  # p value, corrected for the number of tests in the table; None with a single one
    reason: str = ""  # why there is no test
    labels: tuple[str, ...] = ()  # whose mean is compared, where one of the runs does not have all of the row's


@dataclass(frozen=True)
class MetricTable:
    """A metric of all runs on a board."""

    metric: Metric
    rows: Mapping[str, tuple[Cell | None, ...]]  # by label, the mean over the labels last; a cell for each run
    comparisons: tuple[Comparison, ...]  # by label, then by run
    notes: tuple[str, ...] = ()  # how the metric was computed, where that can be chosen; several if the runs differ
    is_mixed: bool = False  # whether the runs' means are over different labels

    @property
    def title(self) -> str:
        """The metric's, for a heading."""
        title = self.metric.heading(full=True)
        return title[0].upper() + title[1:]

    @property
    def tests(self) -> int:
        """How many of the comparisons are tests."""
        return sum(one.test is not None for one in self.comparisons)


def metric_tables(board: Board, resampling: Resampling, *, baseline: int) -> list[MetricTable]:
    """The tables of each metric that a run on the board has; `baseline` is the number of the run to compare with."""
    tables = (_table(board, metric, resampling, baseline=baseline) for metric in METRICS if metric.has_figure)
    return [table for table in tables if table.rows]


def _table(board: Board, metric: Metric, resampling: Resampling, *, baseline: int) -> MetricTable:
    seeds = [seed for column in board.columns for seed in column.seeds]
    labels = list(dict.fromkeys(label for seed in seeds for label in labels_with(seed.scores, metric)))
    # each row is of one label, or of all
    groups: dict[str, list[str]] = {label: [label] for label in labels}
    if metric.mean and len(labels) > 1:
        groups[MEAN if MEAN not in groups else f"{MEAN} of the labels"] = labels
    rows, mixed = {}, False
    for row, group in groups.items():
        cells = tuple(_cell(column, metric, group, resampling) for column in board.columns)
        first, *others = _label_sets(board.columns, metric, group)
        is_mixed = any(one != first for one in others)
        rows[row] = cells if is_mixed else _with_best(metric, cells)
        mixed |= is_mixed
    reference = next((column for column in board.columns if column.number == baseline), None)
    comparisons = [
        _compare(column, reference, metric, row, group, resampling)
        for row, group in groups.items()
        for column in board.columns
        if reference is not None and column is not reference
        if _seeds(column, metric, group) and _seeds(reference, metric, group)
    ]
    notes = tuple(dict.fromkeys(seed.notes[metric.group] for seed in seeds if metric.group in seed.notes))
    return MetricTable(metric, rows, _corrected(comparisons), notes, mixed)


def _label_sets(columns: Sequence[Column], metric: Metric, labels: Sequence[str]) -> list[set[str]]:
    """Which of some labels each seed of some runs has; of the seeds that have one."""
    found = (set(labels).intersection(labels_with(seed.scores, metric)) for one in columns for seed in one.seeds)
    return [of_seed for of_seed in found if of_seed]


def _seeds(column: Column, metric: Metric, labels: Sequence[str], *, among: set[str] | None = None) -> list[SeedScores]:
    """The scores of each seed that has one of the labels; of the cases in `among` alone if it is given."""
    return [
        seed_scores(seed.scores, metric, [case for case in seed.files if among is None or case in among], labels)
        for seed in column.seeds
        if not set(labels).isdisjoint(labels_with(seed.scores, metric))
    ]


def _cell(column: Column, metric: Metric, labels: Sequence[str], resampling: Resampling) -> Cell | None:
    seeds = _seeds(column, metric, labels)
    if not seeds:
        return None
    estimate = resampling.estimate(seeds, metric.statistic, run=column.number)
    counting = {case for seed in seeds for case, parts in zip(seed.cases, seed.parts) if parts.any()}
    cell = Cell(estimate, len(counting), len(column.cases))
    if not metric.of_cases:
        return cell
    means = pd.concat([pd.Series(map(nanmean, seed.values), index=seed.cases) for seed in seeds])
    values = list(means.groupby(level=0).agg(nanmean).dropna())
    return replace(cell, median=median(values), worst=metric.worst(values)) if values else cell


def _with_best(metric: Metric, cells: Sequence[Cell | None]) -> tuple[Cell | None, ...]:
    """The cells with the best marked, unless all look the same."""
    shown = [math.nan if cell is None else round(cell.estimate.value, metric.decimals) for cell in cells]
    known = [value for value in shown if not math.isnan(value)]
    if not known or min(known) == max(known):
        return tuple(cells)
    best = metric.best(known)
    return tuple(None if cell is None else replace(cell, is_best=value == best) for cell, value in zip(cells, shown))


def _compare(
    column: Column, baseline: Column, metric: Metric, row: str, labels: Sequence[str], resampling: Resampling
) -> Comparison:
    """A run beside the baseline on the cases that both were scored on, and on the labels that all their seeds have.

    The means of runs with different labels differ by the labels, too.
    """
    runs = column.number, baseline.number
    common = set(column.cases) & set(baseline.cases)
    shared = set(labels).intersection(*_label_sets((column, baseline), metric, labels))
    compared = [label for label in labels if label in shared]
    comparison = Comparison(column.number, column.run, row, Estimate(math.nan), 0, reason="no case in common")
    if len(compared) < len(labels):
        comparison = replace(comparison, labels=tuple(compared))
    if not compared:
        return replace(comparison, reason="no label that every training of both has")
    if not common:
        return comparison
    ours, theirs = (_seeds(one, metric, compared, among=common) for one in (column, baseline))
    if not metric.of_cases:  # there are no pairs to test
        estimate = resampling.figure_difference(ours, theirs, metric.statistic, runs=runs)
        reason = "one figure of all cases: nothing to pair"
        return replace(comparison, difference=estimate, pairs=len(common), reason=reason)
    known = {case: value for case, value in paired_differences(ours, theirs).items() if not math.isnan(value)}
    missed = len(cases_left_out(ours, theirs))
    if not known:
        reason = "no case in which every seed has a value" if missed else comparison.reason
        return replace(comparison, left_out=missed, reason=reason)
    estimate = resampling.mean_difference(ours, theirs, runs=runs)
    by_patient = pd.Series(known).groupby(dict(resampling.patients)).agg(nanmean)
    differences = [round(value, DIGITS) for value in by_patient]
    test = signed_rank(differences)
    equal = sum(value == 0 for value in differences)
    reason = "" if test is not None else f"{len(differences) - equal} differ: too few to be significant at 5 %"
    counts = replace(comparison, pairs=len(known), left_out=missed, equal=equal)
    return replace(counts, difference=estimate, test=test, reason=reason)


def _corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons with Holm's correction for all tests among them, if there are several."""
    tested = {place: one.test.p for place, one in enumerate(comparisons) if one.test is not None}
    if len(tested) < 2:
        return tuple(comparisons)
    corrected = dict(zip(tested, holm(list(tested.values()))))
    return tuple(replace(one, corrected=corrected.get(place)) for place, one in enumerate(comparisons))
