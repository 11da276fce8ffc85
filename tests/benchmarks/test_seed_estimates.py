import numpy as np
import pytest

from benchmarks.seed_estimates import SeedScores, known_mean, seed_estimates


def seed(**patients):
    """A seed whose only figure is the mean over its patients."""
    values = np.array(list(patients.values()))
    return SeedScores(tuple(patients), lambda weights: {"mean": weights @ values / weights.sum(axis=1)})


def test_every_seed_counts_alike_and_a_resample_draws_seeds():
    found = seed_estimates([seed(a=0.2, b=0.2, c=0.2), seed(d=0.6)])["mean"]
    # two seeds: a resample has both, or one of them twice
    assert found == pytest.approx({"value": 0.4, "low": 0.2, "high": 0.6})


def test_interval_of_one_seed_is_the_bootstraps_over_its_patients():
    values = np.random.default_rng(1).random(20)
    one = seed(**{f"p{number}": value for number, value in enumerate(values)})
    found, deviation = seed_estimates([one])["mean"], values.std() / np.sqrt(20)
    assert found["value"] == pytest.approx(values.mean())
    assert found["low"] == pytest.approx(values.mean() - 1.96 * deviation, abs=0.15 * deviation)
    assert found["high"] == pytest.approx(values.mean() + 1.96 * deviation, abs=0.15 * deviation)


def test_differences_are_of_pairs_and_other_patients_are_refused():
    values = np.random.default_rng(1).random(20)
    one = seed(**{f"p{number}": value for number, value in enumerate(values)})
    better = seed(**{f"p{number}": value + 0.1 for number, value in enumerate(values)})
    assert seed_estimates([better.minus(one)])["mean"] == pytest.approx({"value": 0.1, "low": 0.1, "high": 0.1})
    with pytest.raises(ValueError, match="same patients"):
        better.minus(seed(a=0.5))


def test_figure_without_a_value_is_null_and_does_not_count():
    nothing = SeedScores(("a",), lambda weights: {"mean": np.full(len(weights), np.nan)})
    assert nothing.values() == {"mean": None}
    assert seed_estimates([nothing])["mean"] == {"value": None, "low": None, "high": None}
    assert seed_estimates([nothing, seed(b=0.5)])["mean"]["value"] == 0.5
    assert np.isnan(known_mean(np.array([np.nan, 1.0]), np.array([1.0, 0.0])))
