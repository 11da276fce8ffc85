"""Distances between surfaces against worked cases and a search over all pairs of surface voxels."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nnunet_ext.evaluation.surface import SurfaceDistances, surface_distances

SPACING = (5.0, 0.7, 1.3)


def mask(shape: tuple[int, ...], *boxes: tuple[slice | int, ...]) -> np.ndarray:
    values = np.zeros(shape, bool)
    for box in boxes:
        values[box] = True
    return values


def surface_points(values: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Centres of the voxels with a face towards the outside, in mm."""
    padded = np.pad(values, 1)
    inner = np.ones_like(values)
    for axis in range(values.ndim):
        for step in (-1, 1):
            inner &= np.roll(padded, step, axis)[(slice(1, -1),) * values.ndim]
    return np.argwhere(values & ~inner) * np.array(spacing)


def by_all_pairs(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...]) -> SurfaceDistances:
    pairs = cdist(surface_points(one, spacing), surface_points(other, spacing))
    there, back = pairs.min(axis=1), pairs.min(axis=0)
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return SurfaceDistances((there.sum() + back.sum()) / (len(there) + len(back)), hd95)


def test_two_voxels_are_as_far_apart_as_their_centres():
    found = surface_distances(mask((4, 9, 9), (0, 0, 0)), mask((4, 9, 9), (2, 3, 4)), SPACING)
    distance = math.hypot(2 * 5.0, 3 * 0.7, 4 * 1.3)
    assert found.assd == pytest.approx(distance)
    assert found.hd95 == pytest.approx(distance)


def test_parallel_slabs_are_as_far_apart_as_their_slices():
    found = surface_distances(mask((9, 6, 6), (2,)), mask((9, 6, 6), (5,)), SPACING)
    assert found == SurfaceDistances(pytest.approx(15.0), pytest.approx(15.0))


def test_mean_is_over_the_voxels_of_both_surfaces():
    # one voxel against a row of three: distances 0 there, 0 1 2 back
    found = surface_distances(mask((1, 1, 5), (0, 0, 0)), mask((1, 1, 5), (0, 0, slice(0, 3))), (1, 1, 1))
    assert found.assd == pytest.approx((0 + 0 + 1 + 2) / 4)
    assert found.hd95 == pytest.approx(np.percentile([0, 1, 2], 95))


@pytest.mark.parametrize("seed", range(4))
def test_irregular_masks_with_unequal_spacing_agree_with_all_pairs(seed):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, 9, 12, 14))
    smooth = sum(np.roll(noise, step, axis) for step in (-1, 0, 1) for axis in (1, 2, 3))
    one, other = smooth > 1.5
    assert one[:, 0].any()  # touches the image's border
    expected = by_all_pairs(one, other, SPACING)
    found = surface_distances(one, other, SPACING)
    assert found == SurfaceDistances(pytest.approx(expected.assd, rel=1e-5), pytest.approx(expected.hd95, rel=1e-5))
    swapped = surface_distances(other, one, SPACING)
    assert swapped == SurfaceDistances(pytest.approx(found.assd), pytest.approx(found.hd95))


def test_masks_at_the_border_have_their_surface_there():
    whole, hollow = np.ones((5, 6, 7), bool), np.ones((5, 6, 7), bool)
    hollow[2, 3, 3] = False
    expected = by_all_pairs(whole, hollow, SPACING)
    assert expected.assd > 0
    assert surface_distances(whole, hollow, SPACING).assd == pytest.approx(expected.assd)


def test_the_image_around_the_masks_does_not_matter():
    rng = np.random.default_rng(3)
    one, other = rng.random((2, 5, 6, 7)) > 0.7
    near = surface_distances(one, other, SPACING)
    far = surface_distances(np.pad(one, 6), np.pad(other, 6), SPACING)
    assert far == near


def test_a_single_slice_is_measured_in_two_dimensions():
    one, other = mask((8, 9), (slice(0, 5), slice(0, 5))), mask((8, 9), (slice(2, 8), slice(1, 7)))
    expected = by_all_pairs(one, other, SPACING[1:])
    flat = surface_distances(one[None], other[None], (999.0, *SPACING[1:]))
    assert flat == SurfaceDistances(pytest.approx(expected.assd), pytest.approx(expected.hd95))
    assert surface_distances(one, other, SPACING[1:]) == flat


def test_equal_masks_have_no_distance():
    box = mask((5, 6, 7), (slice(1, 4), slice(1, 5), slice(0, 6)))
    assert surface_distances(box, box, SPACING) == SurfaceDistances(0.0, 0.0)


@pytest.mark.parametrize(("one", "other"), [(False, False), (True, False), (False, True)])
def test_without_a_mask_there_is_no_distance_and_no_warning(one, other):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = surface_distances(np.full((3, 4, 5), one), np.full((3, 4, 5), other), SPACING)
    assert math.isnan(found.assd)
    assert math.isnan(found.hd95)


def test_masks_that_are_views_of_larger_arrays_are_taken():
    volume = np.zeros((6, 8, 8), np.int64)
    volume[1:3, 2:5, 2:5] = 1
    flipped = (volume == 1)[::-1, :, ::-1]
    expected = by_all_pairs(volume == 1, flipped, SPACING)
    assert surface_distances(volume == 1, flipped, SPACING).assd == pytest.approx(expected.assd)
