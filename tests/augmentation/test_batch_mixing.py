import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.augmentation.batch_mixing import (
    blend,
    class_targets,
    draw_box,
    draw_partners,
    draw_ratios,
    paste,
    region_targets,
)


@given(batch_size=st.integers(2, 40), seed=st.integers(0, 2**32 - 1))
def test_partners_are_a_permutation_without_fixed_points(batch_size, seed):
    partners = draw_partners(batch_size, np.random.default_rng(seed))
    assert sorted(partners) == list(range(batch_size))
    assert all(partner != sample for sample, partner in enumerate(partners))


def test_partners_are_drawn_uniformly_from_the_cyclic_permutations():
    rng = np.random.default_rng(0)
    drawn = [tuple(draw_partners(4, rng)) for _ in range(6000)]
    counts = {permutation: drawn.count(permutation) for permutation in set(drawn)}
    assert len(counts) == 6  # (4 - 1)!
    assert all(abs(count - 1000) < 150 for count in counts.values())


def test_a_batch_of_one_has_no_partner_and_says_so():
    with pytest.raises(ValueError, match="the batch has 1"):
        draw_partners(1, np.random.default_rng(0))


def test_ratios_follow_the_beta_distribution_and_stay_off_zero_and_one():
    ratios = draw_ratios(100_000, 0.4, np.random.default_rng(0))
    assert ratios.min() == 1e-4
    assert ratios.max() == 1 - 1e-4
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))
    assert ratios.mean() == pytest.approx(0.5, abs=5e-3)
    assert ratios.var() == pytest.approx(1 / (4 * 1.8), abs=5e-3)


def test_blend_by_hand():
    values = torch.tensor([[[1.0, 2.0]], [[3.0, 6.0]]])  # two samples, one channel, two voxels
    mixed = blend(values, np.array([1, 0]), np.array([0.75, 0.5]))
    torch.testing.assert_close(mixed, torch.tensor([[[1.5, 3.0]], [[2.0, 4.0]]]))


@given(ratio=st.floats(0, 1), seed=st.integers(0, 1000))
def test_blended_class_targets_sum_to_one(ratio, seed):
    labels = torch.randint(0, 4, (3, 1, 5, 4), generator=torch.Generator().manual_seed(seed))
    onehot, valid = class_targets(labels, 4, ignore_label=None)
    assert valid.all()
    mixed = blend(onehot, np.array([1, 2, 0]), np.full(3, ratio))
    torch.testing.assert_close(mixed.sum(1), torch.ones(3, 5, 4))
    assert mixed.min() >= 0


def test_class_targets_mark_ignored_voxels_and_leave_them_empty():
    labels = torch.tensor([[[0, 1, 2, 3]]], dtype=torch.int16)  # 3 is ignore
    onehot, valid = class_targets(labels, 3, ignore_label=3)
    assert valid.tolist() == [[[True, True, True, False]]]
    assert onehot[0].T.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.int16])
def test_region_targets_split_the_ignore_channel_off(dtype):
    target = torch.tensor([[[1, 0, 1], [1, 0, 0], [0, 0, 1]]]).to(dtype)  # two regions and the ignore channel
    regions, valid = region_targets(target, has_ignore_label=True)
    assert regions.tolist() == [[[1, 0, 1], [1, 0, 0]]]
    assert valid.tolist() == [[[True, True, False]]]
    everything, all_valid = region_targets(target, has_ignore_label=False)
    assert everything.shape == (1, 3, 3)
    assert all_valid.all()


@given(shape=st.lists(st.integers(1, 9), min_size=2, max_size=3), seed=st.integers(0, 1000))
def test_box_is_half_the_patch_and_inside_it(shape, seed):
    box = draw_box(shape, np.random.default_rng(seed))
    assert box.shape == tuple(shape)
    corners = box.nonzero()
    sides = (corners.amax(0) - corners.amin(0) + 1).tolist()
    assert sides == [max(1, side // 2) for side in shape]
    assert len(corners) == np.prod(sides), "it is filled"


def test_paste_takes_the_box_from_the_partner_and_nothing_else():
    values = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    expected = torch.zeros(4, 4)
    expected[1:3, 0:2] = 1
    pasted = paste(values, np.array([1, 0]), expected.bool()[None, None])
    assert torch.equal(pasted[0, 0], expected)
    assert torch.equal(pasted[1, 0], 1 - expected)
    assert values[0].sum() == 0, "the input must not change"
    own = torch.stack([expected.bool()[None], torch.zeros(1, 4, 4, dtype=torch.bool)])
    assert torch.equal(paste(values, np.array([1, 0]), own)[:, 0], torch.stack([expected, torch.ones(4, 4)]))


def test_blending_makes_whole_numbers_floating_and_keeps_other_types():
    partners, ratios = np.array([1, 0]), np.array([0.25, 0.5])
    whole = blend(torch.tensor([[[4]], [[8]]]), partners, ratios)
    assert whole.dtype == torch.float32
    assert whole.flatten().tolist() == [7, 6]
    assert blend(torch.ones(2, 1, 1, dtype=torch.float16), partners, ratios).dtype == torch.float16


def test_what_is_mixed_stays_on_its_device():
    values = torch.ones(2, 1, 4, 4, device="meta")
    assert blend(values, np.array([1, 0]), np.array([0.25, 0.5])).device.type == "meta"
    assert [one.device.type for one in class_targets(values, 3, None)] == ["meta"] * 2


def test_without_an_ignore_label_one_boolean_channel_says_that_every_region_counts():
    _, valid = region_targets(torch.ones(2, 3, 4, 4), has_ignore_label=False)
    assert valid.shape == (2, 1, 4, 4)
    assert valid.dtype == torch.bool
