"""Tables hold each run's figures, and compare on what runs have in common."""

from __future__ import annotations

import math

import pytest

from nnunet_ext.evaluation.bootstrap import Resampling
from nnunet_ext.evaluation.metrics.metric import plain
from nnunet_ext.evaluation.scores_table import case_scores
from nnunet_ext.report.cases import Label
from nnunet_ext.report.runs import Board, Column
from nnunet_ext.report.sources import ScoredCases
from nnunet_ext.report.tables import MEAN, metric_tables


def outcome(dice, **others):
    """Scores of label, case and value; Dice, and numerators with denominators of other metrics."""
    rows = [(case, label, "dice", *plain(value)) for label, by_case in dice.items() for case, value in by_case.items()]
    rows += [
        (case, label, metric, *parts)
        for metric, by_label in others.items()
        for label, by_case in by_label.items()
        for case, parts in by_case.items()
    ]
    cases = dict.fromkeys(case for by_case in dice.values() for case in by_case)
    return ScoredCases("x", case_scores(rows), tuple(Label(name, (1,)) for name in dice), cases, None)


def board(*runs):
    return Board("x", tuple(Column(f"run {number}", number, tuple(seeds)) for number, seeds in enumerate(runs)))


def tables(*runs, patients=None, baseline=0, resamples=50):
    shown = board(*runs)
    cases = {case: case for column in shown.columns for case in column.cases}
    return metric_tables(shown, Resampling(patients or cases, resamples=resamples), baseline=baseline)


def test_mean_over_labels_is_nnunets_foreground_mean():
    (table,) = tables([outcome({"a": {"x": 0.2, "y": math.nan}, "b": {"x": 0.4, "y": 0.8}})])
    assert list(table.rows) == ["a", "b", MEAN]
    (cell,) = table.rows[MEAN]
    assert cell.estimate.value == pytest.approx((0.2 + 0.6) / 2)
    assert (cell.worst, cell.median) == (pytest.approx(0.3), pytest.approx((0.3 + 0.8) / 2))
    (cell,) = table.rows["a"]
    assert (cell.cases, cell.of) == (1, 2)


def test_best_is_the_highest_of_dice_and_the_lowest_of_distances():
    def run(dice, assd):
        return [outcome({"a": {"x": dice}}, assd={"a": {"x": (assd, 1.0)}})]

    first, second = tables(run(0.8, 1.0), run(0.7, 2.0))
    assert [cell.is_best for cell in first.rows["a"]] == [True, False]
    assert [cell.is_best for cell in second.rows["a"]] == [True, False]
    (same, _) = tables(run(0.8, 1.0), run(0.8, 1.0))
    assert not any(cell.is_best for cell in same.rows["a"])


def test_a_run_without_a_label_or_metric_has_an_empty_cell_and_no_comparison():
    one = outcome({"a": {"x": 0.5}, "b": {"x": 0.5}}, assd={"a": {"x": (1.0, 1.0)}})
    dice, assd = tables([one], [outcome({"a": {"x": 0.6}})])
    assert dice.rows["b"][1] is None
    assert [row.label for row in dice.comparisons] == ["a", MEAN]
    assert assd.rows["a"][1] is None
    assert assd.comparisons == ()


def run_with_labels(**values):
    """A run with Dice and aggregated Dice of some labels, each the same in two cases."""
    dice = {label: dict.fromkeys(("x", "y"), value) for label, value in values.items()}
    both = {label: dict.fromkeys(("x", "y"), (100 * value, 100.0)) for label, value in values.items()}
    return outcome(dice, aggregated_dice=both)


def test_means_are_compared_over_the_labels_that_both_runs_have():
    joint, liver_only = run_with_labels(liver=0.9, spleen=0.5), run_with_labels(liver=0.9)
    for table in tables([joint], [liver_only]):
        assert table.is_mixed
        assert not any(cell.is_best for cell in table.rows[MEAN])
        row = table.comparisons[-1]
        assert (row.label, row.labels, row.difference.value) == (MEAN, ("liver",), 0.0)
    for table in tables([joint], [run_with_labels(liver=0.8, spleen=0.4)]):
        assert not table.is_mixed
        assert [cell.is_best for cell in table.rows[MEAN]] == [True, False]
        row = table.comparisons[-1]
        assert (row.labels, row.difference.value) == ((), pytest.approx(-0.1))


def test_a_label_that_one_seed_lacks_is_in_no_difference_of_means():
    joint, liver_only = run_with_labels(liver=0.9, spleen=0.5), run_with_labels(liver=0.7)
    for table in tables([joint, liver_only], [joint]):
        row = table.comparisons[-1]
        assert (row.labels, row.difference.value) == (("liver",), pytest.approx(0.1))


