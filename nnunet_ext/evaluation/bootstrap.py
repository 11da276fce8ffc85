"""Figures over cases with percentile bootstrap intervals over patients and seeds.

A figure is computed from sums over the cases, so that a resample is a weighted sum. All figures of one `Resampling`
share its resamples: differences between runs are paired.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
SEED = 0
DIGITS = 12  # differences are rounded to these decimals, so that what is equal but for rounding is a tie

Table = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Statistic = Callable[[Table], Table]
"""Computes a figure from sums over the cases, (..., metrics, 2) -> (...): numerator and denominator of each metric."""


@dataclass(frozen=True)
class Interval:
    """An interval at `LEVEL`."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A figure, NaN where it is undefined; no interval with fewer than two patients, or without resamples."""

    value: float
    interval: Interval | None = None


@dataclass(frozen=True)
class SeedScores:
    """The scores of one seed's cases.

    Attributes:
        parts: (cases, labels, metrics, 2), numerators and denominators; zeros where a case does not count.
        where_absent: (cases, labels), the value in a pair in which the other run has one and this one has none; NaN for
            none. None for none anywhere.
        is_scored: (cases, labels), whether a case was scored for a label. None for all.
    """

    cases: tuple[str, ...]
    parts: Table
    where_absent: Table | None = None
    is_scored: Mask | None = None

    @property
    def values(self) -> Table:
        """Each case's value by the first metric, (cases, labels); NaN where it has none."""
        return quotient(self.parts)


def ratio(numerator: Table, denominator: Table) -> Table:
    """The quotient; NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, math.nan), where=denominator > 0)


def quotient(sums: Table) -> Table:
    """The quotient of the first metric's sums, (..., metrics, 2) -> (...)."""
    return ratio(sums[..., 0, 0], sums[..., 0, 1])


def known_mean(values: Table, weights: Table) -> Table:
    """The weighted mean over the last axis, of the values that are not NaN; NaN where none counts."""
    known = np.where(np.isnan(values), 0.0, weights)
    return ratio((np.nan_to_num(values) * known).sum(axis=-1), known.sum(axis=-1))


def drawn_counts(size: int, rng: np.random.Generator, *, resamples: int) -> npt.NDArray[np.int64]:
    """How often each of `size` values is drawn, with replacement and as many of them, (resamples, `size`)."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples)


def percentile_interval(values: Table) -> Interval | None:
    """The interval that holds the middle `LEVEL` of the values that are not NaN; None if all are NaN."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(float(low), float(high))


