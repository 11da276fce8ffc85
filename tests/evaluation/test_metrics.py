"""Each metric scores a label in a case by hand-worked numbers, and its figure follows from sums over the cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.evaluation.lesions import DetectionCounts
from nnunet_ext.evaluation.metrics import AGGREGATED_DICE, DICE, GROUPS, LESIONS_F1, METRICS, label_in_case, metrics_of
from nnunet_ext.evaluation.metrics.label_in_case import CaseMaps, LabelInCase
from support.labels_in_cases import label_of_masks

counts = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
overlaps = st.tuples(counts, st.integers(1, 20))


def label_of(only_reference, only_predicted, both, size=1.0):
    """A label with these numbers of voxels in a row."""
    voxels = np.repeat([0, 1, 2], [only_reference, only_predicted, both])[None, None]
    return label_of_masks(voxels != 1, voxels != 0, (1.0, 1.0, size))


def value(metric, labels):
    """A metric's figure of cases; computed from sums of their parts."""
    return float(metric.aggregate(np.array([sum(np.array(metric.compute(label)) for label in labels)])))


def test_voxels_are_counted_without_those_that_are_ignored():
    reference = np.array([[[1, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 0, 0]]], bool)
    prediction = np.array([[[0, 1, 1, 1, 0, 1]], [[0, 0, 0, 0, 0, 0]]], bool)
    ignored = np.array([[[0, 1, 0, 0, 0, 1]], [[0, 0, 0, 0, 0, 0]]], bool)
    all_voxels = label_of_masks(reference, prediction, (3.0, 2.0, 0.5))
    assert (all_voxels.voxels, all_voxels.voxel_size) == (DetectionCounts(3, 2, 4, 2), 3.0)
    assert label_of_masks(reference, prediction, (1, 1, 1), ignored).voxels == DetectionCounts(2, 1, 2, 1)


@pytest.mark.parametrize(
    ("spacing", "size"),
    [((999 * 2.0, 2.0, 0.5), 1.0), ((999.0, 1.0, 1.0), 1.0), ((5.0, 2.0, 0.5), 5.0), ((0.1, 2.0, 0.5), 0.1)],
)
def test_a_2d_image_has_areas_as_nnunet_makes_its_thickness_up_and_a_volume_of_one_slice_has_volumes(spacing, size):
    mask = np.ones((1, 2, 2), bool)
    assert label_of_masks(mask, mask, spacing).voxel_size == pytest.approx(size)


def test_aggregated_dice_of_a_hand_worked_case():
    # 2·(3 + 0 + 0 + 0) / (4 + 6 + 5 + 0 + 0 + 5) with a case that is missed, one predicted for nothing, one of neither
    others = [label_of(5, 0, 0), label_of(0, 5, 0), label_of(0, 0, 0)]
    assert value(AGGREGATED_DICE, [label_of(1, 3, 3), *others]) == 6 / 20
    # in mm³, the first case weighs twice as much: 2·6 / (20 + 10)
    assert value(AGGREGATED_DICE, [label_of(1, 3, 3, 2.0), *others]) == 12 / 30


def test_both_dice_are_undefined_without_the_label_and_0_if_it_is_missed():
    for metric in (DICE, AGGREGATED_DICE):
        assert math.isnan(value(metric, [label_of(0, 0, 0), label_of(0, 0, 0)]))
        assert value(metric, [label_of(3, 0, 0)]) == 0.0


def test_random_masks_agree_with_sums_of_floats():
    rng = np.random.default_rng(3)
    found, above, below = [], np.float64(0), np.float64(0)
    for case in range(20):
        shape = tuple(rng.integers(2, 7, size=3))
        spacing = rng.uniform(0.5, 4.0, size=3)
        reference, prediction, ignored = (rng.random(shape) < p for p in (0.4, 0.3 * (case % 3), 0.2))
        found.append(label_of_masks(reference, prediction, spacing, ignored))
        a, b, weight = reference.astype(float), prediction.astype(float), (~ignored).astype(float)
        volume = spacing[0] * spacing[1] * spacing[2]
        above += 2 * np.einsum("xyz,xyz,xyz", a, b, weight) * volume
        below += np.einsum("xyz,xyz", a + b, weight) * volume
    assert value(AGGREGATED_DICE, found) == pytest.approx(above / below, rel=1e-12)


