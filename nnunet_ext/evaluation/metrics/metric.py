"""What a metric is: how one label of one case is scored, and how a figure over cases is computed from these scores."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_ext.evaluation.bootstrap import Statistic, Table, known_mean, quotient
from nnunet_ext.evaluation.metrics.label_in_case import LabelInCase

Parts = tuple[float, float]
"""Numerator and denominator of a score. A plain value has the denominator 1; an undefined score is 0 / 0."""


def plain(value: float) -> Parts:
    """The parts of a plain value; NaN is undefined."""
    return (0.0, 0.0) if math.isnan(value) else (value, 1.0)


@dataclass(frozen=True)
class Metric:
    """A metric."""

    name: str  # in the scores table
    title: str  # in the table that ``evaluate`` prints
    group: str  # the value of ``--metrics`` that asks for it
    compute: Callable[[LabelInCase], Parts] | None  # scores one label in one case; None if derived from `sources`
    full_title: str = ""  # heading in a report; without, the title
    unit: str = ""  # of its values, such as ``mm``
    sources: tuple[str, ...] = ()  # metrics whose sums `aggregate` takes; without, the metric itself
    aggregate: Statistic = quotient  # computes the figure over cases
    of_cases: bool = True  # whether the figure is the mean of the cases' values, not computed once from all cases
    mean: str = ""  # name of the mean over the labels in evaluation.json; empty if there is none
    where_absent: float = math.nan  # in a pair with a run that finds what is in neither reference nor this prediction
    better: str = "higher"  # which figure is best, ``higher`` or ``lower``
    decimals: int = 3  # to show in a report
    has_figure: bool = True  # over cases; without, it is only a measurement of each case
    parts: tuple[str, str] | None = None  # names of numerator and denominator in evaluation.json, if these are counts
    counted: str = ""  # name, in evaluation.json, of what cases have if they count in the mean
    uncounted: str = ""  # how the cases that do not count are described, with ``{label}`` in it
    rule: str = ""  # how it is computed, for evaluation.json

    @property
    def figure(self) -> str:
        """Name of a label's figure in evaluation.json."""
        return f"{self.name}_mean" if self.of_cases else self.name

    @property
    def summed(self) -> tuple[str, ...]:
        """Names of the metrics whose sums the figure is computed from."""
        return self.sources or (self.name,)

    def heading(self, *, full: bool = False) -> str:
        """The title with its unit."""
        title = self.full_title if full and self.full_title else self.title
        return f"{title} in {self.unit}" if self.unit else title

    def best(self, values: Sequence[float]) -> float:
        return max(values) if self.better == "higher" else min(values)

    def worst(self, values: Sequence[float]) -> float:
        return min(values) if self.better == "higher" else max(values)

    def statistic(self, sums: Table) -> Table:
        """The figure of several labels, (..., labels, metrics, 2) -> (...).

        That of a single label is its own; that of several is the mean of those that are defined.
        """
        figures = self.aggregate(sums)
        return figures[..., 0] if figures.shape[-1] == 1 else known_mean(figures, np.ones(figures.shape))
