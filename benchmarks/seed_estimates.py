"""How sure figures of trainings with several seeds are: means over the seeds, intervals over seeds and patients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.resampling import RESAMPLES
from nnunet_ext.evaluation.bootstrap import drawn_counts, percentile_interval, ratio

Samples = npt.NDArray[np.float64]
"""A figure of the sample itself, then of each resample, (1 + resamples,)."""

BOOTSTRAP_SEED = 0


@dataclass(frozen=True)
class SeedScores:
    """What one seed's model scored.

    Attributes:
        patients: whom it was scored on, in order.
        measure: every figure by name, from how often each patient counts, (resamples, patients).
    """

    patients: tuple[str, ...]
    measure: Callable[[Samples], Mapping[str, Samples]]

    def minus(self, other: SeedScores) -> SeedScores:
        """The differences from another model on the same patients.

        Raises:
            ValueError: if it was scored on others.
        """
        if other.patients != self.patients:
            raise ValueError("The runs were not scored on the same patients.")

        def difference(weights: Samples) -> dict[str, Samples]:
            ours, theirs = self.measure(weights), other.measure(weights)
            return {name: values - theirs[name] for name, values in ours.items()}

        return SeedScores(self.patients, difference)

    def values(self) -> dict[str, float | None]:
        """Every figure of this seed."""
        found = self.measure(np.ones((1, len(self.patients))))
        return {name: None if math.isnan(samples[0]) else float(samples[0]) for name, samples in found.items()}


def seed_estimates(seeds: Sequence[SeedScores]) -> dict[str, dict[str, float | None]]:
    """Every figure: mean over the seeds, with its 95 % percentile bootstrap interval over seeds and patients.

    A resample draws seeds, and patients of each seed's test set, with replacement. Seeds that test the same patients
    share their draw. With few seeds, the spread between them shows only roughly.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    seed_weights = _sample_and_resamples(len(seeds), rng)
    draws: dict[tuple[str, ...], Samples] = {}
    by_seed = []
    for one in seeds:
        if one.patients not in draws:
            draws[one.patients] = _sample_and_resamples(len(one.patients), rng)
        by_seed.append(one.measure(draws[one.patients]))
    return {
        name: _with_percentiles(known_mean(np.stack([one[name] for one in by_seed], axis=-1), seed_weights))
        for name in by_seed[0]
    }


def known_mean(values: Samples, weights: Samples) -> Samples:
    """The weighted mean over the last axis, of the values that are not NaN; NaN where none counts."""
    known = np.where(np.isnan(values), 0.0, weights)
    return ratio((np.nan_to_num(values) * known).sum(axis=-1), known.sum(axis=-1))


def _sample_and_resamples(size: int, rng: np.random.Generator) -> Samples:
    """How often each of some values counts: once in the first row, as drawn in the others, (1 + resamples, `size`)."""
    return np.concatenate([np.ones((1, size)), drawn_counts(size, rng, resamples=RESAMPLES).astype(np.float64)])


def _with_percentiles(samples: Samples) -> dict[str, float | None]:
    """The first sample with the interval of the others; nulls where there is no value."""
    interval = percentile_interval(samples[1:])
    if math.isnan(samples[0]) or interval is None:
        return {"value": None, "low": None, "high": None}
    return {"value": float(samples[0]), "low": interval.low, "high": interval.high}
