"""Charts hold what the checkpoints logged, in the page's colours, and stay small."""

from __future__ import annotations

import math
import re

import pytest

from nnunet_ext.report.charts import POINTS, Line, draw_chart, draw_charts, draw_strips, mean_curve, run_colour, thinned
from nnunet_ext.report.training import read_training
from support.made_results import write_checkpoint


def test_every_key_with_a_slash_becomes_a_chart_unless_it_never_has_a_value(tmp_path):
    terms = {"loss/mixup": [math.nan, 1.0, 0.5], "other/never": [math.nan, math.nan]}
    training = read_training(write_checkpoint(tmp_path / "fold_0", terms=terms).parent)
    titles = [chart["title"] for chart in draw_charts([[training]])]
    assert titles == ["Loss", "Pseudo Dice", "Learning rate", "loss/mixup"]


def test_several_trainings_are_faint_beside_their_mean(tmp_path):
    trainings = [read_training(write_checkpoint(tmp_path / f"fold_{fold}").parent) for fold in (0, 1)]
    alone = {chart["title"]: str(chart["svg"]) for chart in draw_charts([trainings[:1]])}
    both = {chart["title"]: str(chart["svg"]) for chart in draw_charts([trainings])}
    assert alone["Learning rate"].count("stroke-opacity: 0.25") == 0
    assert both["Learning rate"].count("stroke-opacity: 0.25") == 2


def test_charts_take_their_colours_from_the_page():
    for svg in (draw_chart("Loss", [Line("x", [1.0, math.nan, 2.0], run_colour(1))]), draw_strips("x", [(1, [0.5])])):
        assert "var(--run1)" in svg
        assert "var(--ink)" in svg
        assert not re.search(r"#[0-9a-f]{6}\b", svg)


def test_mean_curve_is_of_the_values_that_there_are():
    mean = mean_curve([[1.0, math.nan, math.nan], [3.0, 5.0]])
    assert mean[:2] == [2.0, 5.0]
    assert math.isnan(mean[2])


def test_long_curves_are_averaged_over_neighbouring_epochs():
    epochs, values = thinned([float(number) for number in range(1000)])
    assert len(epochs) == len(values) <= POINTS
    assert values == pytest.approx(epochs)
    assert values[0] == pytest.approx((0 + 1 + 2 + 3) / 4)
    assert thinned([1.0, 2.0]) == ([0.0, 1.0], [1.0, 2.0])


def test_strips_have_a_point_for_each_case():
    svg = str(draw_strips("Dice", [(0, [0.1, 0.2, 0.3]), (7, [0.5])]))
    # two points of colour 0 more than those of colour 1, which run 7 has too
    assert svg.count("<use") - str(draw_strips("Dice", [(0, [0.1]), (7, [0.5])])).count("<use") == 2
    assert "var(--run1)" in svg
