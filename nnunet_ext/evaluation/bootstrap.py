"""How far a figure depends on the patients that were drawn: percentile bootstrap intervals of figures made of sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEVEL = 0.95

Table = npt.NDArray[np.float64]

Statistic = Callable[[Table], Table]
"""Computes a figure of sums, (..., columns) -> (...), or of several labels' sums, (..., labels, columns) -> (...)."""


@dataclass(frozen=True)
class Interval:
    """An interval at `LEVEL`."""

    low: float
    high: float


def drawn_counts(size: int, rng: np.random.Generator, *, resamples: int) -> npt.NDArray[np.int64]:
    """How often each of some values is drawn in each resample, (resamples, `size`): for figures computed from sums.

    Args:
        size: how many values there are; each resample draws as many, with replacement.
        rng: draws.
        resamples: how many.
    """
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples)


def ratio(numerator: Table, denominator: Table) -> Table:
    """Their quotient, NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full_like(numerator, math.nan), where=denominator > 0)


def percentile_interval(values: Table) -> Interval | None:
    """Between which values the middle `LEVEL` of those lie that are not NaN; None if all are."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(known, [tail, 100 - tail])
    return Interval(float(low), float(high))


class PatientBootstrap:
    """Resamples of patients, drawn once: each draws as many as there are, with replacement and with all their cases.

    Cases of one patient are no independent evidence, so they are drawn together.

    Args:
        patients: of each case, its patient.
        rng: draws the resamples.
        resamples: how many.
    """

    def __init__(self, patients: Sequence[str], rng: np.random.Generator, *, resamples: int) -> None:
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
        self._patients = np.array([numbers[patient] for patient in patients])
        self._drawn: Table = drawn_counts(len(numbers), rng, resamples=resamples).astype(float)

    def interval(self, values: Table, statistic: Statistic) -> Interval | None:
        """The percentile interval of a figure that is computed of sums over the cases.

        Resamples in which the figure is undefined, as no drawn patient has the label, are left out.

        Args:
            values: what each case adds, (cases, ...); zeros where it does not count.
            statistic: computes the figure.

        Returns:
            None if fewer than two patients count: one alone does not show how far others may lie.
        """
        by_patient = np.zeros((self._drawn.shape[1], *values.shape[1:]))
        np.add.at(by_patient, self._patients, values)
        flat = by_patient.reshape(len(by_patient), -1)
        if np.count_nonzero(flat.any(axis=1)) < 2:
            return None
        return percentile_interval(statistic((self._drawn @ flat).reshape(-1, *values.shape[1:])))