class Resampling:
    """Resamples of patients and, of runs with several seeds, of seeds.

    Each draws as many patients as a figure is of, with replacement and with all their cases: cases of one patient are
    not independent evidence. Figures of the same patients have the same draws. Resamples in which a figure is undefined
    are left out of its interval.

    Args:
        patients: that of each case.
        resamples: how many; 0 for no intervals.
    """

    def __init__(self, patients: Mapping[str, str], *, resamples: int) -> None:
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients.values()))}
        self.patients = patients
        self.resamples = resamples
        self.number_of_patients = len(numbers)
        self._number = {case: numbers[patient] for case, patient in patients.items()}
        self._drawn: dict[frozenset[int], Table] = {}

    def seed_weights(self, count: int, *, run: int) -> Table:
        """How often each seed of a run counts: once, then as drawn for it by its number, (1 + resamples, `count`)."""
        rng = np.random.default_rng([SEED, 1 + run])
        return _once_first(drawn_counts(count, rng, resamples=self.resamples).astype(np.float64))

    def samples(
        self, seeds: Sequence[SeedScores], statistic: Statistic, *, run: int = 0, cases: Iterable[str] | None = None
    ) -> Table:
        """A figure of the sample itself, then of each resample, the mean over the seeds, (1 + resamples,).

        `cases` are those whose patients are drawn; None for the ones that the seeds have.
        """
        drawn = self._draws(_all_cases(seeds) if cases is None else cases)
        by_seed = []
        for seed in seeds:
            flat = seed.parts.reshape(len(seed.cases), -1)
            by_patient = np.zeros((self.number_of_patients, flat.shape[1]))
            np.add.at(by_patient, self._numbers(seed.cases), flat)
            sums = np.concatenate([[[math.fsum(column) for column in flat.T]], drawn @ by_patient])
            by_seed.append(statistic(sums.reshape(-1, *seed.parts.shape[1:])))
        return known_mean(np.stack(by_seed, axis=-1), self.seed_weights(len(seeds), run=run))

    def estimate(self, seeds: Sequence[SeedScores], statistic: Statistic, *, run: int = 0) -> Estimate:
        """A figure of a run.

        Args:
            seeds: the scores of each seed.
            statistic: computes the figure from sums, (..., labels, metrics, 2) -> (...).
            run: the run's number.
        """
        return self._with_interval(self.samples(seeds, statistic, run=run), self._counting(seeds))

    def figure_difference(
        self, ours: Sequence[SeedScores], theirs: Sequence[SeedScores], statistic: Statistic, *, runs: tuple[int, int]
    ) -> Estimate:
        """A figure of one run minus that of another, on the same cases; arguments as of `estimate`."""
        cases = _all_cases([*ours, *theirs])
        of_run = (self.samples(seeds, statistic, run=run, cases=cases) for seeds, run in zip((ours, theirs), runs))
        return self._with_interval(np.subtract(*of_run), self._counting([*ours, *theirs]))

    def mean_difference(
        self, ours: Sequence[SeedScores], theirs: Sequence[SeedScores], *, runs: tuple[int, int]
    ) -> Estimate:
        """The mean of the cases' differences, over the cases that both runs have; see `paired_differences`."""
        pairs = [case for case, value in paired_differences(ours, theirs).items() if not math.isnan(value)]
        if not pairs:
            return Estimate(math.nan)
        weights = [self.seed_weights(len(seeds), run=run) for seeds, run in zip((ours, theirs), runs)]
        total = np.zeros((1 + self.resamples, len(pairs)))
        known = np.zeros_like(total)
        for difference in _label_differences(ours, theirs, pairs, weights):
            total += np.nan_to_num(difference)
            known += ~np.isnan(difference)
        drawn = self._draws(set(_all_cases(ours)) & set(_all_cases(theirs)))
        samples = known_mean(ratio(total, known), _once_first(drawn[:, self._numbers(pairs)]))
        return self._with_interval(samples, {self.patients[case] for case in pairs})

    def _draws(self, cases: Iterable[str]) -> Table:
        """How often each patient is drawn where those of some cases are, (resamples, patients)."""
        chosen = frozenset(self._numbers(cases))
        if chosen not in self._drawn:
            counts = drawn_counts(len(chosen), np.random.default_rng(SEED), resamples=self.resamples)
            self._drawn[chosen] = np.zeros((self.resamples, self.number_of_patients))
            self._drawn[chosen][:, sorted(chosen)] = counts
        return self._drawn[chosen]

    def _numbers(self, cases: Iterable[str]) -> list[int]:
        return [self._number[case] for case in cases]

    def _counting(self, seeds: Sequence[SeedScores]) -> set[str]:
        """The patients with a case that adds something."""
        return {
            self.patients[case] for seed in seeds for case, parts in zip(seed.cases, seed.parts) if np.any(parts != 0)
        }

    def _with_interval(self, samples: Table, counting: set[str]) -> Estimate:
        """One patient alone does not show how far others may lie: then there is no interval."""
        interval = percentile_interval(samples[1:]) if len(counting) > 1 else None
        return Estimate(float(samples[0]), None if math.isnan(samples[0]) else interval)


def _once_first(drawn: Table) -> Table:
    return np.concatenate([np.ones((1, drawn.shape[1])), drawn])


def _by_case(seeds: Sequence[SeedScores], tables: Sequence[Table], cases: Sequence[str]) -> Table:
    """Tables of (cases, labels), one for each seed, by (label, case, seed); NaN where a seed lacks the case."""
    none = np.full(seeds[0].parts.shape[1], math.nan)
    rows = [dict(zip(seed.cases, table)) for seed, table in zip(seeds, tables)]
    values = np.array([[row.get(case, none) for row in rows] for case in cases])
    return values.reshape(len(cases), len(seeds), len(none)).transpose(2, 0, 1)


