"""Means of the scores that are defined."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean


def nanmean(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return fmean(defined) if defined else math.nan


@dataclass(frozen=True)
class Scores:
    """Dice of each case; NaN where neither reference nor prediction has the label."""

    dice: Mapping[str, float]

    @property
    def defined(self) -> list[float]:
        return [value for value in self.dice.values() if not math.isnan(value)]

    @property
    def mean(self) -> float:
        return nanmean(self.dice.values())
