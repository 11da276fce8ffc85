"""Agreement of surfaces against worked cases and searches over all pairs of surface voxels."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nnunet_ext.evaluation.surface import SurfaceDistances, surface_dice, surface_distances

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


def nsd_by_counting(one: np.ndarray, other: np.ndarray, spacing: tuple[float, ...], tolerance: float) -> float:
    """From the definition, a voxel at a time: no array has the shape of an image."""

    def surface(values: np.ndarray) -> set[tuple[int, ...]]:
        inside = {tuple(map(int, voxel)) for voxel in zip(*values.nonzero())}
        axes = range(values.ndim)
        steps = [tuple(sign * (axis == moved) for axis in axes) for moved in axes for sign in (-1, 1)]
        return {
            voxel
            for voxel in inside
            if any(tuple(place + by for place, by in zip(voxel, step)) not in inside for step in steps)
        }

    def distance(here: tuple[int, ...], there: tuple[int, ...]) -> float:
        return math.sqrt(sum(((a - b) * size) ** 2 for a, b, size in zip(here, there, spacing)))

    surfaces = surface(one), surface(other)
    near = [
        any(distance(voxel, target) <= tolerance for target in theirs)
        for ours, theirs in (surfaces, surfaces[::-1])
        for voxel in ours
    ]
    return sum(near) / len(near)


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


def irregular_masks(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(2, 9, 12, 14))
    smooth = sum(np.roll(noise, step, axis) for step in (-1, 0, 1) for axis in (1, 2, 3))
    return smooth > 1.5


@pytest.mark.parametrize("seed", range(4))
def test_irregular_masks_with_unequal_spacing_agree_with_all_pairs(seed):
    one, other = irregular_masks(seed)
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
    nsd = surface_dice(one, other, SPACING, tolerance=1.0)
    assert 0 < nsd < 1
    assert surface_dice(np.pad(one, 6), np.pad(other, 6), SPACING, tolerance=1.0) == nsd


def test_a_single_slice_is_measured_in_two_dimensions():
    one, other = mask((8, 9), (slice(0, 5), slice(0, 5))), mask((8, 9), (slice(2, 8), slice(1, 7)))
    expected = by_all_pairs(one, other, SPACING[1:])
    flat = surface_distances(one[None], other[None], (999.0, *SPACING[1:]))
    assert flat == SurfaceDistances(pytest.approx(expected.assd), pytest.approx(expected.hd95))
    assert surface_distances(one, other, SPACING[1:]) == flat
    nsd = nsd_by_counting(one, other, SPACING[1:], 1.0)
    assert surface_dice(one[None], other[None], (999.0, *SPACING[1:]), tolerance=1.0) == pytest.approx(nsd)
    assert 0 < nsd < 1


def test_equal_masks_have_no_distance():
    box = mask((5, 6, 7), (slice(1, 4), slice(1, 5), slice(0, 6)))
    assert surface_distances(box, box, SPACING) == SurfaceDistances(0.0, 0.0)
    assert surface_dice(box, box, SPACING, tolerance=0.0) == 1.0


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
    nsd = nsd_by_counting(volume == 1, flipped, SPACING, 1.0)
    assert surface_dice(volume == 1, flipped, SPACING, tolerance=1.0) == pytest.approx(nsd)


def test_nsd_is_the_share_of_surface_voxels_within_the_tolerance():
    # one voxel against a row of three, 2 mm apart: distances 0 there, 0 2 4 back
    one, other = mask((1, 1, 5), (0, 0, 0)), mask((1, 1, 5), (0, 0, slice(0, 3)))
    for tolerance, near in ((0.0, 2), (1.9, 2), (2.0, 3), (3.9, 3), (4.0, 4), (1e6, 4)):
        assert surface_dice(one, other, (7, 7, 2), tolerance=tolerance) == pytest.approx(near / 4), tolerance


def test_nsd_counts_voxels_and_not_area():
    # of 3 x 3 x 3 voxels all but the inner one are surface; 1 mm further along x, 9 of 26 are 1 mm away on either side,
    # and so is the centre of the face that the other's inner voxel lies behind
    one = mask((5, 5, 5), (slice(1, 4), slice(1, 4), slice(0, 3)))
    other = mask((5, 5, 5), (slice(1, 4), slice(1, 4), slice(1, 4)))
    assert surface_dice(one, other, (9, 9, 1), tolerance=0.5) == pytest.approx(2 * (26 - 9 - 1) / (2 * 26))
    assert surface_dice(one, other, (9, 9, 1), tolerance=1) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_nsd_of_irregular_masks_with_unequal_spacing_is_that_of_counting(seed):
    one, other = irregular_masks(seed)
    found = []
    for tolerance in (0.0, 0.75, 1.4, 2.65, 5.2):  # between the distances that there are
        found.append(surface_dice(one, other, SPACING, tolerance=tolerance))
        assert found[-1] == pytest.approx(nsd_by_counting(one, other, SPACING, tolerance), rel=1e-6)
        assert surface_dice(other, one, SPACING, tolerance=tolerance) == pytest.approx(found[-1])
    assert found == sorted(found)
    assert 0 < found[0] < found[1] < found[-2] <= found[-1]
    assert surface_dice(one, other, SPACING, tolerance=1e6) == 1.0


def test_nsd_depends_on_the_ratio_of_tolerance_and_spacing_alone():
    one, other = irregular_masks(7)
    tenfold = tuple(10 * size for size in SPACING)
    expected = surface_dice(one, other, SPACING, tolerance=1.0)
    assert surface_dice(one, other, tenfold, tolerance=10.0) == expected
    axes = (2, 0, 1)
    turned = tuple(SPACING[axis] for axis in axes)
    assert surface_dice(one.transpose(axes), other.transpose(axes), turned, tolerance=1.0) == expected


@pytest.mark.parametrize("voxels", range(1, 8))
def test_a_tolerance_of_some_voxels_holds_for_a_spacing_in_single_precision(voxels):
    spacing = (1.0, 1.0, float(np.float32(1.2)))  # as NIfTI has it
    one, other = mask((1, 1, 9), (0, 0, 0)), mask((1, 1, 9), (0, 0, voxels))
    assert surface_dice(one, other, spacing, tolerance=voxels * 1.2) == 1.0
    assert surface_dice(one, other, spacing, tolerance=voxels * 1.2 - 0.01) == 0.0


@pytest.mark.parametrize(("one", "other", "expected"), [(False, False, math.nan), (True, False, 0), (False, True, 0)])
def test_nsd_without_a_mask_is_as_dice_and_warns_of_nothing(one, other, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = surface_dice(np.full((3, 4, 5), one), np.full((3, 4, 5), other), SPACING, tolerance=1e6)
    assert found == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_has_the_surface_of_its_mask_whichever_axis_it_lies_across(axis):
    y, x = np.indices((32, 32))
    reference, prediction = (y - 16) ** 2 + (x - 16) ** 2 < 100, (y - 16) ** 2 + (x - 20) ** 2 < 64
    flat = surface_distances(reference, prediction, (1.0, 2.0))
    spacing = np.insert([1.0, 2.0], axis, 5.0)
    volumes = np.expand_dims(reference, axis), np.expand_dims(prediction, axis)
    assert surface_distances(*volumes, spacing) == flat
    assert surface_dice(*volumes, spacing, tolerance=1.0) == surface_dice(
        reference, prediction, (1.0, 2.0), tolerance=1.0
    )
