"""Bootstrap intervals over patients for every figure of a set of cases."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np

from nnunet_ext.evaluation.bootstrap import Interval, PatientBootstrap, Statistic, Table, ratio
from nnunet_ext.evaluation.scoring import Intervals, Result

SEED = 0

Columns = Callable[[Result, str], Table]
"""What each case adds to a label's figure, (cases, columns)."""


def with_intervals(result: Result, patients: Mapping[str, str] | None, *, resamples: int) -> Result:
    """The scores with an interval for each figure, all of the same resamples.

    Args:
        result: the scores.
        patients: that of each case; None takes every case for a patient of its own.
        resamples: how many, at least 1.
    """
    cases = result.cases.cases
    of_case = {case: patients[case] if patients is not None else case for case in cases}
    bootstrap = PatientBootstrap(list(of_case.values()), np.random.default_rng(SEED), resamples=resamples)
    figures = FIGURES | (SURFACE_FIGURES if result.metrics.surface else {})
    figures |= NSD_FIGURES if result.metrics.tolerances else {}
    figures |= LESION_FIGURES if result.metrics.lesions else {}

    def interval(label: str, columns: Columns, statistic: Statistic) -> Interval | None:
        return bootstrap.interval(columns(result, label), statistic)

    def interval_of_mean(columns: Columns) -> Interval | None:
        stacked = np.stack([columns(result, label) for label in result.overlaps], axis=1)
        return bootstrap.interval(stacked, mean_of_quotients)

    return replace(
        result,
        intervals=Intervals(
            resamples,
            of_case,
            {label: {name: interval(label, *figure) for name, figure in figures.items()} for label in result.overlaps},
            {name: interval_of_mean(columns) for name, columns in MEANS.items()},
        ),
    )


def quotient(sums: Table) -> Table:
    """The first of two sums by the second, (..., 2) -> (...)."""
    return ratio(sums[..., 0], sums[..., 1])


def mean_of_quotients(sums: Table) -> Table:
    """The mean over the labels, of those that are defined, (..., labels, 2) -> (...)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of no label: NaN is what is wanted
        return np.asarray(np.nanmean(quotient(sums), axis=-1))


def f1(sums: Table) -> Table:
    """F1 of counts of lesions, (..., 4) -> (...): `DetectionCounts.f1` of many at once."""
    reference, found, predicted, right = np.moveaxis(sums, -1, 0)
    recall, precision = ratio(found, reference), ratio(right, predicted)
    both = ratio(2 * recall * precision, recall + precision)
    some = np.where((found > 0) & (right > 0), both, 0.0)
    return np.where(reference + predicted > 0, some, math.nan)


def _mean_columns(values: Iterable[float]) -> Table:
    """For a mean over the cases that have a value: it, and that it counts."""
    table = np.array([[value, 1.0] for value in values])
    return np.where(np.isnan(table[:, :1]), 0.0, table)


def _dice(result: Result, label: str) -> Table:
    return _mean_columns(result.overlaps[label][case].dice for case in result.cases.cases)


def _aggregated_dice(result: Result, label: str) -> Table:
    return np.array([result.overlaps[label][case].parts for case in result.cases.cases])


def _assd(result: Result, label: str) -> Table:
    return _mean_columns(result.surface[label][case].assd for case in result.cases.cases)


def _hd95(result: Result, label: str) -> Table:
    return _mean_columns(result.surface[label][case].hd95 for case in result.cases.cases)


def _nsd(result: Result, label: str) -> Table:
    return _mean_columns(result.nsd[label][case] for case in result.cases.cases)


def _lesions(*names: str) -> Columns:
    def columns(result: Result, label: str) -> Table:
        counts = [result.lesions[label][case] for case in result.cases.cases]
        return np.array([[getattr(one, name) for name in names] for one in counts], float)

    return columns


FIGURES: dict[str, tuple[Columns, Statistic]] = {
    "dice_mean": (_dice, quotient),
    "aggregated_dice": (_aggregated_dice, quotient),
}
SURFACE_FIGURES: dict[str, tuple[Columns, Statistic]] = {"assd_mean": (_assd, quotient), "hd95_mean": (_hd95, quotient)}
NSD_FIGURES: dict[str, tuple[Columns, Statistic]] = {"nsd_mean": (_nsd, quotient)}
LESION_FIGURES: dict[str, tuple[Columns, Statistic]] = {
    "lesions_recall": (_lesions("found", "reference"), quotient),
    "lesions_precision": (_lesions("right", "predicted"), quotient),
    "lesions_f1": (_lesions("reference", "found", "predicted", "right"), f1),
}
MEANS: dict[str, Columns] = {"foreground_mean": _dice, "foreground_aggregated_dice": _aggregated_dice}
