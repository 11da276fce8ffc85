import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nnunet_ext.losses.soft_targets import masked_mean, soft_binary_cross_entropy, soft_cross_entropy, weighted_mean

SHAPE = (2, 3, 4, 5, 6)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_soft_cross_entropy_by_hand():
    # two classes, logits (0, ln 3): p = (1/4, 3/4); target (1/2, 1/2)
    logits = torch.tensor([[[0.0], [math.log(3)]]])
    target = torch.tensor([[[0.5], [0.5]]])
    expected = -(0.5 * math.log(0.25) + 0.5 * math.log(0.75))
    assert soft_cross_entropy(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_soft_cross_entropy_equals_a_float64_reference(generator):
    logits = torch.randn(SHAPE, generator=generator) * 5
    target = torch.rand(SHAPE, generator=generator)
    target = target / target.sum(1, keepdim=True)
    mask = torch.rand((2, 1, 4, 5, 6), generator=generator) > 0.4
    total, count = 0.0, 0
    for b, x, y, z in np.ndindex(2, 4, 5, 6):
        if mask[b, 0, x, y, z]:
            voxel = logits[b, :, x, y, z].double().numpy()
            p = np.exp(voxel) / np.exp(voxel).sum()
            total -= float((target[b, :, x, y, z].double().numpy() * np.log(p)).sum())
            count += 1
    assert soft_cross_entropy(logits, target, mask).item() == pytest.approx(total / count, rel=1e-5)


def test_hard_targets_give_torch_cross_entropy(generator):
    logits = torch.randn(SHAPE, generator=generator)
    labels = torch.randint(0, 3, (2, 4, 5, 6), generator=generator)
    onehot = F.one_hot(labels, 3).movedim(-1, 1).float()
    torch.testing.assert_close(soft_cross_entropy(logits, onehot), F.cross_entropy(logits, labels))


def test_soft_binary_cross_entropy_by_hand():
    # sigmoid(ln 3) = 3/4 against 1/4, and sigmoid(0) = 1/2 against 1
    logits = torch.tensor([[[math.log(3)], [0.0]]])
    target = torch.tensor([[[0.25], [1.0]]])
    first = -(0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    second = -math.log(0.5)
    assert soft_binary_cross_entropy(logits, target).item() == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.parametrize("loss", [soft_cross_entropy, soft_binary_cross_entropy])
def test_masked_voxels_have_neither_value_nor_gradient(loss, generator):
    logits = torch.randn(SHAPE, generator=generator)
    target = torch.full(SHAPE, 1 / 3)
    mask = torch.zeros((2, 1, 4, 5, 6), dtype=torch.bool)
    mask[:, :, 0] = True
    spoilt = logits.clone()
    spoilt[:, :, 1:] = float("inf")
    spoilt.requires_grad_()
    value = loss(spoilt, target, mask)
    value.backward()
    torch.testing.assert_close(value.detach(), loss(logits[:, :, :1], target[:, :, :1]))
    assert torch.isfinite(spoilt.grad[:, :, 0]).all()


@pytest.mark.parametrize("loss", [soft_cross_entropy, soft_binary_cross_entropy])
def test_no_labelled_voxel_gives_zero_and_zero_gradients(loss, generator):
    logits = torch.randn(SHAPE, generator=generator, requires_grad=True)
    value = loss(logits, torch.full(SHAPE, 1 / 3), torch.zeros((2, 1, 4, 5, 6), dtype=torch.bool))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_single_precision(dtype):
    # 70,000 voxels of loss ln 2 each: their sum is beyond half precision's largest number
    logits = torch.zeros((1, 2, 70_000), dtype=dtype)
    target = torch.full((1, 2, 70_000), 0.5)
    assert soft_cross_entropy(logits, target).item() == pytest.approx(math.log(2), rel=1e-5)


def test_masked_mean_counts_every_channel_of_a_voxel():
    values = torch.tensor([[[1.0, 5.0], [3.0, 7.0]]])
    assert masked_mean(values, torch.tensor([[[True, False]]])).item() == 2.0


def test_weighted_mean_by_hand():
    values, weights = torch.tensor([1.0, 5.0, float("inf")]), torch.tensor([3.0, 1.0, 7.0])
    assert weighted_mean(values[:2], weights[:2], None).item() == 2
    assert weighted_mean(values, weights, torch.tensor([True, True, False])).item() == 2
    assert weighted_mean(values, weights, torch.tensor([False, True, False])).item() == 5
    assert weighted_mean(values, weights, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_weights_that_add_up_to_less_than_one_do_not_make_a_mean_smaller():
    values, weights = torch.tensor([1.0, 5.0, 7.0]), torch.tensor([0.03, 0.01, 0.1])
    assert weighted_mean(values, weights, torch.tensor([True, True, False])).item() == pytest.approx(2)
