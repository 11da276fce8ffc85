"""How sure figures are: a bootstrap over patients and seeds, paired between runs. All from this package's own."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from nnunet_ext.evaluation.bootstrap import Resampling, Table, percentile_interval
from nnunet_ext.evaluation.metrics import METRICS, Metric
from nnunet_ext.evaluation.scores_table import labels_with, seed_scores
from nnunet_ext.report.statistics import FEWEST

RESAMPLES = 5000
FEWEST_SEEDS = 3  # trainings that a p needs: one or two hardly show how much trainings differ
METRIC = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float  # NaN where it is undefined
    low: float
    high: float
    p: float = math.nan  # two-sided, of a difference from 0: twice the smaller share of resamples on one side of it
    seeds: tuple[str, ...] = ()  # whose trainings are in it
    by_seed: tuple[float, ...] = ()  # of a difference without an interval, that of each seed
    left_out: int = 0  # labels in cases for which only one of two runs has a distance
    reference: float = math.nan  # of a difference, the figure of the other run in the same pairs

    def divided_by(self, factor: float) -> Estimate:
        """The same in other units."""
        return replace(self, value=self.value / factor, low=self.low / factor, high=self.high / factor)

    def text(self, *, digits: int = 3, is_signed: bool = False) -> str:
        """The figure and its interval in brackets, or that of each seed; empty where it is undefined."""
        form = f"{'+' if is_signed else ''}.{digits}f"
        if math.isnan(self.value):
            return ""
        interval = "" if math.isnan(self.low) else f" [{self.low:{form}}, {self.high:{form}}]"
        seeds = f" ({', '.join(f'{value:{form}}' for value in self.by_seed)})" if self.by_seed else ""
        return f"{self.value:{form}}{interval}{seeds}{f', {self.left_out} left out' if self.left_out else ''}"


def estimate(values: npt.ArrayLike, statistic: object, rng: np.random.Generator) -> Estimate:
    """A statistic of independent values, such as ``np.median``, and its percentile bootstrap interval."""
    sample = np.asarray(values, dtype=np.float64)
    drawn = sample[rng.integers(len(sample), size=(RESAMPLES, len(sample)))]
    interval = percentile_interval(statistic(drawn, axis=1))  # type: ignore[operator]
    assert interval is not None
    return Estimate(float(statistic(sample)), interval.low, interval.high)  # type: ignore[operator]


def figure(scores: pd.DataFrame, metric: str) -> float:
    """A metric of one model: of each label over the cases, then the mean over the labels that have one."""
    labels, cases = labels_with(scores, METRIC[metric]), [*scores.case.unique()]
    if not labels:
        return math.nan
    return float(METRIC[metric].statistic(seed_scores(scores, METRIC[metric], cases, labels).parts.sum(axis=0)))


class Figures:
    """Figures of runs in one scores table.

    Each resample draws as many patients as the runs were scored on, with all their cases, and as many seeds, both with
    replacement. All runs share the draws, and a seed is the same draw of cases for all, so that differences are pairs.
    With fewer than six patients there is no interval and no p: a bootstrap takes three that agree for certain, and they
    agree by chance a quarter of the time. With fewer than three seeds there is an interval and no p.
    """

    def __init__(self, scores: pd.DataFrame) -> None:
        self.scores = scores

    def estimate(self, run: str, test: str, metric: str) -> Estimate:
        """A metric of a run: over a seed's cases, the mean over the labels, the mean over the seeds."""
        rows = self._rows(run, test)
        seeds = _seeds(rows)
        samples = _samples(rows, METRIC[metric], seeds, _patients(rows))
        return _estimate(samples, seeds, _counting(rows, metric))

    def difference(self, ours: str, theirs: str, test: str, metric: str, *, shared: Collection[str] = ()) -> Estimate:
        """A metric of one run minus that of another, over the seeds that both have with the same labels.

        The one model of a run in `shared` is paired with each seed of the other.

        A distance counts where both runs have one. A label that a run misses has none, and the hardest cases are missed
        first, so that a run would else gain by missing them.
        """
        first, second, left_out = self._rows(ours, test), self._rows(theirs, test), 0
        if ours in shared:
            first = _for_each_seed(first, _seeds(second))
        if theirs in shared:
            second = _for_each_seed(second, _seeds(first))
        first, second = _of_common_seeds(first, second, metric)
        if METRIC[metric].better == "lower":
            first, second, left_out = _with_distance_in_both(first, second, metric)
        seeds = _seeds(first)
        patients, counting = _patients(pd.concat([first, second])), _counting(first, metric) & _counting(second, metric)

        def samples(among: tuple[str, ...]) -> tuple[Table, Table]:
            one, other = (_samples(rows, METRIC[metric], among, patients) for rows in (first, second))
            return one - other, other

        difference, other = samples(seeds)
        found = replace(_estimate(difference, seeds, counting), left_out=left_out, reference=float(other[0]))
        if math.isnan(found.low) and len(seeds) > 1:
            found = replace(found, by_seed=tuple(float(samples((seed,))[0][0]) for seed in seeds))
        return found

    def kept_where_gained(
        self,
        ours: Sequence[str],
        theirs: Sequence[str],
        gained: str,
        kept: str,
        metric: str,
        *,
        shared: Collection[str] = (),
    ) -> Estimate:
        """What one curve of runs keeps more than another where as much is gained, over the seeds that all points have.

        See `benchmarks.engine.experiment.TradeOff`. A run in `shared`, such as a common start, has one model, which is
        the same for all seeds.
        """
        rows = {(run, test): self._rows(run, test) for run in (*ours, *theirs) for test in (gained, kept)}
        tuned = [{*_seeds(found)} for (run, _), found in rows.items() if run not in shared]
        seeds = tuple(sorted(set.intersection(*tuned))) if tuned else ()
        rows = {key: found if key[0] in shared else found[found.seed.isin(seeds)] for key, found in rows.items()}
        patients = _patients(pd.concat(rows.values()))
        counting = set.intersection(*(_counting(found, metric) for found in rows.values()))
        samples = {key: _samples(found, METRIC[metric], _seeds(found), patients) for key, found in rows.items()}
        first, second = (
            np.array([[samples[run, test] for run in curve] for test in (gained, kept)]) for curve in (ours, theirs)
        )
        level = np.minimum(first[0, -1], second[0, -1])
        best, other = (most_kept(curve[0], curve[1], level) for curve in (first, second))
        return replace(_estimate(best - other, seeds, counting), reference=float(other[0]))

    def _rows(self, run: str, test: str) -> pd.DataFrame:
        # rows of no case are of curves
        return self.scores[(self.scores.run == run) & (self.scores.dataset == test) & (self.scores.case != "")]


