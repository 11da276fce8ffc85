"""Resamples draw patients with all their cases; intervals are the percentiles of what they give."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_ext.evaluation.bootstrap import (
    Interval,
    Resampling,
    SeedScores,
    cases_left_out,
    drawn_counts,
    paired_differences,
    percentile_interval,
    ratio,
)
from nnunet_ext.evaluation.metrics import DICE
from nnunet_ext.evaluation.metrics.metric import plain


def interval(patients, values, resamples=2000):
    """That of a quotient of sums over cases; `values` are numerator and denominator of each."""
    cases = {f"c{number}": str(patient) for number, patient in enumerate(patients)}
    parts = np.array(values, float).reshape(-1, 1, 1, 2)
    estimate = Resampling(cases, resamples=resamples).estimate([SeedScores(tuple(cases), parts)], DICE.statistic)
    return estimate.interval


def width(found):
    return found.high - found.low


def by_label(*columns, cases=None):
    """Scores of the cases c0, c1, …, a column for each label, as one seed."""
    cases = cases or tuple(f"c{number}" for number in range(len(columns[0])))
    parts = [[[plain(value)] for value in row] for row in zip(*columns)]
    return SeedScores(tuple(cases), np.array(parts, dtype=float))


def each_a_patient(count):
    return {f"c{number}": f"c{number}" for number in range(count)}


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
    found = interval("abcd", np.array([[3.0, 4.0]] * 4))
    assert found == Interval(pytest.approx(0.75), pytest.approx(0.75))


def test_interval_is_that_of_drawing_patients_one_by_one():
    rng = np.random.default_rng(1)
    patients = [f"p{number}" for number in rng.integers(12, size=30)]
    values = np.stack([rng.uniform(0, 5, 30), rng.uniform(5, 10, 30)], axis=1)
    found = interval(patients, values, resamples=4000)

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
    once = interval([str(case) for case in range(25)], values)
    twice = np.concatenate([values, values])
    grouped = interval([str(case) for case in range(25)] * 2, twice)
    alone = interval([str(case) for case in range(50)], twice)
    # copies are no evidence: drawn with their patient they change nothing, drawn by themselves they seem to be
    assert grouped == Interval(pytest.approx(once.low), pytest.approx(once.high))
    assert width(alone) == pytest.approx(width(grouped) / math.sqrt(2), rel=0.15)


def test_resamples_without_the_label_are_left_out():
    values = np.array([[1.0, 1.0], [0.5, 1.0], *[[0.0, 0.0]] * 8])
    found = interval([str(case) for case in range(10)], values)
    assert found == Interval(0.5, 1.0)


@pytest.mark.parametrize(
    ("patients", "values"),
    [("aab", [[1, 2], [0, 1], [0, 0]]), ("aaa", [[1, 2], [0, 1], [1, 1]]), ("abc", [[0, 0]] * 3)],
)
def test_fewer_than_two_patients_that_count_have_no_interval(patients, values):
    assert interval(patients, np.array(values, float)) is None


def test_estimates_repeat_and_depend_on_no_other_run():
    seeds = [by_label([0.9, 0.4, 0.7]), by_label([0.8, 0.3, 0.9])]
    first = Resampling(each_a_patient(3), resamples=300)
    first.estimate(seeds, DICE.statistic, run=0)
    again = Resampling(each_a_patient(3), resamples=300)
    assert first.estimate(seeds, DICE.statistic, run=1) == again.estimate(seeds, DICE.statistic, run=1)


def test_figures_of_some_patients_are_drawn_as_if_there_were_no_others():
    rng = np.random.default_rng(0)
    few, many = by_label(rng.random(8)), by_label(rng.random(40))
    alone, beside = (Resampling(each_a_patient(count), resamples=300) for count in (8, 40))
    other, common = by_label(rng.random(8)), replace(many, cases=few.cases, parts=many.parts[:8])
    for found, expected in (
        (one.estimate([few], DICE.statistic) for one in (beside, alone)),
        *((one.mean_difference([few], [theirs], runs=(0, 1)) for one in (beside, alone)) for theirs in (other, common)),
        (one.figure_difference([few], [other], DICE.statistic, runs=(0, 1)) for one in (beside, alone)),
    ):
        assert found.value == pytest.approx(expected.value)
        assert (found.interval.low, found.interval.high) == pytest.approx(
            (expected.interval.low, expected.interval.high)
        )


def test_seeds_that_differ_widen_the_interval():
    resampling = Resampling(each_a_patient(4), resamples=2000)
    one = resampling.estimate([by_label([0.5, 0.5, 0.5, 0.5])], DICE.statistic, run=0)
    two = resampling.estimate([by_label([0.4] * 4), by_label([0.6] * 4)], DICE.statistic, run=0)
    assert (one.value, two.value) == (pytest.approx(0.5), pytest.approx(0.5))
    assert one.interval.high - one.interval.low == pytest.approx(0)
    # of two seeds a quarter of the resamples draws the lower one twice, a quarter the upper
    assert (two.interval.low, two.interval.high) == (pytest.approx(0.4), pytest.approx(0.6))


def test_mean_over_labels_is_of_the_labels_means():
    seed = by_label([0.2, 0.4], [math.nan, 0.9])
    estimate = Resampling(each_a_patient(2), resamples=0).estimate([seed], DICE.statistic, run=0)
    assert estimate.value == pytest.approx((0.3 + 0.9) / 2)
    assert estimate.interval is None


def test_one_patient_gives_no_interval():
    resampling = Resampling({"c0": "p", "c1": "p", "c2": "q"}, resamples=100)
    assert resampling.estimate([by_label([0.1, 0.9, math.nan])], DICE.statistic, run=0).interval is None


def test_differences_are_of_common_cases_seeds_and_labels_averaged():
    ours = [by_label([0.5, 0.8, math.nan], [0.4, math.nan, 0.3]), by_label([0.7], [0.6], cases=["c0"])]
    theirs = [by_label([0.5, math.nan, 0.1], [0.1, 0.9, 0.2], cases=["c0", "c2", "c1"])]
    found = paired_differences(ours, theirs)
    assert list(found) == ["c0", "c1", "c2"]
    assert found["c0"] == pytest.approx(((0.6 - 0.5) + (0.5 - 0.1)) / 2)
    assert found["c1"] == pytest.approx(0.8 - 0.1)  # the second label only they have
    assert found["c2"] == pytest.approx(0.3 - 0.9)


def with_absent(seed, *, value=1.0):
    return replace(seed, where_absent=np.full(seed.parts.shape[:2], value))


def test_a_false_alarm_counts_beside_a_run_that_rightly_finds_nothing():
    rightly = with_absent(by_label([0.9, math.nan, math.nan], [0.8, math.nan, math.nan]))
    alarm = with_absent(by_label([0.9, 0.0, math.nan], [0.8, math.nan, math.nan]))
    assert paired_differences([alarm], [rightly]) == {"c0": 0.0, "c1": -1.0, "c2": pytest.approx(math.nan, nan_ok=True)}
    assert paired_differences([rightly], [alarm])["c1"] == 1.0
    resampling = Resampling(each_a_patient(3), resamples=100)
    assert resampling.mean_difference([alarm], [rightly], runs=(1, 0)).value == pytest.approx(-0.5)
    # a label that a run was not scored on is none that it rightly did not find
    not_scored = replace(rightly, where_absent=np.full((3, 2), math.nan))
    assert math.isnan(paired_differences([alarm], [not_scored])["c1"])


def test_a_false_alarm_counts_in_each_seed_that_has_it():
    nothing, alarm = with_absent(by_label([math.nan])), with_absent(by_label([0.0]))
    rare, usual = [alarm, nothing, nothing, nothing, nothing], [alarm] * 5
    assert paired_differences(usual, rare) == {"c0": pytest.approx(-0.8)}
    # a seed that lacks the case says nothing about it
    elsewhere = replace(nothing, cases=("other",))
    assert paired_differences([alarm, elsewhere], [nothing, elsewhere]) == {
        "c0": -1.0,
        "other": pytest.approx(math.nan, nan_ok=True),
    }


def test_no_run_gains_by_missing_a_label_in_the_seeds_where_it_is_hard():
    missing = [by_label([5.0, 3.0]), by_label([math.nan, 3.0]), by_label([math.nan, 3.0])]
    finding = [by_label([6.0, 4.0]), by_label([60.0, 4.0]), by_label([60.0, 4.0])]
    for ours, theirs, difference in ((missing, finding, -1.0), (finding, missing, 1.0)):
        found = paired_differences(ours, theirs)
        assert math.isnan(found["c0"])
        assert found["c1"] == difference
        assert cases_left_out(ours, theirs) == ["c0"]
        estimate = Resampling(each_a_patient(2), resamples=100).mean_difference(ours, theirs, runs=(1, 0))
        assert estimate.value == pytest.approx(difference)
        assert estimate.interval is None  # of one patient


def test_a_case_is_left_out_only_if_none_of_its_labels_is_left():
    ours = [by_label([5.0], [2.0]), by_label([math.nan], [4.0])]
    theirs = [by_label([6.0], [1.0])]
    assert paired_differences(ours, theirs) == {"c0": 2.0}
    assert cases_left_out(ours, theirs) == []
    # what no seed of a run has is not there to be left out, nor is what only one run was scored on
    assert cases_left_out([by_label([math.nan])], [by_label([6.0]), by_label([math.nan])]) == []
    assert cases_left_out([by_label([5.0]), by_label([math.nan])], [by_label([6.0], cases=["other"])]) == []


def test_a_seed_that_did_not_score_a_label_takes_nothing_away():
    not_scored = replace(by_label([math.nan], [4.0]), is_scored=np.array([[False, True]]))
    ours, theirs = [by_label([5.0], [2.0]), not_scored], [by_label([6.0], [1.0])]
    assert paired_differences(ours, theirs) == {"c0": pytest.approx((-1 + 2) / 2)}


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
    expected = interval("abcde", [(value, 1) for value in differences], resamples=500)
    assert estimate.value == pytest.approx(differences.mean())
    assert (estimate.interval.low, estimate.interval.high) == pytest.approx((expected.low, expected.high))
