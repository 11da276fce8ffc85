"""Resamples draw patients with all their cases; intervals are the percentiles of what they give."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnunet_ext.evaluation.bootstrap import Interval, PatientBootstrap, drawn_counts, percentile_interval, ratio


def bootstrap(patients, resamples=2000, seed=0):
    return PatientBootstrap(patients, np.random.default_rng(seed), resamples=resamples)


def quotient(sums):
    return ratio(sums[..., 0], sums[..., 1])


def width(interval):
    return interval.high - interval.low


def test_every_resample_draws_as_many_as_there_are():
    counts = drawn_counts(7, np.random.default_rng(0), resamples=5000)
    assert counts.shape == (5000, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.1)
    # with replacement: the chance that a value is left out is (6 / 7)^7
    assert (counts == 0).mean() == pytest.approx((6 / 7) ** 7, abs=0.02)


def test_percentiles_are_of_the_values_that_are_defined():
    assert percentile_interval(np.array([*range(101), math.nan], float)) == Interval(
        pytest.approx(2.5), pytest.approx(97.5)
    )
    assert percentile_interval(np.array([math.nan])) is None


def test_a_quotient_by_zero_is_undefined():
    assert ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0])) == pytest.approx([0.5, math.nan], nan_ok=True)


def test_equal_patients_have_an_interval_of_no_width():
    found = bootstrap(list("abcd")).interval(np.array([[3.0, 4.0]] * 4), quotient)
    assert found == Interval(pytest.approx(0.75), pytest.approx(0.75))


def test_interval_is_that_of_drawing_patients_one_by_one():
    rng = np.random.default_rng(1)
    patients = [f"p{number}" for number in rng.integers(12, size=30)]
    values = np.stack([rng.uniform(0, 5, 30), rng.uniform(5, 10, 30)], axis=1)
    found = bootstrap(patients, resamples=4000).interval(values, quotient)

    names, drawn = sorted(set(patients)), []
    for _ in range(4000):
        chosen = rng.choice(names, size=len(names))
        cases = [case for name in chosen for case in range(30) if patients[case] == name]
        drawn.append(values[cases, 0].sum() / values[cases, 1].sum())
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    assert found.low < values[:, 0].sum() / values[:, 1].sum() < found.high


def test_duplicated_cases_widen_the_interval_if_they_are_known_to_be_of_one_patient():
    values = np.stack([np.random.default_rng(2).uniform(0, 1, 25), np.ones(25)], axis=1)
    once = bootstrap([str(case) for case in range(25)]).interval(values, quotient)
    twice = np.concatenate([values, values])
    grouped = bootstrap([str(case) for case in range(25)] * 2).interval(twice, quotient)
    alone = bootstrap([str(case) for case in range(50)]).interval(twice, quotient)
    # copies are no evidence: drawn with their patient they change nothing, drawn by themselves they seem to be
    assert grouped == Interval(pytest.approx(once.low), pytest.approx(once.high))
    assert width(alone) == pytest.approx(width(grouped) / math.sqrt(2), rel=0.15)


def test_resamples_without_the_label_are_left_out():
    values = np.array([[1.0, 1.0], [0.5, 1.0], *[[0.0, 0.0]] * 8])
    found = bootstrap([str(case) for case in range(10)]).interval(values, quotient)
    assert found == Interval(0.5, 1.0)


@pytest.mark.parametrize(
    ("patients", "values"),
    [("aab", [[1, 2], [0, 1], [0, 0]]), ("aaa", [[1, 2], [0, 1], [1, 1]]), ("abc", [[0, 0]] * 3)],
)
def test_fewer_than_two_patients_that_count_have_no_interval(patients, values):
    assert bootstrap(list(patients)).interval(np.array(values, float), quotient) is None


def test_a_seed_decides_the_interval():
    values = np.random.default_rng(0).uniform(1, 2, (10, 2))
    first, again, other = (bootstrap(list("abcdefghij"), seed=seed).interval(values, quotient) for seed in (1, 1, 2))
    assert first == again != other
