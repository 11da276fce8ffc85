"""Losses over the labels that a case was annotated for, beside formulas in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_ext.losses.partial_labels import exclusion_loss, partial_logits

SHAPE = (4, 3, 5)
CLASSES = 4
# the first case was annotated for everything, the second for class 2, the third for nothing
ANNOTATED = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0]], dtype=bool)


def some_case(seed=0, ignore=None):
    """Logits, targets without what was not annotated, and the lists."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (len(ANNOTATED), CLASSES, *SHAPE))
    target = rng.integers(0, CLASSES, (len(ANNOTATED), 1, *SHAPE))
    for one, known in zip(target, ANNOTATED):
        one[~known[one]] = 0
    if ignore is not None:
        target[rng.random(target.shape) < 0.2] = ignore
    return logits, target


def merged_probabilities(logits):
    """q by its definition, in float64."""
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    q = np.zeros_like(p)
    for case, known in enumerate(ANNOTATED):
        for k in range(CLASSES):
            q[case, k if known[k] else 0] += p[case, k]
    return q


def stock_loss(batch_dice, ignore=None):
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, ignore_label=ignore, dice_class=MemoryEfficientSoftDiceLoss)


def reference_loss(q, target, batch_dice, ignore=None):
    """Cross-entropy and Dice of probabilities as nnU-Net defines them, in float64."""
    counts = np.ones(target.shape, bool) if ignore is None else target != ignore
    labels = np.where(counts, target, 0)
    own = np.take_along_axis(q, labels, axis=1)
    cross_entropy = -np.log(own[counts]).mean()
    onehot = (np.arange(CLASSES).reshape(1, -1, 1, 1, 1) == labels) * counts
    over = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    hits, sizes = (q * onehot).sum(over), (q * counts).sum(over) + onehot.sum(over)
    return cross_entropy - ((2 * hits + 1e-5) / (sizes + 1e-5))[..., 1:].mean()


@pytest.mark.parametrize("ignore", [None, CLASSES])
@pytest.mark.parametrize("batch_dice", [False, True])
def test_stock_loss_of_partial_logits_is_that_of_merged_probabilities(batch_dice, ignore):
    logits, target = some_case(ignore=ignore)
    found = stock_loss(batch_dice, ignore)(
        partial_logits(torch.tensor(logits), torch.tensor(ANNOTATED), has_regions=False), torch.tensor(target)
    )
    expected = reference_loss(merged_probabilities(logits), target, batch_dice, ignore)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_softmax_of_partial_logits_is_the_merged_distribution():
    logits, _ = some_case()
    q = partial_logits(torch.tensor(logits), torch.tensor(ANNOTATED), has_regions=False).softmax(1)
    np.testing.assert_allclose(q.numpy(), merged_probabilities(logits), atol=1e-6)
    assert (q[1, [1, 3]] == 0).all()


@pytest.mark.parametrize("has_regions", [False, True])
def test_with_every_label_annotated_logits_and_gradients_are_the_same_to_the_bit(has_regions):
    logits = torch.randn((2, CLASSES, *SHAPE), generator=torch.Generator().manual_seed(0), requires_grad=True)
    everything = torch.ones((2, CLASSES), dtype=torch.bool)
    found = partial_logits(logits, everything, has_regions=has_regions)
    assert torch.equal(found, logits)
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    assert torch.equal(logits.grad, weights)


