"""The metrics that a report can show, each with what a case adds to it and how its figure is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_ext.evaluation.bootstrap import Statistic
from nnunet_ext.evaluation.intervals import f1, quotient

Row = tuple[float, ...]
"""What a case adds to the sums that a figure is computed of; all zeros where it does not count."""


@dataclass(frozen=True)
class Metric:
    """A metric.

    Attributes:
        name: in this package.
        title: on the page.
        statistic: computes a label's figure of sums over the cases.
        of_cases: whether each case has a value of its own, whose mean the figure is; else it is one of all cases.
        has_mean: whether the mean over the labels is shown too.
        larger_is_better: which figure is the best.
        decimals: to show.
    """

    name: str
    title: str
    statistic: Statistic = quotient
    of_cases: bool = True
    has_mean: bool = True
    larger_is_better: bool = True
    decimals: int = 3


DICE = Metric("dice", "Dice")
AGGREGATED = Metric("aggregated_dice", "Aggregated Dice (DSCagg)", of_cases=False)
NSD = Metric("nsd", "Normalized surface Dice (NSD)")
ASSD = Metric("assd", "ASSD in mm", has_mean=False, larger_is_better=False, decimals=2)
HD95 = Metric("hd95", "HD95 in mm", has_mean=False, larger_is_better=False, decimals=2)
RECALL = Metric("recall", "Instance recall", of_cases=False, has_mean=False)
PRECISION = Metric("precision", "Instance precision", of_cases=False, has_mean=False)
F1 = Metric("f1", "Instance F1", f1, of_cases=False, has_mean=False)
METRICS = (DICE, AGGREGATED, NSD, ASSD, HD95, RECALL, PRECISION, F1)


def case_row(value: float | None) -> Row:
    """Of a metric with a value for each case: the value, and that it counts."""
    return (0.0, 0.0) if value is None or math.isnan(value) else (float(value), 1.0)


def case_value(row: Row) -> float:
    """The value of a case whose row that is; NaN where it does not count."""
    return row[0] if row[1] else math.nan


def _of_volumes(volumes: Mapping[str, float]) -> Row:
    return 2 * volumes["both"], volumes["reference"] + volumes["predicted"]


def _counts(*names: str) -> Callable[[Mapping[str, float]], Row]:
    return lambda counts: tuple(float(counts[name]) for name in names)


# of evaluation.json: under which key of a data set each metric's cases are, and what one of them adds
ENTRIES: Mapping[str, tuple[str, Callable[[Any], Row]]] = {
    DICE.name: ("dice", case_row),
    AGGREGATED.name: ("volumes", _of_volumes),
    NSD.name: ("nsd", case_row),
    ASSD.name: ("assd", case_row),
    HD95.name: ("hd95", case_row),
    RECALL.name: ("lesions", _counts("found", "reference")),
    PRECISION.name: ("lesions", _counts("right", "predicted")),
    F1.name: ("lesions", _counts("reference", "found", "predicted", "right")),
}
