"""How sure a figure is: percentile bootstrap intervals from a generator that is passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import numpy.typing as npt

from nnunet_ext.evaluation.bootstrap import drawn_counts

Statistic = Callable[..., npt.NDArray[np.float64]]
"""A numpy reduction with an argument ``axis``, e.g. ``np.median``."""

RESAMPLES = 5000


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % bootstrap interval and the quartiles of the values behind it."""

    value: float
    low: float
    high: float
    lower_quartile: float
    upper_quartile: float
    count: int

    def as_dict(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)

    def divided_by(self, factor: float) -> Estimate:
        """The same in other units."""
        return replace(
            self,
            value=self.value / factor,
            low=self.low / factor,
            high=self.high / factor,
            lower_quartile=self.lower_quartile / factor,
            upper_quartile=self.upper_quartile / factor,
        )


def estimate(values: npt.ArrayLike, statistic: Statistic, rng: np.random.Generator) -> Estimate:
    """A statistic of independent values and its 95 % percentile bootstrap interval.

    Args:
        values: at least one.
        statistic: what to compute of them.
        rng: draws the resamples.
    """
    sample = np.asarray(values, dtype=np.float64)
    drawn = sample[rng.integers(len(sample), size=(RESAMPLES, len(sample)))]
    low, high = np.percentile(statistic(drawn, axis=1), [2.5, 97.5])
    lower, upper = np.percentile(sample, [25, 75])
    return Estimate(float(statistic(sample, axis=0)), float(low), float(high), float(lower), float(upper), len(sample))


def crossed_estimate(values: npt.ArrayLike, rng: np.random.Generator) -> Estimate:
    """The mean of values that are crossed by two sources of chance, and its 95 % percentile bootstrap interval.

    Every resample draws rows and, independently, columns, each with replacement, and takes the mean where they meet. So
    the interval covers other rows as well as other columns, though with few rows (seeds) only roughly: three rows
    cannot show how far a fourth may lie.

    Args:
        values: (rows, columns), such as seeds and cases; NaN where there is no value, at least one other.
        rng: draws the resamples.
    """
    table = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(table)
    rows, columns = table.shape
    row_counts, column_counts = (drawn_counts(size, rng, resamples=RESAMPLES) for size in (rows, columns))
    sums = ((row_counts @ np.where(known, table, 0.0)) * column_counts).sum(axis=1)
    counts = ((row_counts @ known) * column_counts).sum(axis=1)
    low, high = np.percentile(sums[counts > 0] / counts[counts > 0], [2.5, 97.5])
    lower, upper = np.percentile(table[known], [25, 75])
    return Estimate(float(table[known].mean()), float(low), float(high), float(lower), float(upper), int(known.sum()))
