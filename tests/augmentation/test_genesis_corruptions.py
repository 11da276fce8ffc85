import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.augmentation.genesis_corruptions import (
    BezierIntensity,
    CleanImageAsTarget,
    LocalShuffling,
    Painting,
    bezier_curve,
)

SHAPES = [(1, 20, 24), (2, 16, 20, 24), (1, 9, 5, 31), (1, 3, 40, 40)]
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


def test_the_target_is_the_image_before_the_corruptions():
    data = CleanImageAsTarget()(image=image((2, 8, 8, 8)), segmentation=torch.zeros(1, 8, 8, 8))
    corrupted = Painting()(**data)
    assert torch.equal(corrupted["segmentation"], image((2, 8, 8, 8)))
    assert not torch.equal(corrupted["image"], corrupted["segmentation"])


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(SHAPES), st.integers(0, 2**31))
def test_shuffling_keeps_the_values_and_moves_them_a_little(shape, seed):
    np.random.seed(seed)
    data = image(shape, seed % 100)
    transform = LocalShuffling()
    result = transform(image=data)["image"]
    assert torch.equal(result.flatten(1).sort().values, data.flatten(1).sort().values)
    # channels move together: where each voxel has come from, by a channel that holds the positions
    position = torch.arange(float(data[0].numel())).reshape(1, *shape[1:])
    parameters = transform.get_parameters(image=position)
    transform.get_parameters = lambda **_: parameters
    moved, pair = transform(image=position)["image"], transform(image=torch.cat([position, position]))["image"]
    assert torch.equal(pair[0], pair[1])
    places = torch.stack(torch.unravel_index(moved[0].long(), shape[1:]))
    here = torch.stack(torch.meshgrid(*[torch.arange(length) for length in shape[1:]], indexing="ij"))
    for distance, length in zip((places - here).abs().flatten(1).amax(dim=1), shape[1:]):
        assert distance <= transform.repeats * max(2, round(0.1 * length))


def test_the_curve_is_the_cubic_of_its_control_points_by_hand():
    x, y = bezier_curve(np.array([[0.8, 0.1], [0.2, 0.3]]), 3)
    # sorted: P1 = (.2, .1), P2 = (.8, .3); at t = 1/2: 3/8 P1 + 3/8 P2 + 1/8
    np.testing.assert_allclose(x, [0, 3 / 8 * 0.2 + 3 / 8 * 0.8 + 1 / 8, 1])
    np.testing.assert_allclose(y, [0, 3 / 8 * 0.1 + 3 / 8 * 0.3 + 1 / 8, 1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_curves_rise(values):
    for coordinate in bezier_curve(np.array(values).reshape(2, 2), 200):
        assert (np.diff(coordinate) >= -1e-12).all()
        assert coordinate[0] == 0
        assert coordinate[-1] == pytest.approx(1)


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


@pytest.mark.parametrize(
    ("p_inside", "least", "most"), [(1.0, 0.0, 5 / 6**3 * 1.6), (0.0, 0.3, 1 - (3 / 7) ** 3 * 0.8)]
)
def test_painting_fills_boxes_or_all_but_boxes(p_inside, least, most):
    data = image((2, 28, 28, 28))
    for seed in range(5):
        np.random.seed(seed)
        changed = Painting(p_inside=p_inside)(image=data)["image"] != data
        assert torch.equal(changed[0], changed[1])
        assert least < changed[0].float().mean() <= most


def test_noise_fills_the_range_of_its_channel():
    data = torch.stack([image((12, 12, 12)), 100 + image((12, 12, 12), 1)])
    result = Painting(p_inside=0.0)(image=data)["image"]
    noise = [result[channel][result[channel] != data[channel]] for channel in range(2)]
    for values, channel in zip(noise, data):
        spread = channel.max() - channel.min()
        assert values.min() < channel.min() + 0.1 * spread
        assert values.max() > channel.max() - 0.1 * spread
