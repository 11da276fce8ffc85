"""The tables of scores: each metric's figures with intervals, and paired comparisons with the first run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from nnunet_ext.evaluation.intervals import mean_of_quotients
from nnunet_ext.evaluation.scores import nanmean
from nnunet_ext.report.metrics import METRICS, Metric, case_value
from nnunet_ext.report.runs import Board, Column
from nnunet_ext.report.sources import ScoredCases
from nnunet_ext.report.statistics import (
    DIGITS,
    Estimate,
    Resampling,
    SeedRows,
    SeedValues,
    SignedRank,
    holm,
    paired_differences,
    signed_rank,
)

MEAN = "Mean"


@dataclass(frozen=True)
class Cell:
    """A figure of a run.

    Attributes:
        estimate: the figure.
        cases: how many count in it.
        of: how many were scored.
        median: of the cases' values; None of a figure of all cases.
        worst: the lowest of them, of distances the highest.
        is_best: whether it is the best of its row.
    """

    estimate: Estimate
    cases: int
    of: int
    median: float | None
    worst: float | None
    is_best: bool = False


@dataclass(frozen=True)
class Comparison:
    """A run beside the baseline.

    Attributes:
        number: of the run.
        run: its name.
        label: of which label.
        difference: the run's figure less the baseline's.
        pairs: cases that both have.
        equal: how many cases (or patients) do not differ.
        test: None where there is none.
        corrected: its p value, corrected for the number of tests in the table; None with a single one.
        reason: why there is no test.
    """

    number: int
    run: str
    label: str
    difference: Estimate
    pairs: int
    equal: int = 0
    test: SignedRank | None = None
    corrected: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class MetricTable:
    """A metric of all runs on a board.

    Attributes:
        metric: which.
        rows: by label, the last of them the mean over the labels if there is one; a cell for each run.
        comparisons: by label, then by run.
        notes: how the metric was computed, if that can be chosen; several where the runs differ in it.
    """

    metric: Metric
    rows: Mapping[str, tuple[Cell | None, ...]]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...] = ()

    @property
    def tests(self) -> int:
        """How many of the comparisons are tests."""
        return sum(one.test is not None for one in self.comparisons)


def metric_tables(board: Board, resampling: Resampling, *, baseline: int) -> list[MetricTable]:
    """The tables of each metric that a run on the board has.

    Args:
        board: the runs.
        resampling: of their cases.
        baseline: number of the run that the others are compared with.
    """
    return [
        _table(board, metric, resampling, baseline=baseline)
        for metric in METRICS
        if any(metric.name in seed.rows for column in board.columns for seed in column.seeds)
    ]


def _table(board: Board, metric: Metric, resampling: Resampling, *, baseline: int) -> MetricTable:
    labels = list(
        dict.fromkeys(
            label for column in board.columns for seed in column.seeds for label in seed.rows.get(metric.name, {})
        )
    )
    # each row is of one label, or of all
    groups: dict[str, list[str]] = {label: [label] for label in labels}
    if metric.has_mean and len(labels) > 1:
        groups[MEAN if MEAN not in groups else f"{MEAN} of the labels"] = labels
    rows = {
        row: _with_best(metric, [_cell(column, metric, group, resampling) for column in board.columns])
        for row, group in groups.items()
    }
    reference = next((column for column in board.columns if column.number == baseline), None)
    comparisons = [
        _compare(column, reference, metric, row, group, resampling)
        for row, group in groups.items()
        for column in board.columns
        if reference is not None and column is not reference and _has(column, metric, group)
        if _has(reference, metric, group)
    ]
    seeds = [seed for column in board.columns for seed in column.seeds if metric.name in seed.notes]
    notes = tuple(dict.fromkeys(seed.notes[metric.name] for seed in seeds))
    return MetricTable(metric, rows, _corrected(comparisons), notes)


def _has(column: Column, metric: Metric, labels: Sequence[str]) -> bool:
    return any(_labels_of(seed, metric, labels) for seed in column.seeds)


def _labels_of(seed: ScoredCases, metric: Metric, labels: Sequence[str]) -> list[str]:
    return [label for label in labels if label in seed.rows.get(metric.name, {})]


def _seed_rows(
    column: Column, metric: Metric, labels: Sequence[str], *, among: set[str] | None = None
) -> list[SeedRows]:
    """What each seed's cases add to the figure of the labels, those in `among` alone if it is given."""
    found = []
    for seed in column.seeds:
        present = _labels_of(seed, metric, labels)
        if not present:
            continue
        by_label = [seed.rows[metric.name][label] for label in present]
        cases = tuple(case for case in seed.files if among is None or case in among)
        width = len(next(iter(by_label[0].values())))
        nothing = (0.0,) * width
        values = np.array([[rows.get(case, nothing) for rows in by_label] for case in cases], dtype=np.float64)
        found.append(SeedRows(cases, values.reshape(len(cases), len(present), width)))
    return found


