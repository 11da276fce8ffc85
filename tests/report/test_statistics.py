"""Tests, corrections and intervals against hand-worked cases and scipy's documented example."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from nnunet_ext.evaluation.bootstrap import PatientBootstrap
from nnunet_ext.evaluation.intervals import mean_of_quotients, quotient
from nnunet_ext.report.statistics import (
    Resampling,
    SeedRows,
    SeedValues,
    holm,
    paired_differences,
    signed_rank,
)


def rows(values):
    """Rows of a mean over the cases c0, c1, …"""
    table = np.array([[0.0, 0.0] if math.isnan(value) else [value, 1.0] for value in values])
    return SeedRows(tuple(f"c{number}" for number in range(len(values))), table)


def by_label(*columns, cases=None):
    """Values of the cases c0, c1, …, a column for each label."""
    cases = cases or tuple(f"c{number}" for number in range(len(columns[0])))
    return SeedValues(tuple(cases), np.array(columns, dtype=float).T)


def each_a_patient(count):
    return {f"c{number}": f"c{number}" for number in range(count)}


def test_scipys_documented_example_has_its_p_value():
    corn = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    test = signed_rank(corn)
    assert test.exact
    assert test.p == pytest.approx(0.041259765625)


def test_exact_p_is_the_share_of_signs_at_least_as_extreme():
    # ranks 1 … 6, the second is negative: W- = 2
    differences = [0.1, -0.2, 0.3, 0.4, 0.5, 0.6]
    sums = [sum(rank for rank, sign in zip(range(1, 7), signs) if sign) for signs in product((0, 1), repeat=6)]
    share = np.mean([min(value, 21 - value) <= 2 for value in sums])
    assert signed_rank(differences).p == pytest.approx(share)
    assert share == pytest.approx(6 / 64)


def test_equal_cases_are_left_out_and_ties_need_the_normal_approximation():
    differences = [1.0, 1.0, 2.0, 3.0, 4.0, -5.0, 6.0, 7.0, 0.0]
    test = signed_rank(differences)
    assert not test.exact
    # ranks 1.5 1.5 3 4 5 6 7 8, W- = 6; mean 8·9/4, variance 8·9·17/24 less (2³ - 2)/48 for the tie
    z = (6 - 18) / math.sqrt(8 * 9 * 17 / 24 - 6 / 48)
    assert test.p == pytest.approx(math.erfc(-z / math.sqrt(2)))
    assert test == signed_rank(differences[:-1])


@pytest.mark.parametrize("differences", [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0, 0, 0], []])
def test_fewer_than_six_differences_are_not_tested(differences):
    assert signed_rank(differences) is None


def test_six_differences_can_be_significant():
    assert signed_rank([1, 2, 3, 4, 5, 6]).p == pytest.approx(2 / 64)


def test_holm_by_hand():
    # 4 · 0.005; 3 · 0.01; 2 · 0.03; 1 · 0.04 is raised to the one before
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_interval_of_one_seed_is_that_of_the_patient_bootstrap():
    values = [0.9, 0.4, math.nan, 0.7, 0.8, 0.1]
    patients = dict(zip(each_a_patient(6), "aabbcd"))
    estimate = Resampling(patients, resamples=500).estimate([rows(values)], quotient, run=3)
    assert estimate.value == pytest.approx(np.nanmean(values))
    bootstrap = PatientBootstrap(list("aabbcd"), np.random.default_rng(0), resamples=500)
    assert estimate.interval == bootstrap.interval(rows(values).values, quotient)


def test_estimates_repeat_and_depend_on_no_other_run():
    seeds = [rows([0.9, 0.4, 0.7]), rows([0.8, 0.3, 0.9])]
    first = Resampling(each_a_patient(3), resamples=300)
    first.estimate(seeds, quotient, run=0)
    again = Resampling(each_a_patient(3), resamples=300)
    assert first.estimate(seeds, quotient, run=1) == again.estimate(seeds, quotient, run=1)


def test_seeds_that_differ_widen_the_interval():
    resampling = Resampling(each_a_patient(4), resamples=2000)
    one = resampling.estimate([rows([0.5, 0.5, 0.5, 0.5])], quotient, run=0)
    two = resampling.estimate([rows([0.4] * 4), rows([0.6] * 4)], quotient, run=0)
    assert (one.value, two.value) == (pytest.approx(0.5), pytest.approx(0.5))
    assert one.interval.high - one.interval.low == pytest.approx(0)
    # of two seeds a quarter of the resamples draws the lower one twice, a quarter the upper
    assert (two.interval.low, two.interval.high) == (pytest.approx(0.4), pytest.approx(0.6))


def test_mean_over_labels_is_of_the_labels_means():
    table = np.array([[[0.2, 1.0], [0.0, 0.0]], [[0.4, 1.0], [0.9, 1.0]]])
    seed = SeedRows(("c0", "c1"), table)
    estimate = Resampling(each_a_patient(2), resamples=0).estimate([seed], mean_of_quotients, run=0)
    assert estimate.value == pytest.approx((0.3 + 0.9) / 2)
    assert estimate.interval is None


def test_one_patient_gives_no_interval():
    resampling = Resampling({"c0": "p", "c1": "p", "c2": "q"}, resamples=100)
    assert resampling.estimate([rows([0.1, 0.9, math.nan])], quotient, run=0).interval is None


def test_differences_are_of_common_cases_seeds_and_labels_averaged():
    ours = [by_label([0.5, 0.8, math.nan], [0.4, math.nan, 0.3]), by_label([0.7], [0.6], cases=["c0"])]
    theirs = [by_label([0.5, math.nan, 0.1], [0.1, 0.9, 0.2], cases=["c0", "c2", "c1"])]
    found = paired_differences(ours, theirs)
    assert list(found) == ["c0", "c1", "c2"]
    assert found["c0"] == pytest.approx(((0.6 - 0.5) + (0.5 - 0.1)) / 2)
    assert found["c1"] == pytest.approx(0.8 - 0.1)  # the second label only they have
    assert found["c2"] == pytest.approx(0.3 - 0.9)


def test_nothing_in_common_is_no_difference():
    ours, theirs = [by_label([0.5])], [by_label([0.5], cases=["other"])]
    assert paired_differences(ours, theirs) == {}
    resampling = Resampling({"c0": "c0", "other": "other"}, resamples=10)
    assert math.isnan(resampling.mean_difference(ours, theirs, runs=(1, 0)).value)


def test_rounding_makes_no_difference():
    assert paired_differences([by_label([0.1 + 0.2])], [by_label([0.3])]) == {"c0": 0.0}


def test_interval_of_a_mean_difference_is_paired():
    # the runs differ by 0.1 in every case, however much the cases differ
    theirs = np.array([0.1, 0.5, 0.9, 0.3])
    resampling = Resampling(each_a_patient(4), resamples=200)
    estimate = resampling.mean_difference([by_label(theirs + 0.1)], [by_label(theirs)], runs=(1, 0))
    assert estimate.value == pytest.approx(0.1)
    assert (estimate.interval.low, estimate.interval.high) == (pytest.approx(0.1), pytest.approx(0.1))


def test_mean_difference_of_one_seed_is_a_bootstrap_of_the_differences():
    differences = np.array([0.1, -0.2, 0.4, 0.3, 0.0])
    resampling = Resampling(each_a_patient(5), resamples=500)
    estimate = resampling.mean_difference([by_label(differences)], [by_label(np.zeros(5))], runs=(1, 0))
    bootstrap = PatientBootstrap(list("abcde"), np.random.default_rng(0), resamples=500)
    expected = bootstrap.interval(rows(differences).values, quotient)
    assert estimate.value == pytest.approx(differences.mean())
    assert (estimate.interval.low, estimate.interval.high) == pytest.approx((expected.low, expected.high))
