"""How sure figures are: a bootstrap over patients and seeds, paired between runs. All from this package's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunet_ext.evaluation.bootstrap import drawn_counts, percentile_interval, ratio
from nnunet_ext.report.statistics import holm

__all__ = ["RESAMPLES", "Estimate", "Figures", "estimate", "holm"]

RESAMPLES = 5000
SEED = 0
HARMONIC: Mapping[str, tuple[str, str]] = {"lesions_f1": ("lesions_recall", "lesions_precision")}
"""Metrics that are the harmonic mean of two others."""

Samples = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float  # NaN where it is undefined
    low: float
    high: float
    p: float = math.nan  # two-sided, of a difference from 0: twice the smaller share of resamples on one side of it
    seeds: tuple[str, ...] = ()  # whose trainings are in it

    def divided_by(self, factor: float) -> Estimate:
        """The same in other units."""
        return replace(self, value=self.value / factor, low=self.low / factor, high=self.high / factor)

    def text(self, *, digits: int = 3, is_signed: bool = False) -> str:
        """The figure and its interval in brackets; empty where it is undefined."""
        form = f"{'+' if is_signed else ''}.{digits}f"
        if math.isnan(self.value):
            return ""
        interval = "" if math.isnan(self.low) else f" [{self.low:{form}}, {self.high:{form}}]"
        return f"{self.value:{form}}{interval}"


def estimate(values: npt.ArrayLike, statistic: object, rng: np.random.Generator) -> Estimate:
    """A statistic of independent values, such as ``np.median``, and its percentile bootstrap interval."""
    sample = np.asarray(values, dtype=np.float64)
    drawn = sample[rng.integers(len(sample), size=(RESAMPLES, len(sample)))]
    interval = percentile_interval(statistic(drawn, axis=1))  # type: ignore[operator]
    assert interval is not None
    return Estimate(float(statistic(sample)), interval.low, interval.high)  # type: ignore[operator]


class Figures:
    """Figures of runs in one scores table.

    Each resample draws as many patients as the runs were scored on, with all their cases, and as many seeds, both with
    replacement. All runs share the draws, and a seed is the same draw of cases for all, so that differences are pairs.
    """

    def __init__(self, scores: pd.DataFrame) -> None:
        self.scores = scores

    def seeds(self, run: str, test: str) -> tuple[str, ...]:
        """The seeds whose models of a run were scored on a test."""
        return tuple(sorted(self._rows(run, test).seed.unique()))

    def estimate(self, run: str, test: str, metric: str) -> Estimate:
        """A metric of a run: over a seed's cases, the mean over the labels, the mean over the seeds."""
        seeds = self.seeds(run, test)
        rows = self._rows(run, test)
        return self._estimate(_samples(rows, metric, seeds, sorted(rows.patient.unique())), seeds)

    def difference(self, ours: str, theirs: str, test: str, metric: str) -> Estimate:
        """A metric of one run less that of another, over the seeds that both have."""
        seeds = tuple(seed for seed in self.seeds(ours, test) if seed in self.seeds(theirs, test))
        first, second = self._rows(ours, test), self._rows(theirs, test)
        patients = sorted({*first.patient, *second.patient})
        samples = _samples(first, metric, seeds, patients) - _samples(second, metric, seeds, patients)
        return self._estimate(samples, seeds)

    def _rows(self, run: str, test: str) -> pd.DataFrame:
        return self.scores[(self.scores.run == run) & (self.scores.dataset == test)]

    def _estimate(self, samples: Samples, seeds: tuple[str, ...]) -> Estimate:
        interval = percentile_interval(samples[1:])
        value = float(samples[0])
        if math.isnan(value) or interval is None:
            return Estimate(value, math.nan, math.nan, seeds=seeds)
        known = samples[1:][~np.isnan(samples[1:])]
        tail = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
        p = min(1.0, 2 * (int(tail) + 1) / (len(known) + 1))
        return Estimate(value, interval.low, interval.high, p, seeds)


def _samples(rows: pd.DataFrame, metric: str, seeds: tuple[str, ...], patients: list[str]) -> Samples:
    """The figure of a run itself, then of each resample, (1 + RESAMPLES,)."""
    by_seed = [_known(_by_label(rows[rows.seed == seed], metric, patients)) for seed in seeds]
    if not by_seed:
        return np.full(1 + RESAMPLES, math.nan)
    return _weighted(np.stack(by_seed, axis=-1), _draws(len(seeds), 1))


def _by_label(rows: pd.DataFrame, metric: str, patients: list[str]) -> Samples:
    """A metric of one model in each resample of patients, (1 + RESAMPLES, labels)."""
    if metric in HARMONIC:
        one, other = (_by_label(rows, part, patients) for part in HARMONIC[metric])
        mean = ratio(2 * np.nan_to_num(one) * np.nan_to_num(other), np.nan_to_num(one) + np.nan_to_num(other))
        return np.where(np.isnan(one) & np.isnan(other), math.nan, np.nan_to_num(mean))
    draws, chosen = _draws(len(patients), 0), rows[rows.metric == metric]
    if chosen.empty:
        return np.full((len(draws), 1), math.nan)
    sums = chosen.groupby(["patient", "label"])[["numerator", "denominator"]].sum().unstack("label")
    sums = sums.reindex(patients).fillna(0.0)
    return ratio(draws @ sums["numerator"].to_numpy(), draws @ sums["denominator"].to_numpy())


def _known(values: Samples) -> Samples:
    """The mean over the last axis of what is defined."""
    return _weighted(values, np.ones_like(values))


def _weighted(values: Samples, weights: Samples) -> Samples:
    known = np.where(np.isnan(values), 0.0, weights)
    return ratio((np.nan_to_num(values) * known).sum(axis=-1), known.sum(axis=-1))


def _draws(size: int, stream: int) -> Samples:
    """How often each of some values counts: once in the first row, as drawn in the others, (1 + RESAMPLES, `size`)."""
    if size == 0:
        return np.ones((1 + RESAMPLES, 1))
    counts = drawn_counts(size, np.random.default_rng([SEED, stream]), resamples=RESAMPLES)
    return np.concatenate([np.ones((1, size)), counts.astype(np.float64)])