def most_kept(gained: Table, kept: Table, level: Table) -> Table:
    """The highest value of `kept` on a curve where `gained` is at least `level`; NaN where it nowhere is.

    Args:
        gained: of the points of the curve, (points, N), straight lines between them.
        kept: of the same points, (points, N).
        level: (N,).
    """
    found = np.where(gained >= level, kept, -np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (level - gained[:-1]) / np.diff(gained, axis=0)
    crossing = np.where((share >= 0) & (share <= 1), kept[:-1] + share * np.diff(kept, axis=0), -np.inf)
    best = np.concatenate([found, crossing]).max(axis=0)
    is_known = ~np.isnan(gained).any(axis=0) & ~np.isnan(kept).any(axis=0) & np.isfinite(best)
    return np.where(is_known, best, np.nan)


def _seeds(rows: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(rows.seed.unique()))


def _patients(rows: pd.DataFrame) -> dict[str, str]:
    """The patient of each case, in the order of the patients."""
    ordered = rows[["case", "patient"]].drop_duplicates().sort_values(["patient", "case"])
    return dict(zip(ordered.case, ordered.patient))


def _samples(rows: pd.DataFrame, metric: Metric, seeds: tuple[str, ...], patients: Mapping[str, str]) -> Table:
    """The figure of a run itself, then of each resample, (1 + RESAMPLES,)."""
    labels = labels_with(rows, metric)
    if not (seeds and labels):
        return np.full(1 + RESAMPLES, math.nan)
    tables = (rows[rows.seed == seed] for seed in seeds)
    scores = [seed_scores(table, metric, [*table.case.unique()], labels) for table in tables]
    return Resampling(patients, resamples=RESAMPLES).samples(scores, metric.statistic)


def _for_each_seed(rows: pd.DataFrame, seeds: tuple[str, ...]) -> pd.DataFrame:
    """The rows of a run's one model under each of the seeds."""
    return pd.concat([rows.assign(seed=seed) for seed in seeds]) if seeds else rows


def _of_common_seeds(first: pd.DataFrame, second: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the seeds for which both runs have the metric of the same labels."""
    one, other = (_labels_by_seed(rows, metric) for rows in (first, second))
    common = {seed for seed, labels in one.items() if labels == other.get(seed)}
    return first[first.seed.isin(common)], second[second.seed.isin(common)]


def _labels_by_seed(rows: pd.DataFrame, metric: str) -> dict[str, set[str]]:
    scored = rows[rows.metric.isin(METRIC[metric].summed)]
    return {str(seed): {*labels} for seed, labels in scored.groupby("seed").label}


def _with_distance_in_both(
    first: pd.DataFrame, second: pd.DataFrame, metric: str
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """The rows of a distance that both runs have, and how many only one has."""
    place = ["seed", "case", "label"]
    known = [rows[(rows.metric == metric) & (rows.denominator > 0)].set_index(place) for rows in (first, second)]
    both = known[0].index.intersection(known[1].index)
    one, other = (rows.loc[both].reset_index() for rows in known)
    return one, other, len(known[0].index.union(known[1].index)) - len(both)


def _counting(rows: pd.DataFrame, metric: str) -> set[str]:
    """The patients with a value."""
    return {*rows.patient[rows.metric.isin(METRIC[metric].summed) & (rows.denominator > 0)]}


def _estimate(samples: Table, seeds: tuple[str, ...], counting: Collection[str]) -> Estimate:
    value, known = float(samples[0]), samples[1:][~np.isnan(samples[1:])]
    interval = percentile_interval(known)
    if math.isnan(value) or interval is None or len(counting) < FEWEST:
        return Estimate(value, math.nan, math.nan, seeds=seeds)
    smaller_side = min(np.count_nonzero(known <= 0), np.count_nonzero(known >= 0))
    p = min(1.0, 2 * (int(smaller_side) + 1) / (len(known) + 1)) if len(seeds) >= FEWEST_SEEDS else math.nan
    return Estimate(value, interval.low, interval.high, p, seeds)