def _seed_values(column: Column, metric: Metric, labels: Sequence[str]) -> list[SeedValues]:
    """The values of each seed's cases, a column for each label."""
    found = []
    for seed in column.seeds:
        if _labels_of(seed, metric, labels):
            rows = [seed.rows[metric.name].get(label, {}) for label in labels]
            cases = tuple(seed.files)
            values = [[case_value(one[case]) if case in one else math.nan for one in rows] for case in cases]
            found.append(SeedValues(cases, np.array(values, dtype=np.float64)))
    return found


def _statistic(metric: Metric, table: np.ndarray) -> np.ndarray:
    """The figure of sums of several labels: of one, the metric's own, else the mean over the labels."""
    return mean_of_quotients(table) if table.shape[-2] > 1 else metric.statistic(table[..., 0, :])


def _cell(column: Column, metric: Metric, labels: Sequence[str], resampling: Resampling) -> Cell | None:
    seeds = _seed_rows(column, metric, labels)
    if not seeds:
        return None
    estimate = resampling.estimate(seeds, lambda sums: _statistic(metric, sums), run=column.number)
    counting = {case for seed in seeds for case, row in zip(seed.cases, seed.values) if row.any()}
    cell = Cell(estimate, len(counting), len(column.cases), None, None)
    if not metric.of_cases:
        return cell
    by_case: dict[str, list[float]] = {}
    for seed in _seed_values(column, metric, labels):
        for case, row in zip(seed.cases, seed.values):
            by_case.setdefault(case, []).append(nanmean(row))
    values = [value for value in map(nanmean, by_case.values()) if not math.isnan(value)]
    if not values:
        return cell
    return replace(cell, median=median(values), worst=min(values) if metric.larger_is_better else max(values))


def _with_best(metric: Metric, cells: Sequence[Cell | None]) -> tuple[Cell | None, ...]:
    """The cells with the best marked, unless all look the same."""
    shown = [math.nan if cell is None else round(cell.estimate.value, metric.decimals) for cell in cells]
    known = [value for value in shown if not math.isnan(value)]
    if not known or min(known) == max(known):
        return tuple(cells)
    best = max(known) if metric.larger_is_better else min(known)
    return tuple(None if cell is None else replace(cell, is_best=value == best) for cell, value in zip(cells, shown))


def _compare(
    column: Column, baseline: Column, metric: Metric, row: str, labels: Sequence[str], resampling: Resampling
) -> Comparison:
    """A run beside the baseline on the cases that both were scored on."""
    numbers = column.number, baseline.number
    if not metric.of_cases:
        return _compare_figures(column, baseline, metric, row, labels, resampling)
    ours, theirs = _seed_values(column, metric, labels), _seed_values(baseline, metric, labels)
    known = {case: value for case, value in paired_differences(ours, theirs).items() if not math.isnan(value)}
    estimate = resampling.mean_difference(ours, theirs, runs=numbers)
    comparison = Comparison(column.number, column.run, row, estimate, len(known))
    if not known:
        return replace(comparison, reason="no case in common")
    by_patient: dict[str, list[float]] = {}
    for case, value in known.items():
        by_patient.setdefault(resampling.patients[case], []).append(value)
    differences = [round(nanmean(values), DIGITS) for values in by_patient.values()]
    test = signed_rank(differences)
    equal = sum(value == 0 for value in differences)
    reason = "" if test is not None else f"{len(differences) - equal} differ: too few to be significant at 5 %"
    return replace(comparison, equal=equal, test=test, reason=reason)


def _compare_figures(
    column: Column, baseline: Column, metric: Metric, row: str, labels: Sequence[str], resampling: Resampling
) -> Comparison:
    """The same of a figure that is one of all cases: there are no pairs to test."""
    common = set(column.cases) & set(baseline.cases)
    if not common:
        return Comparison(column.number, column.run, row, Estimate(math.nan, None), 0, reason="no case in common")
    estimate = resampling.figure_difference(
        _seed_rows(column, metric, labels, among=common),
        _seed_rows(baseline, metric, labels, among=common),
        lambda sums: _statistic(metric, sums),
        runs=(column.number, baseline.number),
    )
    reason = "one figure of all cases: nothing to pair"
    return Comparison(column.number, column.run, row, estimate, len(common), reason=reason)


def _corrected(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """The comparisons with Holm's correction for all tests among them, if there are several."""
    tested = {place: one.test.p for place, one in enumerate(comparisons) if one.test is not None}
    if len(tested) < 2:
        return tuple(comparisons)
    corrected = dict(zip(tested, holm(list(tested.values()))))
    return tuple(replace(one, corrected=corrected.get(place)) for place, one in enumerate(comparisons))
