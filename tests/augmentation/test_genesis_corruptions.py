import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.augmentation.genesis_corruptions import (
    BezierIntensity,
    LocalShuffling,
    Painting,
    bezier_curve,
    box_to_paint,
    boxes_to_shuffle,
    shuffled_places,
)

SHAPES = [(1, 20, 24), (2, 16, 20, 24), (1, 9, 5, 31), (1, 1, 40, 40), (3, 2, 6, 64)]
CORRUPTIONS = [LocalShuffling, BezierIntensity, Painting]


def image(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_shape_type_range_and_the_given_image_stay(corruption, shape):
    given_image = image(shape)
    kept = given_image.clone()
    result = corruption()(image=given_image, segmentation=torch.zeros(1))["image"]
    assert torch.equal(given_image, kept)
    assert result.shape == kept.shape
    assert result.dtype == kept.dtype
    assert not torch.equal(result, kept)
    over = tuple(range(1, kept.ndim))
    assert (result.amin(over) >= kept.amin(over) - 1e-5).all()
    assert (result.amax(over) <= kept.amax(over) + 1e-5).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_apply_draws_nothing(corruption):
    transform, data = corruption(), image((2, 12, 16, 16))
    parameters = transform.get_parameters(image=data)
    before = np.random.get_state()[1].copy()
    first, second = (transform.apply({"image": data}, **parameters)["image"] for _ in range(2))
    assert torch.equal(first, second)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 1, 1), (2, 2, 3), (1, 7, 1, 9), (1, 5, 6)])
def test_patches_of_a_few_voxels_are_no_error(corruption, shape):
    data = image(shape)
    for seed in range(20):
        np.random.seed(seed)
        result = corruption()(image=data)["image"]
        assert result.shape == data.shape
        assert result.isfinite().all()


def test_there_are_ten_thousand_boxes_with_sides_up_to_a_tenth_of_the_patch():
    starts, sides = boxes_to_shuffle((64, 64, 32), np.random.default_rng(0))
    assert starts.shape == sides.shape == (10_000, 3)
    for axis, (length, longest) in enumerate([(64, 6), (64, 6), (32, 3)]):
        found, counts = np.unique(sides[:, axis], return_counts=True)
        assert found.tolist() == list(range(1, longest + 1))
        np.testing.assert_allclose(counts / 10_000, 1 / longest, atol=0.02)
        # they reach the borders, and nowhere is preferred
        assert starts[:, axis].min() == 0
        assert (starts + sides)[:, axis].max() == length
        of_single_voxels = starts[sides[:, axis] == 1, axis]
        assert np.histogram(of_single_voxels, bins=4, range=(0, length))[0] / len(of_single_voxels) == pytest.approx(
            0.25, abs=0.05
        )
    # each axis is drawn for itself
    assert np.abs(np.corrcoef(np.concatenate([sides, starts], axis=1).T) - np.eye(6)).max() < 0.1


@pytest.mark.parametrize("shape", [(64, 64, 32), (128, 128, 128), (1, 200, 200), (9, 120, 100), (256, 192), (40, 40)])
def test_the_boxes_cover_every_patch_as_often(shape):
    rng = np.random.default_rng(0)
    coverages = [boxes_to_shuffle(shape, rng)[1].prod(axis=1).sum() / math.prod(shape) for _ in range(20)]
    assert np.mean(coverages) == pytest.approx(1.869, abs=0.05)


