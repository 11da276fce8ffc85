"""Which instances are found and which are right: worked rows of voxels, empty sides, and what always holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from nnunet_ext.evaluation.lesions import DetectionCounts, count_lesions
from nnunet_ext.evaluation.metrics import LESIONS_F1, LESIONS_PRECISION, LESIONS_RECALL


def row(text: str) -> np.ndarray:
    """A row of voxels: # is inside."""
    return np.array([letter == "#" for letter in text]).reshape(1, 1, -1)


def numbers(text: str) -> np.ndarray:
    return np.array([int(letter) for letter in text]).reshape(1, 1, -1)


def rates(*cases):
    """Recall, precision and F1 of the counts of some cases."""
    sums = np.sum([[[one.found, one.reference], [one.right, one.predicted]] for one in cases], axis=0, dtype=float)
    figures = [LESIONS_RECALL.aggregate(sums), LESIONS_PRECISION.aggregate(sums[1:]), LESIONS_F1.aggregate(sums)]
    return [float(figure) for figure in figures]


def test_instances_on_each_side_are_counted():
    #                       two found, one missed   two right, one wrong
    found = count_lesions(row("##..###..#..."), row("##..#......##"), overlap=0.3)
    assert found == DetectionCounts(reference=3, found=2, predicted=3, right=2)
    recall, precision, f1 = rates(found)
    assert recall == pytest.approx(2 / 3)
    assert precision == pytest.approx(2 / 3)
    assert f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize(("overlap", "expected"), [(0.1, 1), (0.100001, 0)])
def test_exactly_the_overlap_is_enough(overlap, expected):
    ten = row("##########.")
    assert count_lesions(ten, row("#.........."), overlap=overlap).found == expected
    assert count_lesions(row("#.........."), ten, overlap=overlap).right == expected


def test_a_tenth_is_the_overlap_if_none_is_given():
    assert count_lesions(row("#" * 10), row("#" + "." * 9)).found == 1
    assert count_lesions(row("#" * 11), row("#" + "." * 10)).found == 0


def test_one_prediction_over_two_instances_finds_both():
    found = count_lesions(row("###.###"), row("#######"))
    assert found == DetectionCounts(reference=2, found=2, predicted=1, right=1)


def test_instances_that_touch_are_told_apart_by_their_map():
    lesions, predicted = row("####."), row("##...")
    assert count_lesions(lesions, predicted) == DetectionCounts(1, 1, 1, 1)
    assert count_lesions(lesions, predicted, instances=numbers("77990")) == DetectionCounts(2, 1, 1, 1)


def test_parts_of_one_instance_are_one_by_their_map():
    assert count_lesions(row("#.#"), row("#.."), instances=numbers("404")) == DetectionCounts(1, 1, 1, 1)


def test_voxels_that_touch_at_a_corner_are_one_instance():
    corner = np.zeros((2, 2, 2), bool)
    corner[0, 0, 0] = corner[1, 1, 1] = True
    assert count_lesions(corner, corner) == DetectionCounts(1, 1, 1, 1)


def test_ignored_voxels_count_on_neither_side():
    #           the first prediction is ignored, of the second one voxel of two, which is right
    ignored = row("##..#..")
    assert count_lesions(row(".....##"), row("##..##."), ignored=ignored) == DetectionCounts(1, 1, 1, 1)
    # without, one voxel of ten is right; the nine others are ignored
    ten, one = row("##########"), row("#.........")
    assert count_lesions(one, ten, overlap=0.5).right == 0
    assert count_lesions(one, ten, ignored=~one, overlap=0.5).right == 1


def test_a_prediction_that_ignored_voxels_divide_stays_one_instance():
    assert count_lesions(row("#..."), row("####"), ignored=row(".##.")) == DetectionCounts(1, 1, 1, 1)


def test_rates_of_empty_sides():
    assert all(map(math.isnan, rates(DetectionCounts())))
    missed = count_lesions(row("##.."), row("...."))
    assert missed == DetectionCounts(reference=1)
    assert rates(missed) == pytest.approx([0.0, math.nan, 0.0], nan_ok=True, abs=0)
    invented = count_lesions(row("...."), row("##.."))
    assert invented == DetectionCounts(predicted=1)
    assert rates(invented) == pytest.approx([math.nan, 0.0, 0.0], nan_ok=True, abs=0)
    assert rates(count_lesions(row("##.."), row("...#"))) == [0.0, 0.0, 0.0]


def test_cases_are_pooled_by_adding_their_counts():
    recall, precision, f1 = rates(DetectionCounts(4, 3, 2, 2), DetectionCounts(1, 0, 6, 1))
    assert (recall, precision) == (3 / 5, 3 / 8)
    assert f1 == pytest.approx(2 * (3 / 5) * (3 / 8) / (3 / 5 + 3 / 8))


masks = array_shapes(min_dims=3, max_dims=3, max_side=5).flatmap(
    lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape))
)


@settings(max_examples=50)
@given(masks, st.sampled_from([0.1, 0.5, 1.0]))
def test_swapping_the_sides_swaps_recall_and_precision(pair, overlap):
    there = count_lesions(*pair, overlap=overlap)
    back = count_lesions(*pair[::-1], overlap=overlap)
    assert back == DetectionCounts(there.predicted, there.right, there.reference, there.found)
    assert rates(back)[-1] == pytest.approx(rates(there)[-1], nan_ok=True)


@settings(max_examples=50)
@given(masks)
def test_a_perfect_prediction_finds_everything(pair):
    found = count_lesions(pair[0], pair[0], overlap=1.0)
    assert found.found == found.reference == found.predicted == found.right
    assert not pair[0].any() or rates(found)[-1] == 1.0