@given(share=st.floats(0.01, 0.99), seed=st.integers(0, 100))
def test_moving_probability_between_background_and_an_unannotated_class_changes_nothing(share, seed):
    logits, target = some_case(seed)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    moved = p.copy()
    for k in (1, 3):  # not annotated in the second case
        moved[1, k] = p[1, k] + share * p[1, 0] / 2
    moved[1, 0] = (1 - share) * p[1, 0]
    values = [
        stock_loss(False)(
            partial_logits(torch.tensor(np.log(one)), torch.tensor(ANNOTATED), has_regions=False), torch.tensor(target)
        ).item()
        for one in (p, moved)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_no_gradient_tells_an_unannotated_class_from_background():
    """A step against the gradient scales p_0 and p_k of a voxel alike: their ratio stays as it is."""
    logits, target = some_case()
    leaf = torch.tensor(logits, requires_grad=True)
    known = torch.tensor(ANNOTATED)
    stock_loss(False)(partial_logits(leaf, known, has_regions=False), torch.tensor(target)).backward()
    p = leaf.detach().softmax(1)
    # dL/dz_k = p_k * (something that is one number for all merged classes of a voxel)
    slopes = leaf.grad[1, [0, 1, 3]] / p[1, [0, 1, 3]]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(slopes[2], slopes[0], rtol=1e-4, atol=1e-6)
    # a case that was annotated for nothing teaches nothing
    assert (leaf.grad[2] == 0).all()
    assert (leaf.grad[0] != 0).any()


def test_extreme_logits_of_half_precision_stay_finite():
    logits = torch.full((3, CLASSES, *SHAPE), -6e4, dtype=torch.float16)
    logits[:, 3] = 6e4
    logits.requires_grad_(True)
    _, target = some_case()
    loss = stock_loss(False)(partial_logits(logits, torch.tensor(ANNOTATED), has_regions=False), torch.tensor(target))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("batch_dice", [False, True])
def test_regions_that_were_not_annotated_leave_the_loss(batch_dice):
    rng = np.random.default_rng(0)
    logits, target = rng.normal(0, 2, (3, CLASSES, *SHAPE)), rng.random((3, CLASSES, *SHAPE)) < 0.4
    known = ANNOTATED.copy()
    known[1, 0] = False  # there is no background among regions
    target &= known[:, :, None, None, None]
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": True, "ddp": False}
    loss = DC_and_BCE_loss({}, dice, dice_class=MemoryEfficientSoftDiceLoss)
    leaf = torch.tensor(logits, requires_grad=True)
    found = loss(partial_logits(leaf, torch.tensor(known), has_regions=True), torch.tensor(target))
    found.backward()

    p = 1 / (1 + np.exp(-logits))
    entropies = -np.where(target, np.log(p), np.log(1 - p)) * known[:, :, None, None, None]
    p = p * known[:, :, None, None, None]
    over = (0, 2, 3, 4) if batch_dice else (2, 3, 4)
    scores = (2 * (p * target).sum(over) + 1e-5) / (p.sum(over) + target.sum(over) + 1e-5)
    assert found.item() == pytest.approx(entropies.mean() - scores.mean(), rel=1e-5)
    assert (leaf.grad[~torch.tensor(known)] == 0).all()


def test_exclusion_by_hand():
    # one case, two classes that were not annotated, two voxels of which the first is annotated foreground
    p = torch.tensor([[0.1, 0.2], [0.6, 0.3], [0.2, 0.4], [0.1, 0.1]]).reshape(1, 4, 1, 1, 2)
    foreground = torch.tensor([True, False]).reshape(1, 1, 1, 1, 2)
    known = torch.tensor([[True, True, False, False]])
    first, second = 2 * 0.2 / (0.6 + 1), 2 * 0.1 / (0.2 + 1)
    assert exclusion_loss(p.log(), foreground, known).item() == pytest.approx((first + second) / 2)
    ignored = torch.tensor([True, False]).reshape(1, 1, 1, 1, 2)
    first, second = 2 * 0.2 / (0.2 + 1), 2 * 0.1 / (0.1 + 1)
    assert exclusion_loss(p.log(), foreground, known, ignored).item() == pytest.approx((first + second) / 2)


def test_exclusion_is_zero_where_all_is_annotated_or_nothing_is_foreground():
    logits = torch.randn((2, 3, 2, 2), requires_grad=True)
    everything = torch.ones((2, 3), dtype=torch.bool)
    loss = exclusion_loss(logits, torch.ones((2, 1, 2, 2), dtype=torch.bool), everything)
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()
    one = torch.tensor([[True, False, True]] * 2)
    assert exclusion_loss(logits, torch.zeros((2, 1, 2, 2), dtype=torch.bool), one) == 0


def test_each_label_is_learned_from_the_case_that_has_it_and_not_unlearned_from_the_other():
    """Both cases have both organs in the same voxels; each was annotated for one of them."""
    organs = torch.tensor([0, 0, 1, 1, 2, 2]).reshape(1, 1, 1, 6)
    known = torch.tensor([[True, True, False], [True, False, True]])
    target = torch.cat([torch.where(organs == 1, 1, 0), torch.where(organs == 2, 2, 0)])

    def learned(seen):
        logits = torch.zeros((1, 3, 1, 6), requires_grad=True)
        optimizer = torch.optim.SGD([logits], lr=0.5)
        for _ in range(300):
            optimizer.zero_grad()
            stock_loss(False)(seen(logits.expand(2, -1, -1, -1)), target).backward()
            optimizer.step()
        return logits.detach().softmax(1).gather(1, organs)

    assert (learned(lambda logits: partial_logits(logits, known, has_regions=False)) > 0.9).all()
    assert (learned(lambda logits: logits)[organs > 0] < 0.7).all()