def test_runs_without_a_label_in_common_have_no_difference_of_means():
    one, two = run_with_labels(liver=0.9), run_with_labels(spleen=0.5)
    for table in tables([one], [two]):
        (row,) = table.comparisons
        assert (row.label, row.pairs, row.reason) == (MEAN, 0, "no label that every training of both has")
        assert math.isnan(row.difference.value)


def test_comparison_is_of_common_cases_with_the_chosen_baseline():
    cases = [f"c{number}" for number in range(8)]
    first = outcome({"a": {case: 0.5 + number / 100 for number, case in enumerate(cases)}})
    second = outcome({"a": dict.fromkeys([*cases[1:], "other"], 0.4)})
    (table,) = tables([first], [second], baseline=1)
    (row,) = table.comparisons
    assert (row.run, row.pairs, row.equal) == ("run 0", 7, 0)
    assert row.difference.value == pytest.approx(0.1 + 4 / 100)
    assert row.test.p == pytest.approx(2 / 2**7)
    assert row.corrected is None  # a single test


def test_tests_are_of_patients_where_they_are_given():
    cases = [f"c{number}" for number in range(12)]
    first = outcome({"a": dict.fromkeys(cases, 0.5)})
    second = outcome({"a": {case: 0.6 + number / 100 for number, case in enumerate(cases)}})
    (row,) = tables([first], [second], patients={case: f"p{int(case[1:]) // 2}" for case in cases})[0].comparisons
    assert row.pairs == 12
    assert row.test.p == pytest.approx(2 / 2**6)
    (row,) = tables([first], [second], patients={case: f"p{int(case[1:]) // 3}" for case in cases})[0].comparisons
    assert row.test is None
    assert "4 differ" in row.reason


def test_holm_covers_all_tests_of_a_table():
    cases = [f"c{number}" for number in range(6)]
    baseline = outcome({"a": dict.fromkeys(cases, 0.0)})
    other = outcome({"a": {case: (number + 1) / 10 for number, case in enumerate(cases)}})
    (table,) = tables([baseline], [other], [other])
    assert [row.test.p for row in table.comparisons] == pytest.approx([2 / 64] * 2)
    assert [row.corrected for row in table.comparisons] == pytest.approx([4 / 64] * 2)
    assert table.tests == 2


def test_figures_of_all_cases_are_compared_without_a_test():
    def run(*rows):
        dice = {"a": {f"c{number}": 0.5 for number in range(len(rows))}}
        return [outcome(dice, aggregated_dice={"a": {f"c{number}": row for number, row in enumerate(rows)}})]

    table = tables(run((10.0, 20.0), (0.0, 0.0)), run((30.0, 40.0), (10.0, 10.0), (0.0, 99.0)))[1]
    (row,) = table.comparisons
    # on the first two cases
    assert row.difference.value == pytest.approx(40 / 50 - 10 / 20)
    assert row.pairs == 2
    assert row.test is None
    assert table.rows["a"][1].estimate.value == pytest.approx(40 / 149)


def test_seeds_are_averaged():
    seeds = [outcome({"a": {"x": 0.2, "y": 0.4}}), outcome({"a": {"x": 0.6, "y": 0.8}})]
    (table,) = tables(seeds)
    (cell,) = table.rows["a"]
    assert cell.estimate.value == pytest.approx(0.5)
    assert (cell.worst, cell.cases) == (pytest.approx(0.4), 2)


def test_cases_that_a_seed_missed_are_counted_as_left_out_of_the_difference():
    def run(*distances):
        dice = {"a": dict.fromkeys(("x", "y"), 0.5)}
        return [outcome(dice, assd={"a": {"x": (x, float(x > 0)), "y": (3.0, 1.0)}}) for x in distances]

    (row,) = tables(run(5.0, 0.0, 0.0), run(6.0, 60.0, 60.0))[1].comparisons
    assert (row.pairs, row.left_out, row.difference.value) == (1, 1, 0.0)
    (row,) = tables(run(5.0), run(0.0))[1].comparisons
    assert (row.pairs, row.left_out) == (1, 0)  # as with any run of one training


def test_a_label_that_a_seed_always_missed_is_not_compared():
    def run(distance):
        return outcome({"a": {"x": 0.5}}, assd={"a": {"x": (distance, float(distance > 0))}})

    (row,) = tables([run(5.0), run(0.0)], [run(6.0)])[1].comparisons
    assert (row.pairs, row.left_out, row.test) == (0, 1, None)
    assert row.reason == "no case in which every seed has a value"
