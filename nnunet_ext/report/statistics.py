"""How sure figures are: bootstrap intervals over patients and seeds, paired tests, Holm's correction."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import wilcoxon

from nnunet_ext.evaluation.bootstrap import Interval, Statistic, Table, drawn_counts, percentile_interval, ratio

SEED = 0
FEWEST = 6
"""Differences that a signed-rank test needs: five that all point one way have p = 2 / 2⁵ = 0.0625."""

MOST_EXACT = 50
DIGITS = 12  # differences are rounded to these decimals, so that what is equal but for rounding is a tie


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval.

    Attributes:
        value: NaN where it is undefined.
        interval: None where there are fewer than two patients, or no resamples.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class SignedRank:
    """A Wilcoxon signed-rank test.

    Attributes:
        p: two-sided.
        exact: whether it is of the exact distribution; else of the normal approximation.
    """

    p: float
    exact: bool


@dataclass(frozen=True)
class SeedRows:
    """What the cases of one seed add to a figure.

    Attributes:
        cases: their names.
        values: (cases, columns), or (cases, labels, columns) of a mean over labels; zeros where one does not count.
    """

    cases: tuple[str, ...]
    values: Table


@dataclass(frozen=True)
class SeedValues:
    """The values of one seed's cases.

    Attributes:
        cases: their names.
        values: (cases, labels); NaN where a case has none.
    """

    cases: tuple[str, ...]
    values: Table


class Resampling:
    """Resamples of patients, shared by all figures, so that differences between runs are paired.

    Each draws as many patients as there are, with replacement and with all their cases. Of a run with several seeds
    seeds are drawn too.

    Args:
        patients: that of each case.
        resamples: how many; 0 for no intervals.
    """

    def __init__(self, patients: Mapping[str, str], *, resamples: int) -> None:
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients.values()))}
        self.patients = patients
        self._number = {case: numbers[patient] for case, patient in patients.items()}
        self._resamples = resamples
        self._drawn = _sample_and_resamples(len(numbers), np.random.default_rng(SEED), resamples)

    def case_weights(self, cases: Sequence[str]) -> Table:
        """How often each case counts: once in the first row, as drawn in the others, (1 + resamples, cases)."""
        return self._drawn[:, [self._number[case] for case in cases]]

    def seed_weights(self, count: int, *, run: int) -> Table:
        """The same of a run's seeds, (1 + resamples, `count`); each run draws its own.

        Args:
            count: of the seeds.
            run: the run's number.
        """
        return _sample_and_resamples(count, np.random.default_rng([SEED, 1 + run]), self._resamples)

    def samples(self, seeds: Sequence[SeedRows], statistic: Statistic, *, run: int) -> Table:
        """A figure of the sample itself, then of each resample, the mean over the seeds, (1 + resamples,)."""
        by_seed = []
        for seed in seeds:
            sums = self.case_weights(seed.cases) @ seed.values.reshape(len(seed.cases), -1)
            by_seed.append(statistic(sums.reshape(-1, *seed.values.shape[1:])))
        return known_mean(np.stack(by_seed, axis=-1), self.seed_weights(len(seeds), run=run))

    def estimate(self, seeds: Sequence[SeedRows], statistic: Statistic, *, run: int) -> Estimate:
        """A figure of a run.

        Args:
            seeds: what each seed's cases add.
            statistic: computes the figure of sums.
            run: the run's number.
        """
        samples = self.samples(seeds, statistic, run=run)
        return self._with_interval(samples, self._counting(seeds))

    def figure_difference(
        self, ours: Sequence[SeedRows], theirs: Sequence[SeedRows], statistic: Statistic, *, runs: tuple[int, int]
    ) -> Estimate:
        """A figure of one run less that of another, on the same cases; arguments as of `estimate`."""
        samples = self.samples(ours, statistic, run=runs[0]) - self.samples(theirs, statistic, run=runs[1])
        return self._with_interval(samples, self._counting([*ours, *theirs]))

    def mean_difference(
        self, ours: Sequence[SeedValues], theirs: Sequence[SeedValues], *, runs: tuple[int, int]
    ) -> Estimate:
        """The mean over the cases that both have of a case's difference, which is the mean over its labels.

        Args:
            ours: of one run, by seed.
            theirs: of the other.
            runs: their numbers.
        """
        pairs = [case for case, value in paired_differences(ours, theirs).items() if not math.isnan(value)]
        if not pairs:
            return Estimate(math.nan, None)
        weights = self.seed_weights(len(ours), run=runs[0]), self.seed_weights(len(theirs), run=runs[1])
        first, second = _cube(ours, pairs), _cube(theirs, pairs)
        total = np.zeros((len(self._drawn), len(pairs)))
        known = np.zeros_like(total)
        for label in range(first.shape[1]):  # one at a time, for the memory
            difference = _seed_means(first[:, label], weights[0]) - _seed_means(second[:, label], weights[1])
            total += np.nan_to_num(difference)
            known += ~np.isnan(difference)
        samples = known_mean(ratio(total, known), self.case_weights(pairs))
        return self._with_interval(samples, {self.patients[case] for case in pairs})

    def _counting(self, seeds: Sequence[SeedRows]) -> set[str]:
        """The patients with a case that adds something."""
        return {
            self.patients[case]
            for seed in seeds
            for case, row in zip(seed.cases, seed.values.reshape(len(seed.cases), -1))
            if row.any()
        }

    def _with_interval(self, samples: Table, counting: set[str]) -> Estimate:
        interval = percentile_interval(samples[1:]) if len(counting) > 1 else None
        return Estimate(float(samples[0]), None if math.isnan(samples[0]) else interval)


def _sample_and_resamples(size: int, rng: np.random.Generator, resamples: int) -> Table:
    return np.concatenate([np.ones((1, size)), drawn_counts(size, rng, resamples=resamples).astype(np.float64)])


def known_mean(values: Table, weights: Table) -> Table:
    """The weighted mean over the last axis, of the values that are not NaN; NaN where none counts."""
    known = np.where(np.isnan(values), 0.0, weights)
    return ratio((np.nan_to_num(values) * known).sum(axis=-1), known.sum(axis=-1))


def _cube(seeds: Sequence[SeedValues], cases: Sequence[str]) -> Table:
    """Values by (case, label, seed), NaN where there is none."""
    cube = np.full((len(cases), seeds[0].values.shape[1], len(seeds)), math.nan)
    for number, seed in enumerate(seeds):
        rows = dict(zip(seed.cases, seed.values))
        for place, case in enumerate(cases):
            if case in rows:
                cube[place, :, number] = rows[case]
    return cube


def _seed_means(values: Table, weights: Table) -> Table:
    """The mean over the seeds of each case in each resample, (cases, seeds) and (R, seeds) -> (R, cases)."""
    known = ~np.isnan(values)
    return ratio(weights @ np.nan_to_num(values).T, weights @ known.T.astype(np.float64))


def paired_differences(ours: Sequence[SeedValues], theirs: Sequence[SeedValues]) -> dict[str, float]:
    """Of the cases that both runs were scored on, the first run's value less the second's.

    A value is the mean over the seeds, and a difference the mean over the labels that both have; NaN where there is
    none.
    """
    common = [case for case in _all_cases(ours) if case in _all_cases(theirs)]
    once = np.ones((1, len(ours))), np.ones((1, len(theirs)))
    first, second = _cube(ours, common), _cube(theirs, common)
    by_label = [
        _seed_means(first[:, label], once[0])[0] - _seed_means(second[:, label], once[1])[0]
        for label in range(first.shape[1])
    ]
    means = known_mean(np.stack(by_label, axis=-1), np.ones(len(by_label)))
    return {case: round(float(value), DIGITS) for case, value in zip(common, means)}


def _all_cases(seeds: Sequence[SeedValues]) -> dict[str, None]:
    return dict.fromkeys(case for seed in seeds for case in seed.cases)


def signed_rank(differences: Sequence[float]) -> SignedRank | None:
    """Wilcoxon's signed-rank test, two-sided; differences of zero are left out, as Wilcoxon did.

    Exact for up to fifty differences without ties; else the normal approximation, corrected for ties.

    Args:
        differences: of patients, none NaN.

    Returns:
        None if fewer than six differ from zero: no such test can be significant at 5 %.
    """
    counting: npt.NDArray[np.float64] = np.array([value for value in differences if value != 0])
    if len(counting) < FEWEST:
        return None
    exact = len(counting) <= MOST_EXACT and len(np.unique(np.abs(counting))) == len(counting)
    return SignedRank(_exact_p(counting) if exact else _approximate_p(counting), exact)


def _exact_p(differences: npt.NDArray[np.float64]) -> float:
    return float(wilcoxon(differences, zero_method="wilcox", method="exact").pvalue)


def _approximate_p(differences: npt.NDArray[np.float64]) -> float:
    try:
        return float(wilcoxon(differences, zero_method="wilcox", method="asymptotic").pvalue)
    except ValueError:  # the method's name in older scipy
        return float(wilcoxon(differences, zero_method="wilcox", method="approx").pvalue)


def holm(values: Sequence[float]) -> list[float]:
    """p values corrected for their number by Holm's method, in the order given."""
    corrected, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = highest
    return corrected
