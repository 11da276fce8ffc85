import numpy as np
import pytest

from benchmarks.resampling import estimate


def test_equal_values_have_an_interval_of_no_width():
    found = estimate([3.0] * 5, np.median, np.random.default_rng(0))
    assert (found.value, found.low, found.high, found.lower_quartile, found.upper_quartile) == (3, 3, 3, 3, 3)
    assert found.count == 5


def test_interval_of_a_mean_agrees_with_the_normal_approximation():
    values = np.random.default_rng(1).normal(10, 2, size=400)
    found = estimate(values, np.mean, np.random.default_rng(2))
    half_width = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert found.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def test_median_and_quartiles_are_those_of_the_values():
    found = estimate([1, 2, 3, 4, 100], np.median, np.random.default_rng(0))
    assert (found.value, found.lower_quartile, found.upper_quartile) == (3, 2, 4)


def test_same_generator_gives_the_same_interval():
    values = np.arange(20.0)
    first, second = (estimate(values, np.mean, np.random.default_rng(7)) for _ in range(2))
    assert first == second


def test_division_scales_everything_but_the_count():
    found = estimate([2.0, 4.0, 6.0], np.mean, np.random.default_rng(0))
    halved = found.divided_by(2)
    assert halved.value == 2
    assert (halved.low, halved.high) == (found.low / 2, found.high / 2)
    assert (halved.lower_quartile, halved.upper_quartile) == (1.5, 2.5)
    assert halved.count == 3
