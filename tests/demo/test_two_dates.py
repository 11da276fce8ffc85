"""Two dates: reproducible, consistent, and neither the current scan nor the prior is enough alone."""

import numpy as np
import pytest
from scipy import ndimage

from nnunet_ext.demo.phantoms import LESION, LESION_TISSUE, make_geometry
from nnunet_ext.demo.two_dates import (
    changed_contrast,
    deformed,
    draw_changes,
    make_two_dates,
    shrunk,
    with_structures,
)

TOUCHING = np.ones((3, 3, 3))


@pytest.fixture(scope="module")
def many():
    return [make_two_dates(np.random.default_rng(seed), (40, 40, 32)) for seed in range(16)]


def dice(one, other):
    return 2 * np.sum(one & other) / (one.sum() + other.sum())


def test_the_same_seed_gives_the_same_patient_and_another_another():
    first, again, other = (make_two_dates(np.random.default_rng(seed), (40, 36, 32)) for seed in (3, 3, 4))
    for date in ("prior", "current"):
        maps = [getattr(dates, date).tissues.tobytes() for dates in (first, again, other)]
        assert maps[0] == maps[1] != maps[2]


@pytest.mark.parametrize("shape", [(32, 32, 32), (48, 40, 36)])
def test_types_shapes_and_labels(shape):
    dates = make_two_dates(np.random.default_rng(1), shape)
    for geometry in (dates.prior, dates.current):
        labels = dates.labels(geometry)
        assert labels.shape == geometry.tissues.shape == shape
        assert labels.dtype == np.uint8
        assert set(np.unique(labels)) == {0, 1}


def test_half_of_the_structures_are_lesions_at_both_dates(many):
    for dates in many:
        numbers = set(np.unique(dates.prior.lesion_instances)) - {0}
        assert dates.lesions <= numbers
        assert len(dates.lesions) == (len(numbers) + 1) // 2
        assert set(np.unique(dates.prior.lesion_instances[dates.labels(dates.prior) > 0])) == dates.lesions
        assert set(np.unique(dates.current.lesion_instances[dates.labels(dates.current) > 0])) <= dates.lesions
        assert dates.labels(dates.current).any()


def test_the_image_shows_what_the_maps_say_at_both_dates(many):
    for dates in many:
        for geometry in (dates.prior, dates.current):
            assert np.array_equal(geometry.tissues == LESION_TISSUE, geometry.lesion_instances > 0)
            assert np.array_equal(geometry.organs == LESION, geometry.lesion_instances > 0)


def test_some_structures_stay_some_shrink_and_some_vanish_of_both_kinds(many):
    left = {True: [], False: []}
    for dates in many:
        before, after = (
            np.bincount(one.lesion_instances.ravel(), minlength=99) for one in (dates.prior, dates.current)
        )
        for number in range(1, int(dates.prior.lesion_instances.max()) + 1):
            left[number in dates.lesions].append(after[number] / before[number])
    for shares in map(np.array, left.values()):
        assert 0.05 < np.mean(shares == 0) < 0.45
        assert np.mean((shares > 0) & (shares < 0.8)) > 0.25
        assert np.mean(shares >= 0.8) > 0.1


def test_the_current_scan_alone_cannot_tell_and_the_prior_alone_neither_but_both_can(many):
    by_current, by_prior, by_both = [], [], []
    for dates in many:
        bright, prior = dates.current.lesion_instances, dates.labels(dates.prior) > 0
        wanted = dates.labels(dates.current) > 0
        known = [number for number in np.unique(bright) if number and (prior & (bright == number)).any()]
        by_current.append(dice(bright > 0, wanted))  # the best that can be done without knowing the kinds
        by_prior.append(dice(prior, wanted))
        by_both.append(dice(np.isin(bright, known), wanted))
    assert np.mean(by_current) < 0.8
    assert np.mean(by_prior) < 0.7
    assert np.mean(by_both) > 0.97