@given(st.lists(overlaps, min_size=1, max_size=6))
def test_aggregated_dice_lies_among_the_cases_and_depends_on_no_unit(found):
    labels = [label_of(*voxels, size) for voxels, size in found]
    dice = [one for one in (value(DICE, [label]) for label in labels) if not math.isnan(one)]
    aggregated = value(AGGREGATED_DICE, labels)
    assert math.isnan(aggregated) == (not dice)
    if dice:
        assert min(dice) - 1e-9 <= aggregated <= max(dice) + 1e-9
    scaled = [label_of(*voxels, size * 0.7) for voxels, size in found]
    assert value(AGGREGATED_DICE, scaled) == pytest.approx(aggregated, nan_ok=True)


def test_f1_of_many_is_that_of_each():
    # reference, found, predicted, right
    all_counts = [(0, 0, 0, 0), (3, 2, 5, 1), (3, 0, 5, 0), (3, 0, 0, 0), (0, 0, 4, 0), (2, 2, 2, 2), (3, 1, 2, 0)]
    sums = [[[found, reference], [right, predicted]] for reference, found, predicted, right in all_counts]
    expected = [math.nan, 2 * (2 / 3) * (1 / 5) / (2 / 3 + 1 / 5), 0, 0, 0, 1, 0]
    assert LESIONS_F1.aggregate(np.array(sums, float)) == pytest.approx(expected, nan_ok=True)


def test_the_mean_over_labels_leaves_out_those_without_a_figure():
    sums = np.array([[[[1.0, 2.0]], [[0.0, 0.0]], [[3.0, 3.0]]], [[[0.0, 0.0]]] * 3])
    assert DICE.statistic(sums) == pytest.approx([0.75, math.nan], nan_ok=True)
    assert DICE.statistic(sums[:, :1]) == pytest.approx([0.5, math.nan], nan_ok=True)


def test_metrics_have_names_of_their_own_and_dice_is_always_among_them():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert {metric.group for metric in metrics_of(["nsd"])} == {"dice", "nsd"}
    assert metrics_of(GROUPS) == METRICS
    for metric in METRICS:
        assert (metric.compute is None) == bool(metric.sources)
        assert set(metric.summed) <= set(names)


def test_a_label_cut_to_where_it_is_scores_as_in_the_whole_image():
    rng = np.random.default_rng(5)
    maps = [np.zeros((9, 20, 16), np.uint8) for _ in range(2)]
    for one in maps:
        for value in (1, 2, 9):
            corner = rng.integers(0, (5, 12, 10))
            one[tuple(slice(start, start + 4) for start in corner)] = value
        one[4, 15:, 3] = 4  # a line in a single slice
    numbers = (maps[0] > 0) * rng.integers(1, 4, maps[0].shape)
    for key in ((1,), (2,), (4,), (1, 2), (7,)):
        both = [
            LabelInCase(CaseMaps(*maps, (0.5, 1.0, 2.0), (1, 2, 4, 7), 9, numbers, cropped=cropped), key, 0.3, 1.0)
            for cropped in (True, False)
        ]
        assert both[0].reference.size < both[1].reference.size == maps[0].size
        scores = [[repr(one.compute(label)) for one in METRICS if one.compute] for label in both]
        assert scores[0] == scores[1]


def test_pairs_of_values_are_counted_in_pieces_without_ignored_voxels(monkeypatch):
    monkeypatch.setattr(label_in_case, "CHUNK", 7)
    rng = np.random.default_rng(1)
    reference, prediction = (rng.choice([0, 1, 3, 4, 300], (3, 4, 5)).astype(np.uint16) for _ in range(2))
    pairs = CaseMaps(reference, prediction, (1, 1, 1), (1, 3), ignore=4).pairs
    kinds = [lambda x: x == 1, lambda x: x == 3, lambda x: (x != 1) & (x != 3)]
    expected = [[np.sum(row(reference) & column(prediction) & (reference != 4)) for column in kinds] for row in kinds]
    assert pairs.tolist() == expected
