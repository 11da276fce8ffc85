"""Dice of a case is nnU-Net's; aggregated Dice is the quotient of two sums over the cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.evaluation.overlap import Overlap, aggregated_dice, count_overlap

counts = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
overlaps = st.builds(
    lambda parts, size: Overlap(parts[0] + parts[2], parts[1] + parts[2], parts[2], size), counts, st.floats(0.1, 10)
)


def test_voxels_are_counted_without_those_that_are_ignored():
    reference = np.array([[[1, 1, 1, 0, 0, 0]], [[0, 0, 0, 0, 0, 0]]], bool)
    prediction = np.array([[[0, 1, 1, 1, 0, 1]], [[0, 0, 0, 0, 0, 0]]], bool)
    ignored = np.array([[[0, 1, 0, 0, 0, 1]], [[0, 0, 0, 0, 0, 0]]], bool)
    spacing = (3.0, 2.0, 0.5)
    assert count_overlap(reference, prediction, ignored=None, spacing=spacing) == Overlap(3, 4, 2, 3.0)
    assert count_overlap(reference, prediction, ignored=ignored, spacing=spacing) == Overlap(2, 2, 1, 3.0)


def test_a_single_slice_has_areas_as_nnunet_makes_its_thickness_up():
    mask = np.ones((1, 2, 2), bool)
    assert count_overlap(mask, mask, ignored=None, spacing=(999.0, 2.0, 0.5)).voxel_size == 1.0


def test_a_hand_worked_case():
    # 2·(3 + 0 + 0 + 0) / (4 + 6 + 5 + 0 + 0 + 5) with a case that is missed, one predicted for nothing, one of neither
    found = [Overlap(4, 6, 3), Overlap(5, 0, 0), Overlap(0, 5, 0), Overlap(0, 0, 0)]
    assert aggregated_dice(found) == 6 / 20
    # in mm³, the first case weighs twice as much: 2·6 / (20 + 10)
    assert aggregated_dice([Overlap(4, 6, 3, 2.0), *found[1:]]) == 12 / 30


def test_it_is_undefined_if_no_case_has_the_label():
    assert math.isnan(aggregated_dice([Overlap(0, 0, 0), Overlap(0, 0, 0)]))
    assert math.isnan(aggregated_dice([]))
    assert math.isnan(Overlap(0, 0, 0).dice)
    assert aggregated_dice([Overlap(3, 0, 0)]) == Overlap(3, 0, 0).dice == 0.0


def test_random_masks_agree_with_sums_of_floats():
    rng = np.random.default_rng(3)
    found, above, below = [], np.float64(0), np.float64(0)
    for case in range(20):
        shape = tuple(rng.integers(2, 7, size=3))
        spacing = rng.uniform(0.5, 4.0, size=3)
        reference, prediction, ignored = (rng.random(shape) < p for p in (0.4, 0.3 * (case % 3), 0.2))
        found.append(count_overlap(reference, prediction, ignored=ignored, spacing=spacing))
        a, b, weight = reference.astype(float), prediction.astype(float), (~ignored).astype(float)
        volume = spacing[0] * spacing[1] * spacing[2]
        above += 2 * np.einsum("xyz,xyz,xyz", a, b, weight) * volume
        below += np.einsum("xyz,xyz", a + b, weight) * volume
    assert aggregated_dice(found) == pytest.approx(above / below, rel=1e-12)


@given(overlaps)
def test_of_one_case_it_is_the_dice(overlap):
    assert aggregated_dice([overlap]) == pytest.approx(overlap.dice, nan_ok=True)


@given(st.lists(overlaps, min_size=1, max_size=6), st.floats(0.1, 10))
def test_it_lies_among_the_cases_and_depends_on_no_unit(found, factor):
    dice = [overlap.dice for overlap in found if not math.isnan(overlap.dice)]
    value = aggregated_dice(found)
    assert math.isnan(value) == (not dice)
    if dice:
        assert min(dice) - 1e-9 <= value <= max(dice) + 1e-9
    scaled = [Overlap(one.reference, one.predicted, one.both, one.voxel_size * factor) for one in found]
    assert aggregated_dice(scaled) == pytest.approx(value, nan_ok=True)
