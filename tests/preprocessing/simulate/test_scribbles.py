import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage
from skimage.morphology import skeletonize

from nnunet_ext.preprocessing.simulate.scribbles import (
    Strokes,
    annotated_slices,
    boundary_line,
    displaced,
    draw_class,
    interior_line,
    scribble_map,
    slicing_axis,
    voxels_of,
)

EXACT = Strokes(noise=0.0)
IGNORE = 9


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(radius: int = 12, size: int = 40) -> np.ndarray:
    rows, columns = np.ogrid[:size, :size]
    return (rows - size // 2) ** 2 + (columns - size // 2) ** 2 <= radius**2


def from_edge(region: np.ndarray) -> np.ndarray:
    """For each voxel of a region how many steps to its outside, in which the image's edge does not count."""
    return ndimage.distance_transform_cdt(region, "chessboard") if not region.all() else np.full(region.shape, 99)


def parts(mask: np.ndarray) -> int:
    return ndimage.label(mask, np.ones((3, 3)))[1]


@settings(max_examples=60)
@given(
    labels=arrays(
        np.uint8, array_shapes(min_dims=3, max_dims=3, max_side=7), elements=st.integers(0, 3), fill=st.nothing()
    ),
    thickness=st.integers(1, 4),
    slices=st.floats(0.01, 1),
    components=st.floats(0, 1),
    axis=st.integers(0, 2),
    seed=st.integers(0, 3),
)
def test_without_noise_scribbles_agree_and_miss_no_class(labels, thickness, slices, components, axis, seed):
    strokes = Strokes(noise=0, thickness=thickness, slices=slices, components=components)
    scribbles, drawn = scribble_map(labels, [0, 1, 2], IGNORE, strokes, rng(seed), axis=axis)  # 3 is not to be drawn on
    scribbled = scribbles != IGNORE
    assert (scribbles[scribbled] == labels[scribbled]).all()
    assert (labels[scribbled] != 3).all()
    assert set(np.unique(scribbles)) - {IGNORE} == set(np.unique(labels)) - {3}
    planes, strokes_of = np.moveaxis(labels, axis, 0), np.moveaxis(scribbles, axis, 0)
    for index, (plane, found) in enumerate(zip(planes, strokes_of)):
        expected = set(np.unique(plane)) - {3} if index in drawn else set()
        assert set(np.unique(found)) - {IGNORE} == expected


@settings(max_examples=40)
@given(
    labels=arrays(np.uint8, (2, 6, 7), elements=st.integers(0, 3), fill=st.nothing()),
    noise=st.sampled_from([0.5, 1.0, 3.0, 20.0]),
    seed=st.integers(0, 3),
)
def test_with_noise_every_class_still_has_a_right_voxel_and_others_are_not_touched(labels, noise, seed):
    scribbles, _ = scribble_map(labels, [0, 1, 2], IGNORE, Strokes(noise=noise), rng(seed), axis=0)
    assert (scribbles[labels == 3] == IGNORE).all()
    for plane, found in zip(labels, scribbles):
        for value in set(np.unique(plane)) - {3}:
            assert ((plane == value) & (found == value)).any()


def test_interior_stroke_follows_the_share_of_the_skeleton():
    region = np.zeros((21, 60), bool)
    region[3:18, 5:55] = True
    skeleton = skeletonize(region)
    for share in (0.2, 0.5, 1.0):
        line = interior_line(skeleton, share, rng())
        assert (line <= skeleton).all()
        assert line.sum() == round(share * skeleton.sum())
        assert parts(line) == 1


def test_interior_stroke_of_a_bar_is_away_from_its_boundary():
    region = np.zeros((30, 60), bool)
    region[6:23, 4:56] = True
    middle = draw_class(region, Strokes(interior=0.4, boundary=0, noise=0), rng())
    assert middle.any()
    region_of_ring = disc(15) & ~disc(6)
    ring = draw_class(region_of_ring, Strokes(interior=1, boundary=0, noise=0), rng())
    assert from_edge(region_of_ring)[ring].min() >= 3  # it is 9 voxels wide
    assert parts(ring) == 1


def test_interior_stroke_begins_at_an_end():
    skeleton = np.zeros((3, 30), bool)
    skeleton[1, 2:28] = True
    columns = [np.flatnonzero(interior_line(skeleton, 0.5, rng(seed))[1]) for seed in range(8)]
    assert {(int(found[0]), int(found[-1])) for found in columns} == {(2, 14), (15, 27)}


def test_boundary_stroke_leaves_one_voxel_to_the_boundary_and_is_connected():
    region = disc()
    whole = boundary_line(region, skeletonize(region), 1.0, rng())
    part = boundary_line(region, skeletonize(region), 0.3, rng())
    assert set(from_edge(region)[whole].tolist()) == {2}
    assert (part <= whole).all()
    assert part.sum() == round(0.3 * whole.sum())
    assert parts(part) == 1


def test_edge_of_the_image_is_no_boundary():
    region = np.zeros((20, 20), bool)
    region[:, :12] = True
    line = boundary_line(region, skeletonize(region), 1.0, rng())
    assert set(np.nonzero(line)[1].tolist()) == {10}
    assert not boundary_line(np.ones((20, 20), bool), skeletonize(np.ones((20, 20), bool)), 1.0, rng()).any()


def test_thin_regions_have_no_second_stroke_beside_the_first():
    ring = disc(12) & ~disc(7)
    assert not boundary_line(ring, skeletonize(ring), 1.0, rng()).any()
    assert draw_class(ring, EXACT, rng()).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_smallest_objects_have_a_stroke(shape):
    region = np.zeros((7, 7), bool)
    region[3 : 3 + shape[0], 3 : 3 + shape[1]] = True
    for seed in range(5):
        for noise in (0, 5):
            assert (draw_class(region, Strokes(interior=0.1, noise=noise), rng(seed)) & region).any()


def test_small_components_are_left_out_and_the_largest_never():
    region = np.zeros((12, 40), bool)
    region[1:11, 1:11], region[1:6, 15:20], region[2, 30] = True, True, True  # 100, 25 and 1 voxels
    boxes = (slice(0, 12), slice(15, 25), slice(28, 35))

    def drawn(components: float) -> list[bool]:
        found = draw_class(region, Strokes(noise=0, components=components), rng())
        return [bool(found[:, box].any()) for box in boxes]

    assert drawn(0) == [True, True, True]
    assert drawn(0.25) == [True, True, False]
    assert drawn(0.26) == drawn(1) == [True, False, False]


def test_components_of_one_size_all_have_strokes():
    region = np.eye(9, dtype=bool)
    region[4] = False
    found = draw_class(region, Strokes(noise=0, components=1), rng())
    assert found[:4].any()
    assert found[5:].any()


@pytest.mark.parametrize("thickness", [1, 2, 3, 5])
def test_thickness_is_in_voxels_and_ends_with_the_region(thickness):
    region = np.zeros((31, 80), bool)
    region[5:26, 5:75] = True
    line = Strokes(interior=0.5, boundary=0, noise=0, thickness=thickness)
    heights = draw_class(region, line, rng()).sum(0)
    assert np.median(heights[heights > 0]) == thickness
    narrow = np.zeros((9, 20), bool)
    narrow[4:6, 2:18] = True
    assert (draw_class(narrow, line, rng()) <= narrow).all()


def test_noise_moves_whole_strokes_by_its_standard_deviation():
    stroke = np.zeros((61, 61), bool)
    stroke[30, 25:36] = True
    everywhere = np.ones_like(stroke)
    draws = rng()
    offsets = []
    for _ in range(2000):
        moved = displaced(stroke, everywhere, 3.0, draws)
        rows, columns = np.nonzero(moved)
        assert len(rows) == 11
        assert len(set(rows)) == 1
        offsets.append((rows[0] - 30, columns[0] - 25))
    assert np.abs(np.mean(offsets, axis=0)).max() < 0.3
    assert np.std(offsets, axis=0) == pytest.approx([3.0, 3.0], rel=0.06)


@pytest.mark.parametrize("noise", [0.0, 0.6, 4.0, 30.0])
def test_a_moved_stroke_is_scipys_shift(noise):
    draws = rng()
    for seed in range(20):
        stroke = draws.random((7, 12)) < 0.4
        by = np.rint(rng(seed).normal(0, noise, 2))
        expected = ndimage.shift(stroke, by, order=0)
        everywhere = np.ones_like(stroke)
        moved = displaced(stroke, everywhere, noise, rng(seed))
        assert (moved == (expected if expected.any() else stroke)).all()


def test_voxels_of_slices_are_counted_by_value():
    planes = rng().choice(np.array([0, 2, 3, 300], np.uint16), (5, 6, 7))
    expected = [[np.count_nonzero(plane == value) for value in (0, 3, 300, 4)] for plane in planes]
    assert voxels_of(planes, [0, 3, 300, 4]).tolist() == expected


def test_an_ignore_label_beyond_the_type_of_the_labels_is_kept():
    labels = np.full((1, 9, 9), 255, np.uint8)
    scribbles, _ = scribble_map(labels, [255], 256, Strokes(boundary=0, noise=0), rng(), axis=0)
    assert set(np.unique(scribbles).tolist()) == {255, 256}
    assert scribbles.dtype == np.uint16


def test_stroke_that_would_miss_its_region_stays():
    stroke = np.zeros((9, 9), bool)
    stroke[4, 4] = True
    found = [displaced(stroke, stroke, 3.0, rng(seed)) for seed in range(20)]
    assert all((moved == stroke).all() for moved in found)


def test_voxels_of_several_strokes_go_to_the_class_that_is_there():
    plane = disc().astype(np.uint8) + disc(7)
    strokes = Strokes(noise=3)
    wrong = 0
    for seed in range(10):
        draws = rng(seed)
        annotated_slices(plane[None], [0, 1, 2], strokes, draws)
        of_value = {value: draw_class(plane == value, strokes, draws) for value in (0, 1, 2)}
        scribbles, _ = scribble_map(plane[None], [0, 1, 2], IGNORE, strokes, rng(seed), axis=0)
        for value, stroke in of_value.items():
            assert (scribbles[0][stroke & (plane == value)] == value).all()
        drawn = np.logical_or.reduce(list(of_value.values()))
        assert ((scribbles[0] != IGNORE) == drawn).all()
        wrong += np.count_nonzero((scribbles[0] != plane)[drawn])
    assert wrong > 0


def test_voxels_that_touch_at_corners_are_one_component():
    region = np.eye(12, dtype=bool)
    region[1:3, 9:11] = True  # 4 voxels, less than half of the 12
    found = draw_class(region, Strokes(noise=0, components=0.5), rng())
    assert found.any()
    assert not found[1:3, 9:11].any()


def test_slices_are_spread_evenly():
    planes = np.zeros((20, 3, 3), np.uint8)
    for seed in range(10):
        chosen = annotated_slices(planes, [0], Strokes(slices=0.2), rng(seed))
        assert len(chosen) == 4
        assert set(np.diff(chosen).tolist()) == {5}
    starts = {annotated_slices(planes, [0], Strokes(slices=0.2), rng(seed))[0] for seed in range(60)}
    assert starts == {0, 1, 2, 3, 4}
    assert annotated_slices(planes, [0], Strokes(), rng()) == list(range(20))
    assert len(annotated_slices(planes, [0], Strokes(slices=0.001), rng())) == 1
    assert len(annotated_slices(planes, [0], Strokes(num_slices=7), rng())) == 7
    assert len(annotated_slices(planes, [0], Strokes(num_slices=70), rng())) == 20


def test_class_in_one_slice_only_is_drawn_there():
    planes = np.zeros((30, 4, 4), np.uint8)
    planes[17, 1, 1] = 5
    planes[3:6, 2, 2] = 6
    planes[4, 2, 3] = 6
    for seed in range(10):
        chosen = annotated_slices(planes, [0, 5, 6], Strokes(num_slices=1), rng(seed))
        assert 17 in chosen
        assert set(chosen) & {3, 4, 5}
        assert len(chosen) <= 3


def test_slices_of_other_values_alone_are_not_drawn_in():
    planes = np.full((6, 3, 3), 4, np.uint8)
    assert annotated_slices(planes, [0, 1], Strokes(), rng()) == []
    planes[2, 0, 0] = 1
    assert annotated_slices(planes, [0, 1], Strokes(), rng()) == [2]


def test_strokes_lie_in_slices_across_the_axis():
    labels = np.zeros((8, 9, 10), np.uint8)
    labels[2:6, 2:7, 2:8] = 1
    for axis in range(3):
        scribbles, drawn = scribble_map(labels, [0, 1], IGNORE, Strokes(num_slices=2), rng(), axis=axis)
        across = tuple(other for other in range(3) if other != axis)
        assert np.flatnonzero((scribbles != IGNORE).any(axis=across)).tolist() == drawn
        assert 2 <= len(drawn) <= 3


@pytest.mark.parametrize(
    ("shape", "spacing", "axis"),
    [
        ((9, 120, 125), (10, 1.5, 1.5), 0),
        ((120, 9, 125), (1.5, 10, 1.5), 1),
        ((120, 125, 9), (1, 1, 3), 2),
        ((35, 50, 36), (1, 1.0000001, 1), 0),  # equal but for rounding
        ((1, 50, 36), (999, 1, 1), 0),
        ((1, 50, 36), (1, 2, 1), 0),  # one slice, however thin
        ((50, 36, 1), (1, 2, 1), 2),
    ],
)
def test_slices_are_across_the_largest_spacing(shape, spacing, axis):
    assert slicing_axis(shape, spacing) == axis


def test_a_generator_in_one_state_draws_the_same():
    labels = np.zeros((3, 40, 40), np.uint8)
    labels[:, disc()] = 1
    first, same, other = (scribble_map(labels, [0, 1], IGNORE, Strokes(), rng(seed), axis=0)[0] for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()
