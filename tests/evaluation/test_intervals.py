"""Every figure has an interval: that of recomputing the figure itself on drawn patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunet_ext.evaluation.bootstrap import Interval
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.intervals import f1, with_intervals
from nnunet_ext.evaluation.lesions import DetectionCounts
from nnunet_ext.evaluation.model_evaluation import ScoredLabels
from nnunet_ext.evaluation.overlap import Overlap
from nnunet_ext.evaluation.scoring import Metrics, Result
from nnunet_ext.evaluation.surface import SurfaceDistances

NAN = float("nan")
RESAMPLES = 3000


def made_result(number=24, seed=0):
    """Random scores of two labels; some cases lack the second, and none has a third."""
    rng, more = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    cases = [f"case_{index}" for index in range(number)]
    overlaps, surface, lesions, nsd = {}, {}, {}, {}
    for label, share in (("organ", 1.0), ("lesion", 0.6), ("absent", 0.0)):
        overlaps[label], surface[label], lesions[label], nsd[label] = {}, {}, {}, {}
        for case in cases:
            there = rng.random() < share
            both, ours, theirs = rng.integers(1, 100, 3) * there
            overlaps[label][case] = Overlap(int(both + ours), int(both + theirs), int(both), float(rng.uniform(1, 3)))
            assd, hd95 = rng.uniform(1, 5, 2)
            surface[label][case] = SurfaceDistances(assd, hd95) if there else SurfaceDistances(NAN, NAN)
            nsd[label][case] = float(more.uniform(0.5, 1)) if there else NAN
            reference, predicted = rng.integers(0, 6, 2) * there
            found, right = rng.integers(0, reference + 1), rng.integers(0, predicted + 1)
            lesions[label][case] = DetectionCounts(int(reference), int(found), int(predicted), int(right))
    labels = ScoredLabels({"organ": 1, "lesion": 2, "absent": 3}, (), (), None)
    return Result(
        CaseSet("Dataset001_D", "all", {}, dict.fromkeys(cases)),
        labels,
        overlaps,
        Metrics(surface=True, lesions=True, tolerances=dict.fromkeys(labels.keys, 1.0)),
        surface,
        lesions,
        nsd,
    )


def drawn(result, cases):
    """The result on some of its cases, which may come several times."""
    names = [f"{case} {index}" for index, case in enumerate(cases)]
    chosen = {
        part: {label: dict(zip(names, map(scores.get, cases))) for label, scores in getattr(result, part).items()}
        for part in ("overlaps", "surface", "lesions", "nsd")
    }
    return replace(result, cases=CaseSet("D", "all", {}, dict.fromkeys(names)), intervals=None, **chosen)


FIGURES = {
    "dice_mean": lambda result, label: result.dice[label].mean,
    "aggregated_dice": lambda result, label: result.aggregated_dice(label),
    "assd_mean": lambda result, label: result.mean_distances(label).assd,
    "hd95_mean": lambda result, label: result.mean_distances(label).hd95,
    "nsd_mean": lambda result, label: result.mean_nsd(label),
    "lesions_recall": lambda result, label: result.pooled_lesions(label).recall,
    "lesions_precision": lambda result, label: result.pooled_lesions(label).precision,
    "lesions_f1": lambda result, label: result.pooled_lesions(label).f1,
}
MEANS = {
    "foreground_mean": lambda result: result.foreground_mean,
    "foreground_aggregated_dice": lambda result: result.foreground_aggregated_dice,
}


def test_intervals_are_those_of_the_figures_on_drawn_patients():
    result = made_result()
    cases = list(result.cases.cases)
    patients = {case: f"p{index // 2}" for index, case in enumerate(cases)}
    found = with_intervals(result, patients, resamples=RESAMPLES).intervals
    assert (found.resamples, found.number_of_patients, found.patients) == (RESAMPLES, 12, patients)
    assert set(found.labels["organ"]) == set(FIGURES)
    assert set(found.means) == set(MEANS)

    rng = np.random.default_rng(5)
    values = {name: [] for name in MEANS} | {(label, name): [] for label in ("organ", "lesion") for name in FIGURES}
    for _ in range(1500):
        chosen = rng.integers(12, size=12)
        again = drawn(result, [case for pair in chosen for case in cases[2 * pair : 2 * pair + 2]])
        for name, figure in MEANS.items():
            values[name].append(figure(again))
        for label in ("organ", "lesion"):
            for name, figure in FIGURES.items():
                values[label, name].append(figure(again, label))
    for key, sample in values.items():
        interval = found.means[key] if isinstance(key, str) else found.labels[key[0]][key[1]]
        low, high = np.nanquantile(sample, [0.025, 0.975])
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.1 * (high - low)), key
        estimate = MEANS[key](result) if isinstance(key, str) else FIGURES[key[1]](result, key[0])
        assert interval.low < estimate < interval.high


def test_a_label_that_no_case_has_has_no_interval_and_no_part_in_the_means():
    result = made_result()
    found = with_intervals(result, None, resamples=200).intervals
    assert set(found.labels["absent"].values()) == {None}
    without = replace(result, overlaps={label: result.overlaps[label] for label in ("organ", "lesion")})
    without = replace(without, metrics=Metrics())
    means = with_intervals(without, None, resamples=200).intervals.means
    assert set(means) == set(found.means)
    for name, interval in means.items():
        # sums of more labels are added up in another order
        assert (interval.low, interval.high) == pytest.approx((found.means[name].low, found.means[name].high))


def test_without_patients_every_case_is_one():
    found = with_intervals(made_result(), None, resamples=10).intervals
    assert found.number_of_patients == 24
    assert found.patients["case_3"] == "case_3"


def test_only_what_was_asked_for_has_intervals():
    found = with_intervals(replace(made_result(), metrics=Metrics()), None, resamples=10).intervals
    assert set(found.labels["organ"]) == {"dice_mean", "aggregated_dice"}


def test_copies_of_one_case_have_intervals_of_no_width():
    result = drawn(made_result(), ["case_1"] * 5)
    found = with_intervals(result, None, resamples=100).intervals
    value = result.aggregated_dice("organ")
    assert found.labels["organ"]["aggregated_dice"] == Interval(pytest.approx(value), pytest.approx(value))
    assert value == pytest.approx(result.dice["organ"].mean)


def test_the_same_request_gives_the_same_intervals():
    first, again = (with_intervals(made_result(), None, resamples=50).intervals for _ in range(2))
    assert first == again


def test_f1_of_many_is_that_of_each():
    counts = [(0, 0, 0, 0), (3, 2, 5, 1), (3, 0, 5, 0), (3, 0, 0, 0), (0, 0, 4, 0), (2, 2, 2, 2), (3, 1, 2, 0)]
    assert f1(np.array(counts, float)) == pytest.approx([DetectionCounts(*one).f1 for one in counts], nan_ok=True)
