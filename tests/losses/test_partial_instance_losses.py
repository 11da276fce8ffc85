import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from nnunet_ext.losses import hard_labels, partial_instances
from nnunet_ext.losses.hard_labels import label_log_probabilities, log_probabilities, one_hot

SHAPE = (2, 3, 3, 4, 2)


# The losses as functions of logits and labels.


def tversky_loss(logits, labels, mask=None):
    return hard_labels.tversky_loss(log_probabilities(logits), one_hot(labels, logits.shape[1]), mask)


def of_looked_up_labels(loss):
    def function(logits, labels, *arguments):
        target = one_hot(labels, logits.shape[1])
        return loss(label_log_probabilities(log_probabilities(logits), target), *arguments)

    return function


symmetric_cross_entropy = of_looked_up_labels(partial_instances.symmetric_cross_entropy)
partial_cross_entropy = of_looked_up_labels(hard_labels.partial_cross_entropy)


def mixed_pseudo_labels(logits, other, labels, annotated, **options):
    target = one_hot(labels, logits.shape[1])
    return partial_instances.mixed_pseudo_labels(
        log_probabilities(logits), log_probabilities(other), target, annotated, **options
    )


def divergence_weighted_cross_entropy(logits, other, target):
    return partial_instances.divergence_weighted_cross_entropy(
        log_probabilities(logits), log_probabilities(other), target
    )


def tensors(seed=0, shape=SHAPE, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(shape, generator=generator)
    other = scale * torch.randn(shape, generator=generator)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=generator)
    return logits, other, labels


def voxels(logits):
    """Probabilities in float64 as a list over voxels, classes last, by numpy."""
    values = np.moveaxis(logits.double().numpy(), 1, -1).reshape(-1, logits.shape[1])
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def flat(labels):
    return labels.numpy().reshape(-1)


# ---------------------------------------------------------------------- float64 references, voxel by voxel


@pytest.mark.parametrize("masked", [False, True])
def test_tversky_against_a_count_of_every_voxel(masked):
    logits, _, labels = tensors()
    mask = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.6 if masked else None
    takes_part = flat(mask) if masked else np.ones(labels.numel(), bool)
    expected = []
    for label in (1, 2):
        hit = wrong = missed = 0.0
        for p, y, counts in zip(voxels(logits), flat(labels), takes_part):
            if counts and y == label:
                hit, missed = hit + p[label], missed + 1 - p[label]
            elif counts:
                wrong += p[label]
        expected.append(1 - (hit + 1e-5) / (hit + 0.4 * wrong + 0.6 * missed + 1e-5))
    assert tversky_loss(logits, labels, mask).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_symmetric_cross_entropy_against_its_definition():
    logits, _, labels = tensors()
    expected = []
    for p, y in zip(voxels(logits), flat(labels)):
        q = np.eye(3)[y]
        reverse = -sum(p_c * (0.0 if q_c else math.log(1e-4)) for p_c, q_c in zip(p, q))
        expected.append(0.8 * -math.log(p[y]) + 1.0 * reverse)
    assert symmetric_cross_entropy(logits, labels).item() == pytest.approx(np.mean(expected), rel=1e-5)


def test_divergence_weighted_cross_entropy_against_its_definition():
    logits, other, labels = tensors()
    target = mixed_pseudo_labels(logits, other, labels, labels > 0, ratio=0.3)
    entropies, divergences = [], []
    soft = np.moveaxis(target.double().numpy(), 1, -1).reshape(-1, 3)
    for p, q, y in zip(voxels(logits), voxels(other), soft):
        entropies.append(-float(np.sum(y * np.log(p))))
        divergences.append(float(np.sum(q * (np.log(q) - np.log(p)))))
    weights = np.exp(-np.array(divergences))
    expected = np.sum(np.array(entropies) * weights) / weights.sum() + np.mean(divergences)
    assert divergence_weighted_cross_entropy(logits, other, target).item() == pytest.approx(expected, rel=1e-5)