def test_lesions_and_benign_structures_look_alike_on_the_current_scan(many):
    sizes = {True: [], False: []}
    for dates in many:
        voxels = np.bincount(dates.current.lesion_instances.ravel())
        for number in np.flatnonzero(voxels)[1:]:
            sizes[int(number) in dates.lesions].append(voxels[number])
    assert 0.6 < np.median(sizes[True]) / np.median(sizes[False]) < 1.6
    # they are one tissue, which is rendered without a look at the numbers
    for dates in many:
        assert set(np.unique(dates.current.tissues[dates.current.lesion_instances > 0])) == {LESION_TISSUE}


def test_structures_that_shrink_keep_their_core_in_one_piece_by_hand():
    structure = np.zeros((9, 7, 7), dtype=bool)
    structure[1:8, 2:5, 2:5] = True  # 63 voxels, of which the inner 5 x 1 x 1 are deepest
    core = np.zeros_like(structure)
    core[2:7, 3, 3] = True
    assert np.array_equal(shrunk(structure, 5.5 / 63, (1, 1, 1)), core)
    assert np.array_equal(shrunk(structure, 1.0, (1, 1, 1)), structure)
    assert shrunk(structure, 1e-6, (1, 1, 1)).sum() == 1
    assert ndimage.label(shrunk(structure, 0.5, (1, 1, 1)), structure=TOUCHING)[1] == 1


def test_one_lesion_is_always_left():
    instances = np.zeros((8, 8, 8), dtype=np.uint16)
    instances[1:3, 1:3, 1:3], instances[5:7, 5:7, 5:7] = 1, 2
    fates = []
    for seed in range(60):
        left = draw_changes(np.random.default_rng(seed), instances, frozenset({2}), (1, 1, 1))
        assert (left == 2).any()
        assert set(np.unique(left[left != instances])) <= {0}
        fates.append((left == 1).any())
    assert 0.1 < 1 - np.mean(fates) < 0.45


def test_where_a_structure_was_is_the_tissue_beside_it():
    geometry = make_geometry(np.random.default_rng(0), (40, 40, 32))
    nothing = with_structures(geometry, np.zeros_like(geometry.lesion_instances))
    was = geometry.lesion_instances > 0
    assert not (nothing.tissues[was] == LESION_TISSUE).any()
    assert not (nothing.organs[was] == LESION).any()
    assert np.array_equal(nothing.tissues[~was], geometry.tissues[~was])
    assert np.array_equal(nothing.organs[~was], geometry.organs[~was])
    for number in range(1, int(geometry.lesion_instances.max()) + 1):
        structure = geometry.lesion_instances == number
        around = ndimage.binary_dilation(structure, structure=TOUCHING, iterations=2) & ~was
        assert set(np.unique(nothing.tissues[structure])) <= set(np.unique(geometry.tissues[around]))
    assert (geometry.tissues[was] == LESION_TISSUE).all(), "the given geometry must not change"


def test_the_deformation_is_small_and_moves_all_alike():
    geometry = make_geometry(np.random.default_rng(0), (40, 40, 32))
    same, moved = (deformed(np.random.default_rng(1), geometry, size) for size in (0.0, 1.0))
    for name in ("tissues", "organs", "lesion_instances"):
        assert np.array_equal(getattr(same, name), getattr(geometry, name))
        assert getattr(moved, name).dtype == getattr(geometry, name).dtype
    assert np.array_equal(moved.tissues == LESION_TISSUE, moved.lesion_instances > 0)
    body, after = geometry.tissues > 0, moved.tissues > 0
    assert 0.9 < dice(body, after) < 1
    distance = ndimage.distance_transform_edt(~body, sampling=geometry.spacing)[after]
    assert 0 < distance.max() < 6  # mm: five standard deviations, and a voxel of rounding


def test_another_contrast_keeps_the_order_of_intensities_but_not_their_relations():
    image = np.linspace(0, 280, 50, dtype=np.float32).reshape(2, 5, 5)
    correlations = []
    for seed in range(10):
        result = changed_contrast(np.random.default_rng(seed), image)
        assert result.dtype == np.float32
        assert (np.diff(result.ravel()) > 0).all()
        middle = (result.ravel()[25] - result.min()) / (result.max() - result.min())
        correlations.append(middle)
    assert np.ptp(correlations) > 0.1


def test_a_grid_that_is_too_small_is_refused():
    with pytest.raises(ValueError, match="at least 32"):
        make_two_dates(np.random.default_rng(0), (16, 48, 40))
