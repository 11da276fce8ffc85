"""What a metric is: how one label of one case is scored, and how a figure over cases is computed from these scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nnunet_ext.evaluation.bootstrap import Statistic, Table, quotient, ratio

if TYPE_CHECKING:
    from nnunet_ext.evaluation.metrics.label_in_case import LabelInCase

Parts = tuple[float, float]
"""Numerator and denominator of a score. A plain value has the denominator 1; an undefined score is 0 / 0."""


def plain(value: float) -> Parts:
    """The parts of a plain value; NaN is undefined."""
    return (0.0, 0.0) if math.isnan(value) else (value, 1.0)


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: in the scores table.
        title: in the table that ``evaluate`` prints.
        group: the value of ``--metrics`` that asks for it.
        compute: scores one label in one case; None for a figure that is derived from `sources` alone.
        full_title: heading in a report; without, the title.
        unit: of its values, such as ``mm``.
        sources: names of the metrics whose sums `aggregate` takes; without, the metric itself.
        aggregate: computes the figure over cases.
        of_cases: whether the figure is the mean of the cases' values. Otherwise it is computed once from all cases.
        mean: name of the mean over the labels in evaluation.json; empty if there is none.
        better: which figure is best, ``higher`` or ``lower``.
        decimals: to show in a report.
        has_figure: whether there is a figure over cases at all. Without, it is a measurement of each case.
        parts: names of numerator and denominator in evaluation.json, if these are counts.
        counted: name, in evaluation.json, of what cases have if they count in the mean.
        uncounted: how the cases that do not count are described, with ``{label}`` in it.
        rule: how it is computed, for evaluation.json.
    """

    name: str
    title: str
    group: str
    compute: Callable[[LabelInCase], Parts] | None
    full_title: str = ""
    unit: str = ""
    sources: tuple[str, ...] = ()
    aggregate: Statistic = quotient
    of_cases: bool = True
    mean: str = ""
    better: str = "higher"
    decimals: int = 3
    has_figure: bool = True
    parts: tuple[str, str] | None = None
    counted: str = ""
    uncounted: str = ""
    rule: str = ""

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

    def best(self, values: Any) -> float:
        """The best of some values."""
        return max(values) if self.better == "higher" else min(values)

    def worst(self, values: Any) -> float:
        """The worst of some values."""
        return min(values) if self.better == "higher" else max(values)

    def statistic(self, sums: Table) -> Table:
        """The figure of several labels, (..., labels, metrics, 2) -> (...).

        That of a single label is its own; that of several is the mean of those that are defined.
        """
        figures = self.aggregate(sums)
        if figures.shape[-1] == 1:
            return figures[..., 0]
        known = ~np.isnan(figures)
        return ratio(np.where(known, figures, 0.0).sum(axis=-1), known.sum(axis=-1).astype(np.float64))
