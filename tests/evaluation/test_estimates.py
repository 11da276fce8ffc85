"""Every figure has an interval: that of recomputing the figure itself on drawn patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_ext.evaluation.bootstrap import Interval
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.metrics import DICE, METRICS
from nnunet_ext.evaluation.scored_labels import ScoredLabels
from nnunet_ext.evaluation.scores_table import case_scores
from nnunet_ext.evaluation.scoring import Options, Result

RESAMPLES = 3000
FIGURES = {metric.name for metric in METRICS if metric.has_figure}
MEANS = {metric.name for metric in METRICS if metric.mean}


def made_result(number=24, seed=0, alike=1, **more):
    """Random scores of two labels; some cases lack the second, and none has a third. `alike` in a row are the same."""
    rng = np.random.default_rng(seed)
    rows = []
    for label, share in (("organ", 1.0), ("lesion", 0.6), ("absent", 0.0)):
        for first in range(0, number, alike):
            there = bool(rng.random() < share)
            reference, predicted = rng.integers(0, 6, 2) * there
            parts = {
                "lesions_recall": (rng.integers(0, reference + 1), reference),
                "lesions_precision": (rng.integers(0, predicted + 1), predicted),
                "aggregated_dice": np.sort(rng.uniform(1, 100, 2)) * there,
            }
            for metric in METRICS:
                if metric.compute is not None:
                    plain = (rng.uniform(0.1, 1) * there, float(there))
                    values = parts.get(metric.name, plain)
                    rows += [(f"case_{first + place}", label, metric.name, *values) for place in range(alike)]
    labels = ScoredLabels({"organ": (1,), "lesion": (2,), "absent": (3,)}, (), (), None, ())
    cases = CaseSet("Dataset001_D", "all", {}, dict.fromkeys(f"case_{index}" for index in range(number)))
    everywhere = dict.fromkeys(labels.keys, number)
    return Result(cases, labels, Options(("surface", "nsd", "lesions")), case_scores(rows), everywhere, **more)


def drawn(result, cases):
    """The result on some of its cases, which may come several times."""
    by_case = dict(list(result.scores.groupby("case")))
    names = [f"{case} {index}" for index, case in enumerate(cases)]
    scores = case_scores(
        (name, row.label, row.metric, row.numerator, row.denominator)
        for name, case in zip(names, cases)
        for row in by_case[case].itertuples()
    )
    return replace(result, cases=CaseSet("D", "all", {}, dict.fromkeys(names)), scores=scores, patients=None)


def test_intervals_are_those_of_the_figures_on_drawn_patients():
    cases = [f"case_{index}" for index in range(48)]
    patients = {case: f"p{index // 2}" for index, case in enumerate(cases)}
    # from draws of cases, and not of patients, intervals would be shorter by a third
    result = made_result(len(cases), alike=2, patients=patients, resamples=RESAMPLES)
    assert result.resampling.number_of_patients == 24
    assert set(result.estimates["organ"]) == FIGURES
    assert set(result.means) == MEANS

    rng = np.random.default_rng(5)
    keys = [(label, name) for label in ("organ", "lesion") for name in sorted(FIGURES)]
    values = {key: [] for key in [*keys, *(("mean", name) for name in sorted(MEANS))]}
    for _ in range(200):
        chosen = rng.integers(24, size=24)
        again = drawn(result, [case for pair in chosen for case in cases[2 * pair : 2 * pair + 2]])
        again = replace(again, resamples=0)
        for label, name in values:
            estimates = again.means if label == "mean" else again.estimates[label]
            values[label, name].append(estimates[name].value)
    for (label, name), sample in values.items():
        estimate = (result.means if label == "mean" else result.estimates[label])[name]
        low, high = np.nanquantile(sample, [0.025, 0.975])
        found = (estimate.interval.low, estimate.interval.high)
        assert found == pytest.approx((low, high), abs=0.15 * (high - low)), (label, name)
        assert estimate.interval.low < estimate.value < estimate.interval.high


def test_a_label_that_no_case_has_has_no_interval_and_no_part_in_the_means():
    result = made_result(resamples=200)
    assert {one.interval for one in result.estimates["absent"].values()} == {None}
    labels = ScoredLabels({"organ": (1,), "lesion": (2,)}, (), (), None, ())
    without = made_result(resamples=200)
    for name, estimate in replace(without, labels=labels).means.items():
        low, high = result.means[name].interval.low, result.means[name].interval.high
        # sums of more labels are added up in another order
        assert (estimate.interval.low, estimate.interval.high) == pytest.approx((low, high))


def test_without_patients_every_case_is_one():
    assert made_result(resamples=10).resampling.number_of_patients == 24


def test_only_what_was_asked_for_has_figures():
    found = replace(made_result(resamples=10), options=Options())
    assert set(found.estimates["organ"]) == {"dice", "aggregated_dice"}


def test_copies_of_one_case_have_intervals_of_no_width():
    result = drawn(made_result(resamples=100), ["case_1"] * 5)
    estimate = result.estimates["organ"][DICE.name]
    assert estimate.interval == Interval(pytest.approx(estimate.value), pytest.approx(estimate.value))


def test_the_same_request_gives_the_same_intervals():
    first, again = (made_result(resamples=50).estimates["organ"] for _ in range(2))
    assert first == again