def test_sides_of_less_than_twenty_voxels_are_not_shuffled_along():
    position = torch.arange(19.0 * 60).reshape(1, 19, 60)
    moved = LocalShuffling()(image=position)["image"]
    assert torch.equal(moved // 60, position // 60)
    assert not torch.equal(moved, position)
    assert torch.equal(LocalShuffling()(image=position[:, :, :19])["image"], position[:, :, :19])


@settings(max_examples=30)
@given(st.sampled_from([shape[1:] for shape in SHAPES]), st.integers(0, 2**31))
def test_shuffling_moves_values_less_than_a_tenth_and_channels_together(shape, seed):
    np.random.seed(seed)
    position = torch.arange(float(math.prod(shape))).reshape(1, *shape)
    moved = LocalShuffling()(image=torch.cat([position, 1 + position]))["image"]
    assert torch.equal(moved[1], 1 + moved[0])
    places = torch.stack(torch.unravel_index(moved[0].long(), shape))
    here = torch.stack(torch.unravel_index(position[0].long(), shape))
    for distance, length in zip((places - here).abs().flatten(1).amax(dim=1), shape):
        assert distance <= max(1, length // 10) - 1


@pytest.mark.parametrize(("shape", "share"), [((64, 64, 32), 0.78), ((200, 180), 0.81)])
def test_most_voxels_are_moved(shape, share):
    position = torch.arange(float(math.prod(shape))).reshape(1, *shape)
    moved = LocalShuffling()(image=position)["image"]
    assert (moved != position).float().mean() == pytest.approx(share, abs=0.03)
    # a box takes its values from the image as it was, so that some come twice and others are lost
    assert len(moved.unique()) < 0.9 * math.prod(shape)


def test_a_box_is_shuffled_from_the_image_and_the_last_one_stays():
    shape = (6, 7, 8)
    position = np.arange(math.prod(shape)).reshape(shape)
    first, second = (slice(0, 4), slice(1, 6), slice(2, 5)), (slice(2, 6), slice(3, 7), slice(3, 8))
    starts, sides = np.array([[0, 1, 2], [2, 3, 3]]), np.array([[4, 5, 3], [4, 4, 5]])
    for seed in range(5):
        source = shuffled_places(starts, sides, shape, np.random.default_rng(seed)).reshape(shape)
        # nothing of the first box is left in the second, nor did it take what the first had written
        assert sorted(source[second].ravel()) == sorted(position[second].ravel())
        assert (source[second] != position[second]).mean() > 0.8
        only_first = np.zeros(shape, dtype=bool)
        only_first[first] = True
        only_first[second] = False
        assert set(source[only_first]) <= set(position[first].ravel())
        assert len(set(source[only_first])) == only_first.sum()
        assert (source[only_first] != position[only_first]).mean() > 0.8
        outside = np.ones(shape, dtype=bool)
        outside[first] = outside[second] = False
        assert (source[outside] == position[outside]).all()


def test_all_orders_of_a_box_are_as_likely():
    starts, sides = np.zeros((1, 2), dtype=int), np.array([[1, 3]])
    rng = np.random.default_rng(0)
    drawn = [tuple(shuffled_places(starts, sides, (2, 4), rng)[:3]) for _ in range(1200)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    np.testing.assert_allclose(counts, 200, atol=50)


def test_the_curve_is_the_cubic_of_its_control_points_by_hand():
    # P1 = (.8, .1), P2 = (.2, .3), in the order that they were drawn in
    x, y = bezier_curve(np.array([[0.8, 0.1], [0.2, 0.3]]), 5)
    weights = np.array([[0, 0, 0], [27, 9, 1], [24, 24, 8], [9, 27, 27], [0, 0, 64]]) / 64  # of P1, P2 and (1, 1)
    np.testing.assert_allclose(x, weights @ [0.8, 0.2, 1])
    np.testing.assert_allclose(y, weights @ [0.1, 0.3, 1])


@settings(max_examples=100)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_curves_rise_whatever_the_order_of_their_points(values):
    for coordinate in bezier_curve(np.array(values).reshape(2, 2), 200):
        assert (np.diff(coordinate) >= 0).all()
        assert coordinate[0] == 0
        assert coordinate[-1] == pytest.approx(1)
    # not by being sorted: the curve is that of the formula
    t = np.linspace(0, 1, 200)
    for coordinate, (a, b) in zip(bezier_curve(np.array(values).reshape(2, 2), 200), zip(values[:2], values[2:])):
        np.testing.assert_allclose(coordinate, ((1 - t) * 3 * t * ((1 - t) * a + t * b)) + t**3, atol=1e-12)


def test_control_points_are_uniform_and_each_coordinate_of_each_channel_is_for_itself():
    draws = [BezierIntensity().get_parameters(image=torch.zeros(2, 1, 1))["controls"].ravel() for _ in range(1500)]
    controls = np.array(draws)
    assert controls.shape == (1500, 8)
    for coordinate in controls.T:
        np.testing.assert_allclose(np.histogram(coordinate, bins=4, range=(0, 1))[0] / 1500, 0.25, atol=0.04)
    # sorted ones would go together
    assert np.abs(np.corrcoef(controls.T) - np.eye(8)).max() < 0.1


def test_half_of_the_curves_fall_each_channel_for_itself():
    falls = np.stack([BezierIntensity().get_parameters(image=torch.zeros(2, 1, 1))["falls"] for _ in range(1000)])
    np.testing.assert_allclose(falls.mean(axis=0), 0.5, atol=0.05)
    assert (falls[:, 0] != falls[:, 1]).mean() == pytest.approx(0.5, abs=0.05)


def test_a_channel_is_mapped_by_its_own_curve_within_its_own_range():
    controls = np.array([[[0.8, 0.1], [0.2, 0.3]], [[0.3, 0.9], [0.7, 0.6]]])
    # at t = 1/2 both curves are at x = 1/2
    data = torch.stack([torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[10.0, 20.0, 30.0]])])
    transform = BezierIntensity()
    rising = transform.apply({"image": data}, controls=controls, falls=np.array([False, False]))["image"]
    middles = [3 / 8 * 0.1 + 3 / 8 * 0.3 + 1 / 8, 3 / 8 * 0.9 + 3 / 8 * 0.6 + 1 / 8]
    np.testing.assert_allclose(rising[0, 0], [0, middles[0], 1], atol=1e-3)
    np.testing.assert_allclose(rising[1, 0], [10, 10 + 20 * middles[1], 30], atol=2e-2)
    # a falling one has the same heights from the other end
    falling = transform.apply({"image": data}, controls=controls, falls=np.array([True, False]))["image"]
    np.testing.assert_allclose(falling[0, 0], [1, middles[0], 0], atol=1e-3)
    assert torch.equal(falling[1], rising[1])


@pytest.mark.parametrize("p_invert", [0.0, 1.0])
def test_the_order_of_intensities_is_kept_or_reversed(p_invert):
    data = image((2, 8, 8, 8))
    result = BezierIntensity(p_invert=p_invert)(image=data)["image"]
    sign = 1 if p_invert == 0 else -1
    for channel in range(2):
        in_order = result[channel].flatten()[data[channel].flatten().argsort()]
        assert (sign * in_order.diff() >= -1e-5).all()
        assert result[channel].min() == pytest.approx(data[channel].min().item(), abs=1e-5)
        assert result[channel].max() == pytest.approx(data[channel].max().item(), abs=1e-5)


def test_a_constant_channel_stays():
    assert torch.equal(BezierIntensity()(image=torch.ones(1, 4, 4, 4))["image"], torch.ones(1, 4, 4, 4))


def test_a_channel_after_a_constant_one_is_changed():
    data = torch.cat([torch.ones(1, 8, 8), image((1, 8, 8))])
    result = BezierIntensity()(image=data)["image"]
    assert torch.equal(result[0], data[0])
    assert not torch.equal(result[1], data[1])


def painting_parameters(shape, draws, **options):
    transform, data = Painting(**options), torch.zeros(1, *shape)
    return [transform.get_parameters(image=data) for _ in range(draws)]


def test_one_painting_in_five_is_inside():
    drawn = [parameters["is_inside"] for parameters in painting_parameters((8, 8), 1000)]
    assert np.mean(drawn) == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize(
    ("p_inside", "shares"),
    [
        (1.0, [0.05, 0.05 * 0.95, 0.05 * 0.95**2, 0.05 * 0.95**3, 0.05 * 0.95**4, 0.95**5]),
        (0.0, [0, 0.05, 0.05 * 0.95, 0.05 * 0.95**2, 0.05 * 0.95**3, 0.95**4]),
    ],
)
def test_up_to_five_boxes_each_next_one_almost_always(p_inside, shares):
    counts = [len(parameters["boxes"]) for parameters in painting_parameters((6, 6), 4000, p_inside=p_inside)]
    found = np.bincount(counts, minlength=6) / 4000
    np.testing.assert_allclose(found, shares, atol=0.015)
    assert (found[np.array(shares) > 0] > 0.025).all()
    assert (found[np.array(shares) == 0] == 0).all()


@pytest.mark.parametrize(
    ("p_inside", "shape", "sides"),
    [
        # 64 // 6 .. 64 // 3 and so on
        (1.0, (64, 64, 32), [(10, 21), (10, 21), (5, 10)]),
        (1.0, (48, 100), [(8, 16), (16, 33)]),
        (1.0, (1, 5, 40), [(1, 1), (1, 1), (6, 13)]),
        # 64 - 256 // 7 .. 64 - 192 // 7 and so on
        (0.0, (64, 64, 32), [(28, 37), (28, 37), (14, 19)]),
        (0.0, (48, 100), [(21, 28), (43, 58)]),
        (0.0, (1, 2, 5), [(1, 1), (1, 2), (3, 3)]),
    ],
)
def test_boxes_have_every_size_of_their_range_in_every_place_within_the_margin(p_inside, shape, sides):
    boxes = [box for parameters in painting_parameters(shape, 1000, p_inside=p_inside) for box in parameters["boxes"]]
    for axis, (least, largest) in enumerate(sides):
        length = shape[axis]
        drawn = np.array([(box[axis].start, box[axis].stop) for box in boxes])
        found, counts = np.unique(drawn[:, 1] - drawn[:, 0], return_counts=True)
        assert found.tolist() == list(range(least, largest + 1))
        assert counts.min() > 0.7 * len(boxes) / len(found)
        margins = np.minimum(drawn[:, 0], length - drawn[:, 1])
        if length - largest >= 6:
            assert margins.min() == drawn[:, 0].min() == (length - drawn[:, 1]).min() == 3
        else:
            assert margins.min() >= 0


def test_where_there_is_no_room_for_the_margin_a_box_is_in_the_middle():
    rng = np.random.default_rng(0)
    for length, side, starts in [(20, 8, set(range(3, 10))), (10, 4, {3}), (9, 4, {2, 3}), (6, 4, {1}), (4, 4, {0})]:
        assert {box_to_paint((length,), [(side, side)], rng)[0].start for _ in range(200)} == starts


def test_painting_fills_its_boxes_or_all_but_its_boxes_in_every_channel():
    data = image((2, 28, 28, 28))
    for p_inside, seed in [(1.0, 0), (1.0, 1), (0.0, 0), (0.0, 1)]:
        np.random.seed(seed)
        transform = Painting(p_inside=p_inside)
        parameters = transform.get_parameters(image=data)
        changed = transform.apply({"image": data}, **parameters)["image"] != data
        boxes = torch.zeros(28, 28, 28, dtype=torch.bool)
        for box in parameters["boxes"]:
            boxes[box] = True
        assert boxes.any()
        for channel in changed:
            assert torch.equal(channel, boxes if p_inside else ~boxes)


def test_without_boxes_in_painting_leaves_the_patch():
    data = image((1, 12, 12))
    assert torch.equal(Painting(p_inside=1.0, p_next=0.0)(image=data)["image"], data)


def test_noise_fills_the_range_of_its_channel():
    data = torch.stack([image((12, 12, 12)), 100 + image((12, 12, 12), 1)])
    result = Painting(p_inside=0.0)(image=data)["image"]
    units = []
    for values, channel in zip(result, data):
        low, spread = channel.min(), channel.max() - channel.min()
        units.append((values[(result != data).all(dim=0)] - low) / spread)
        counts = torch.histc(units[-1], bins=4, min=0, max=1)
        np.testing.assert_allclose(counts / len(units[-1]), 0.25, atol=0.06)
    assert abs(np.corrcoef(*units)[0, 1]) < 0.1  # channels have noise of their own
