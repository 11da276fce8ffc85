import numpy as np
import pytest

from benchmarks.resampling import crossed_estimate, estimate


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


def test_two_rows_of_equal_columns_have_the_interval_of_two_coins():
    # the mean of two draws from {0, 1} is 0, 1/2 or 1 with the chances 1/4, 1/2, 1/4
    found = crossed_estimate([[0.0] * 50, [1.0] * 50], np.random.default_rng(0))
    assert (found.value, found.low, found.high, found.count) == (0.5, 0.0, 1.0, 100)


def test_variances_of_rows_and_columns_add_up():
    # a resampled mean of r_i + c_j is a mean of drawn rows plus an independent mean of drawn columns
    rows, columns = np.random.default_rng(1).normal(0, 1, 60), np.random.default_rng(2).normal(0, 2, 80)
    found = crossed_estimate(rows[:, None] + columns, np.random.default_rng(3))
    half_width = 1.96 * np.sqrt(rows.var() / len(rows) + columns.var() / len(columns))
    assert found.value == pytest.approx(rows.mean() + columns.mean())
    assert found.high - found.low == pytest.approx(2 * half_width, rel=0.08)


def test_one_row_is_resampled_by_its_columns_alone():
    values = np.random.default_rng(4).normal(10, 2, size=400)
    found = crossed_estimate([values], np.random.default_rng(5))
    usual = estimate(values, np.mean, np.random.default_rng(6))
    assert found.value == pytest.approx(usual.value)
    assert (found.low, found.high) == pytest.approx((usual.low, usual.high), abs=0.1 * (usual.high - usual.low))


def test_values_that_are_missing_count_nowhere():
    found = crossed_estimate([[2.0, np.nan], [2.0, 2.0]], np.random.default_rng(0))
    assert (found.value, found.low, found.high, found.count) == (2, 2, 2, 3)