def test_pseudo_labels_against_their_definition():
    logits, other, labels = tensors()
    annotated = labels > 0
    found = np.moveaxis(
        mixed_pseudo_labels(logits, other, labels, annotated, ratio=0.25, temperature=0.3).numpy(), 1, -1
    ).reshape(-1, 3)
    for row, p, q, y in zip(found, voxels(logits), voxels(other), flat(labels)):
        mixture = 0.25 * p + 0.75 * q
        power = math.log(0.935 / 0.065) / math.log(0.9 / 0.1)
        expected = mixture**power / (mixture**power).sum()
        if y > 0:
            expected = np.eye(3)[y]
        np.testing.assert_allclose(row, expected, rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("masked", [False, True])
def test_cross_entropies_are_means_over_the_voxels_that_take_part(masked):
    logits, _, labels = tensors()
    mask = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    of_voxels = [p[y] for p, y, counts in zip(voxels(logits), flat(labels), flat(mask)) if counts or not masked]
    plain = np.mean([-math.log(p) for p in of_voxels])
    reverse = np.mean([-math.log(1e-4) * (1 - p) for p in of_voxels])
    found = symmetric_cross_entropy(logits, labels, mask if masked else None)
    assert found.item() == pytest.approx(0.8 * plain + reverse, rel=1e-5)
    everywhere = torch.ones_like(mask)
    assert partial_cross_entropy(logits, labels, mask if masked else everywhere).item() == pytest.approx(plain)


# ---------------------------------------------------------------------- by hand


def two_class(probability):
    """Logits of one voxel whose foreground has a probability."""
    return torch.tensor([0.0, math.log(probability / (1 - probability))]).reshape(1, 2, 1, 1)


def test_a_softmax_over_probabilities_takes_point_nine_to_point_nine_three_five():
    label = torch.zeros(1, 1, 1, 1, dtype=torch.long)
    soft = mixed_pseudo_labels(two_class(0.9), two_class(0.9), label, label > 0, ratio=0.5)
    assert soft[0, 1].item() == pytest.approx(0.935, abs=5e-4)


@pytest.mark.parametrize("classes", [2, 3, 4, 7, 20])
@pytest.mark.parametrize("temperature", [0.1, 0.3])
def test_sharpening_never_lowers_the_largest_probability(classes, temperature):
    generator = torch.Generator().manual_seed(classes)
    scales = torch.tensor([0.01, 0.3, 1.0, 3.0, 30.0]).reshape(-1, 1, 1, 1)
    p = (scales * torch.randn(5, classes, 20, 20, generator=generator)).softmax(dim=1)
    sharp = partial_instances.sharpened(p, temperature=temperature)
    assert (sharp.amax(1) >= p.amax(1)).all()
    assert torch.equal(sharp.argmax(1), p.argmax(1))
    torch.testing.assert_close(sharp.sum(1), torch.ones(5, 20, 20))
    assert (sharp.amax(1) > p.amax(1) + 0.01).any(), "it does sharpen"


def test_sharpening_of_two_classes_is_that_of_the_release_until_it_would_flatten():
    foreground = torch.linspace(0.5, 1, 101).double()
    p = torch.stack([1 - foreground, foreground])[None, :, :, None]
    found = partial_instances.sharpened(p)[0, 1, :, 0]
    released = torch.sigmoid((2 * foreground - 1) / 0.3)
    torch.testing.assert_close(found, torch.maximum(released, foreground))
    assert (released[foreground > 0.96] < foreground[foreground > 0.96]).all(), "the release flattens there"


@pytest.mark.parametrize("classes", [3, 4, 7, 20])
def test_odds_are_sharpened_alike_whatever_the_number_of_classes(classes):
    """By the factor by which the softmax changes .9 of two classes, so that one of many is not nearly sure."""
    generator = torch.Generator().manual_seed(classes)
    p = torch.randn(2, classes, 5, 5, generator=generator).double().softmax(dim=1)
    sharp = partial_instances.sharpened(p)
    released = torch.tensor([0.1, 0.9]).double().div(0.3).softmax(0)
    factor = (released[1] / released[0]).log() / math.log(9)
    torch.testing.assert_close((sharp[:, 0] / sharp[:, 1]).log(), factor * (p[:, 0] / p[:, 1]).log())
    torch.testing.assert_close(partial_instances.sharpened(p, temperature=0.37), p)


def test_pseudo_labels_are_sharper_the_lower_the_temperature():
    logits, other, labels = tensors()
    nowhere = torch.zeros_like(labels, dtype=torch.bool)
    mixture = (log_probabilities(logits).exp() + log_probabilities(other).exp()) / 2
    for temperature in (0.1, 0.2):
        found = mixed_pseudo_labels(logits, other, labels, nowhere, ratio=0.5, temperature=temperature)
        torch.testing.assert_close(found, partial_instances.sharpened(mixture, temperature=temperature))


def test_annotated_voxels_have_their_own_label_however_unsure_the_branches_are():
    logits, other, labels = tensors()
    soft = mixed_pseudo_labels(logits, other, labels, labels > 0, ratio=0.5)
    annotated = (labels > 0).expand_as(soft)
    assert torch.equal(soft[annotated], one_hot(labels, 3)[annotated])
    assert ((soft > 0.001) & (soft < 0.999))[~annotated].any()


def test_only_voxels_that_take_part_diverge():
    logits, other, labels = tensors()
    target = mixed_pseudo_labels(logits, other, labels, labels > 0, ratio=0.3)
    mask = torch.rand(labels.shape, generator=torch.Generator().manual_seed(4)) < 0.5
    entropies, divergences = [], []
    soft = np.moveaxis(target.double().numpy(), 1, -1).reshape(-1, 3)
    for p, q, y, counts in zip(voxels(logits), voxels(other), soft, flat(mask)):
        if counts:
            entropies.append(-float(np.sum(y * np.log(p))))
            divergences.append(float(np.sum(q * (np.log(q) - np.log(p)))))
    weights = np.exp(-np.array(divergences))
    expected = np.sum(np.array(entropies) * weights) / weights.sum() + np.mean(divergences)
    arguments = (log_probabilities(logits), log_probabilities(other), target)
    loss = partial_instances.divergence_weighted_cross_entropy
    assert loss(*arguments, mask).item() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(loss(*arguments, torch.ones_like(mask)), loss(*arguments))


@pytest.mark.parametrize("scale", [1.0, 3e4])
def test_what_takes_no_part_in_the_divergence_gives_no_gradient_however_large(scale):
    logits, other, labels = tensors(scale=scale)
    target = mixed_pseudo_labels(logits, other, labels, labels > 0, ratio=0.3)
    mask = torch.zeros_like(labels, dtype=torch.bool)
    mask[0, :, 0] = True
    for part in (mask, torch.zeros_like(mask)):
        leaves = [one.clone().requires_grad_() for one in (logits, other)]
        loss = partial_instances.divergence_weighted_cross_entropy(
            *(log_probabilities(one) for one in leaves), target, part
        )
        loss.backward()
        assert torch.isfinite(loss)
        assert (loss.item() > 0) == bool(part.any())
        for leaf in leaves:
            assert torch.isfinite(leaf.grad).all()
            assert not (leaf.grad * ~part).any()


def test_voxels_that_all_disagree_a_lot_still_learn_beside_one_that_takes_no_part():
    # e^-180 is zero in float32: the weight of the voxel that takes part, beside that of the other one, where D is 0
    logits = torch.tensor([[[[200.0, 0.0]], [[20.0, 0.0]]]])
    other = torch.tensor([[[[20.0, 0.0]], [[200.0, 0.0]]]])
    target = one_hot(torch.ones(1, 1, 1, 2, dtype=torch.long), 2)
    mask = torch.tensor([[[[True, False]]]])
    loss = partial_instances.divergence_weighted_cross_entropy(
        log_probabilities(logits), log_probabilities(other), target, mask
    )
    assert loss.item() == pytest.approx(180 + 180)


def test_one_voxel_by_hand():
    label = torch.ones(1, 1, 1, 1, dtype=torch.long)
    logits = two_class(0.8)
    assert partial_cross_entropy(logits, label, label > 0).item() == pytest.approx(-math.log(0.8))
    expected = 0.8 * -math.log(0.8) + 0.2 * -math.log(1e-4)
    assert symmetric_cross_entropy(logits, label).item() == pytest.approx(expected)
    # TP .8, FN .2, FP 0
    assert tversky_loss(logits, label).item() == pytest.approx(1 - 0.8 / (0.8 + 0.6 * 0.2), rel=1e-4)
    assert tversky_loss(logits, 0 * label).item() == pytest.approx(1 - 1e-5 / (0.4 * 0.8 + 1e-5), rel=1e-4)


# ---------------------------------------------------------------------- invariants


def test_equal_branches_do_not_diverge():
    logits, _, labels = tensors()
    target = mixed_pseudo_labels(logits, logits, labels, labels > 0, ratio=0.5)
    expected = -(target * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(divergence_weighted_cross_entropy(logits, logits.clone(), target), expected)


def test_raising_the_foreground_on_annotated_voxels_lowers_every_term():
    logits, other, labels = tensors()
    annotated = labels > 0
    better = logits + 0.5 * torch.zeros_like(logits).scatter_(1, labels, annotated.float())
    target = mixed_pseudo_labels(logits, other, labels, annotated, ratio=0.5)
    assert tversky_loss(better, labels) < tversky_loss(logits, labels)
    assert symmetric_cross_entropy(better, labels) < symmetric_cross_entropy(logits, labels)
    assert partial_cross_entropy(better, labels, annotated) < partial_cross_entropy(logits, labels, annotated)
    assert divergence_weighted_cross_entropy(better, better, target) < divergence_weighted_cross_entropy(
        logits, logits, target
    )


def test_no_gradient_flows_through_the_pseudo_labels():
    logits, other, labels = tensors()
    logits.requires_grad_()
    assert not mixed_pseudo_labels(logits, other, labels, labels > 0, ratio=0.5).requires_grad


def test_gradients_of_both_branches_are_those_of_the_formula_in_which_nothing_is_detached():
    logits, other, labels = tensors()
    target = mixed_pseudo_labels(logits, other, labels, labels > 0, ratio=0.3).double()
    leaves = [one.double().requires_grad_() for one in (logits, other)]
    p, q = (one.softmax(dim=1) for one in leaves)
    entropies, divergences = -(target * p.log()).sum(dim=1), (q * (q / p).log()).sum(dim=1)
    weights = (-divergences).exp()
    reference = (entropies * weights).sum() / weights.sum() + divergences.mean()
    expected = torch.autograd.grad(reference, leaves)
    branches = [one.clone().requires_grad_() for one in (logits, other)]
    found = torch.autograd.grad(divergence_weighted_cross_entropy(*branches, target.float()), branches)
    for one, gradient in zip(found, expected):
        torch.testing.assert_close(one.double(), gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [1.0, 100.0, 3e4])
def test_finite_without_a_label_and_for_logits_of_any_size(dtype, scale):
    logits, other, labels = tensors(scale=scale)
    logits = logits.clamp(-6e4, 6e4).to(dtype).requires_grad_()
    other = other.clamp(-6e4, 6e4).to(dtype).requires_grad_()
    for labels_now in (labels, 0 * labels):
        annotated = labels_now > 0
        target = mixed_pseudo_labels(logits, other, labels_now, annotated, ratio=0.5)
        terms = [
            tversky_loss(logits, labels_now),
            symmetric_cross_entropy(logits, labels_now),
            partial_cross_entropy(logits, labels_now, annotated),
            divergence_weighted_cross_entropy(logits, other, target),
        ]
        assert all(torch.isfinite(term) for term in terms)
        gradients = torch.autograd.grad(sum(terms), (logits, other))
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_without_an_annotated_voxel_the_partial_term_is_zero():
    logits, _, labels = tensors()
    logits.requires_grad_()
    loss = partial_cross_entropy(logits, labels, torch.zeros_like(labels, dtype=torch.bool))
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().sum() == 0


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0, 1), st.sampled_from([(1, 2, 3, 2), (2, 4, 2, 2, 3)]))
def test_pseudo_labels_are_distributions_and_losses_are_not_negative(seed, ratio, shape):
    logits, other, labels = tensors(seed, shape)
    target = mixed_pseudo_labels(logits, other, labels, labels > 0, ratio=ratio)
    torch.testing.assert_close(target.sum(dim=1), torch.ones_like(target[:, 0]))
    assert target.min() >= 0
    assert divergence_weighted_cross_entropy(logits, other, target) > 0
    assert 0 <= tversky_loss(logits, labels) <= 1