def _filled_values(
    ours: Sequence[SeedScores], theirs: Sequence[SeedScores], cases: Sequence[str]
) -> tuple[Table, Table]:
    """The values of both runs by (label, case, seed), with those of `SeedScores.where_absent`; NaN where there is none.

    A run that rightly finds nothing has no Dice, and one that invents something has a Dice of 0: a pair without the
    first one's value would hide the false alarm.
    """
    both = [_by_case(seeds, [seed.values for seed in seeds], cases) for seeds in (ours, theirs)]
    has_value = np.any(~np.isnan(np.concatenate(both, axis=-1)), axis=-1, keepdims=True)
    filled = []
    for seeds, values in zip((ours, theirs), both):
        nothing = [np.full(seed.parts.shape[:2], math.nan) for seed in seeds]
        tables = [none if seed.where_absent is None else seed.where_absent for seed, none in zip(seeds, nothing)]
        filled.append(np.where(np.isnan(values) & has_value, _by_case(seeds, tables, cases), values))
    return filled[0], filled[1]


def _every_seed_has(values: Table, seeds: Sequence[SeedScores], cases: Sequence[str]) -> Mask:
    """Whether each seed that scored a label of a case has a value for it, (labels, cases); values as filled."""
    everywhere = [np.ones(seed.parts.shape[:2]) for seed in seeds]
    tables = [every if seed.is_scored is None else seed.is_scored * every for seed, every in zip(seeds, everywhere)]
    is_scored = np.nan_to_num(_by_case(seeds, tables, cases)) > 0
    return np.all(~np.isnan(values) | ~is_scored, axis=-1)


def _paired_values(
    ours: Sequence[SeedScores], theirs: Sequence[SeedScores], cases: Sequence[str]
) -> tuple[Table, Table]:
    """The filled values of both runs by (label, case, seed); NaN where a seed of either run has none.

    A label that a seed misses has no distance, and the hardest cases are missed first: by the mean over the seeds that
    have one, a run would gain by missing a label.
    """
    first, second = _filled_values(ours, theirs, cases)
    counts = (_every_seed_has(first, ours, cases) & _every_seed_has(second, theirs, cases))[..., np.newaxis]
    return np.where(counts, first, math.nan), np.where(counts, second, math.nan)


def _label_differences(
    ours: Sequence[SeedScores], theirs: Sequence[SeedScores], cases: Sequence[str], weights: Sequence[Table]
) -> Iterator[Table]:
    """For each label the differences of the runs' means over seeds, (R, cases); one at a time, for the memory."""
    for first, second in zip(*_paired_values(ours, theirs, cases)):
        yield _seed_means(first, weights[0]) - _seed_means(second, weights[1])


def _seed_means(values: Table, weights: Table) -> Table:
    """The mean over the seeds of each case in each resample, (cases, seeds) and (R, seeds) -> (R, cases)."""
    known = ~np.isnan(values)
    return ratio(weights @ np.nan_to_num(values).T, weights @ known.T.astype(np.float64))


def paired_differences(ours: Sequence[SeedScores], theirs: Sequence[SeedScores]) -> dict[str, float]:
    """The first run's value minus the second's, for each case that both runs were scored on.

    A value is the mean over the seeds, and a difference the mean over the labels of which every seed of both has a
    value, that of `SeedScores.where_absent` included; NaN where there is none.
    """
    common = _common_cases(ours, theirs)
    once = [np.ones((1, len(seeds))) for seeds in (ours, theirs)]
    by_label = [differences[0] for differences in _label_differences(ours, theirs, common, once)]
    means = known_mean(np.stack(by_label, axis=-1), np.ones(len(by_label)))
    return {case: round(float(value), DIGITS) for case, value in zip(common, means)}


def cases_left_out(ours: Sequence[SeedScores], theirs: Sequence[SeedScores]) -> list[str]:
    """The cases that are in no difference because a seed has no value, though others of both runs have one."""
    common = _common_cases(ours, theirs)
    filled, paired = _filled_values(ours, theirs, common), _paired_values(ours, theirs, common)
    some, every = (_in_both(*values) for values in (filled, paired))
    return [case for case, is_left_out in zip(common, some & ~every) if is_left_out]


def _in_both(first: Table, second: Table) -> Mask:
    """Whether some seed of each run has a value for a label that both have, (labels, cases, seeds) -> (cases,)."""
    has_first, has_second = (np.any(~np.isnan(values), axis=-1) for values in (first, second))
    is_in_both: Mask = np.any(has_first & has_second, axis=0)
    return is_in_both


def _common_cases(ours: Sequence[SeedScores], theirs: Sequence[SeedScores]) -> list[str]:
    theirs_too = _all_cases(theirs)
    return [case for case in _all_cases(ours) if case in theirs_too]


def _all_cases(seeds: Sequence[SeedScores]) -> dict[str, None]:
    return dict.fromkeys(case for seed in seeds for case in seed.cases)
