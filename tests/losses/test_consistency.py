import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.losses.consistency import (
    EPSILON,
    class_affinities,
    entropy,
    mean_log_probabilities,
    multi_view_class_consistency,
    uncertainty_weighted_consistency,
)
from nnunet_ext.losses.hard_labels import log_probabilities

SHAPES = [(2, 3, 3, 4, 2), (2, 4, 5, 3)]


def branches_of(shape, *, number=3, seed=0, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return [log_probabilities(scale * torch.randn(shape, generator=generator)) for _ in range(number)]


def constant(*foreground):
    """Branches of two classes whose foreground has one probability in all of 2 x 2 x 2 voxels."""
    full = torch.ones(1, 1, 2, 2, 2)
    return [torch.cat([(1 - p) * full, p * full], dim=1).log() for p in foreground]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q) if a > 0)


# ---------------------------------------------------------------------- references, voxel by voxel in float64


def reference_uspc(branches, mask=None, *, weighted=True):
    probabilities = [branch.double().exp().numpy() for branch in branches]
    total, weights = 0.0, 0.0
    batch, _, *space = probabilities[0].shape
    for sample in range(batch):
        for place in np.ndindex(*space):
            if mask is not None and not mask[(sample, 0, *place)]:
                continue
            at = [p[(sample, slice(None), *place)] for p in probabilities]
            mean = sum(at) / len(at)
            weight = math.exp(sum(m * math.log(m) for m in mean)) if weighted else 1.0
            total += weight * sum(kl(p, mean) for p in at) / len(at)
            weights += weight
    return total / weights


def reference_mpcc(branches, mask=None):
    probabilities = [branch.double().exp().numpy() for branch in branches]
    batch, classes, *space = probabilities[0].shape
    total = 0.0
    for axis in range(len(space)):
        for sample in range(batch):
            tables = []
            for p in probabilities:
                lines = np.moveaxis(p[sample], 1 + axis, -1).reshape(classes, -1, space[axis])
                if mask is None:
                    seen = np.ones(lines.shape[1:], dtype=bool)
                else:
                    seen = np.moveaxis(mask[sample, 0].numpy(), axis, -1).reshape(-1, space[axis])
                # the mean of each line over what is seen of it; lines of which nothing is seen are not there
                projection = np.array(
                    [[line[where].mean() for line, where in zip(of_class, seen) if where.any()] for of_class in lines]
                )
                rows = [[sum(projection[c] * projection[k]) + EPSILON for k in range(classes)] for c in range(classes)]
                tables.append([[value / sum(row) for value in row] for row in rows])
            mean = np.mean(tables, axis=0)
            for table in tables:
                total += sum(kl(row, mean[c]) for c, row in enumerate(table)) / classes
    return total / (len(space) * batch * len(probabilities))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("detach", [True, False])
def test_consistency_equals_a_reference_voxel_by_voxel(shape, detach):
    branches = branches_of(shape)
    found = uncertainty_weighted_consistency(branches, detach_target=detach)
    assert found.item() == pytest.approx(reference_uspc(branches), rel=1e-5)
    found = uncertainty_weighted_consistency(branches, detach_target=detach, uncertainty_weights=False)
    assert found.item() == pytest.approx(reference_uspc(branches, weighted=False), rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("detach", [True, False])
def test_class_consistency_equals_a_reference_entry_by_entry(shape, detach):
    branches = branches_of(shape)
    found = multi_view_class_consistency(branches, detach_target=detach)
    assert found.item() == pytest.approx(reference_mpcc(branches), rel=1e-4)


def masks(shape):
    """A corner, a slab and scattered voxels, in which some lines hold nothing."""
    corner, slab = (torch.zeros(shape[0], 1, *shape[2:], dtype=torch.bool) for _ in range(2))
    corner[(slice(None), slice(None), *[slice(0, 2)] * (len(shape) - 2))] = True
    slab[:, :, 1] = True
    scattered = torch.rand(corner.shape, generator=torch.Generator().manual_seed(2)) < 0.4
    return [corner, slab, scattered]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("detach", [True, False])
def test_consistency_of_what_takes_part_equals_a_reference_without_the_rest(shape, which, detach):
    branches, mask = branches_of(shape), masks(shape)[which]
    options = {"detach_target": detach}
    found = uncertainty_weighted_consistency(branches, mask, **options)
    assert found.item() == pytest.approx(reference_uspc(branches, mask), rel=1e-5)
    found = uncertainty_weighted_consistency(branches, mask, uncertainty_weights=False, **options)
    assert found.item() == pytest.approx(reference_uspc(branches, mask, weighted=False), rel=1e-5)
    found = multi_view_class_consistency(branches, mask, **options)
    assert found.item() == pytest.approx(reference_mpcc(branches, mask), rel=1e-4)


@pytest.mark.parametrize("loss", [uncertainty_weighted_consistency, multi_view_class_consistency])
def test_a_mask_of_everything_is_none_and_of_nothing_gives_nothing(loss):
    branches = [branch.requires_grad_() for branch in branches_of(SHAPES[0])]
    everything = torch.ones(2, 1, 3, 4, 2, dtype=torch.bool)
    torch.testing.assert_close(loss(branches, everything), loss(branches))
    nothing = loss(branches, ~everything)
    nothing.backward()
    assert nothing.item() == pytest.approx(0, abs=1e-7)
    assert all(branch.grad.abs().max() < 1e-7 for branch in branches)


# ---------------------------------------------------------------------- by hand, in 2 x 2 x 2 voxels


def test_two_branches_that_contradict_each_other_by_hand():
    # the mean is (.5, .5); KL((.1, .9) || (.5, .5)) = .9 ln 1.8 + .1 ln .2 = .36806
    branches = constant(0.9, 0.1)
    by_hand = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert by_hand == pytest.approx(0.36806, abs=1e-5)
    assert uncertainty_weighted_consistency(branches).item() == pytest.approx(by_hand, rel=1e-5)
    # seen from any side, both rows of Q are (1 - p, p), and the mean's are (.5, .5)
    assert multi_view_class_consistency(branches).item() == pytest.approx(by_hand, rel=1e-3)


def test_voxels_of_which_the_mean_is_unsure_weigh_half_by_hand():
    # in four voxels as above, where w = exp(-ln 2) = 1/2; in four all are sure of background, where w = 1 and KL = 0
    first, second = (branch.exp() for branch in constant(0.9, 0.1))
    sure = torch.tensor([1 - 1e-7, 1e-7]).reshape(1, 2, 1, 1)
    for branch in (first, second):
        branch[:, :, 0] = sure
    logs = [first.log(), second.log()]
    divergence = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    expected = 4 * 0.5 * divergence / (4 * 0.5 + 4 * 1)
    assert uncertainty_weighted_consistency(logs).item() == pytest.approx(expected, rel=1e-4)
    unweighted = uncertainty_weighted_consistency(logs, uncertainty_weights=False)
    assert unweighted.item() == pytest.approx(divergence / 2, rel=1e-4)


def test_affinities_of_a_halved_cube_by_hand():
    # class 1 where the first index is 0: along that axis every ray meets both classes; along the others none does
    probabilities = torch.zeros(1, 2, 2, 2, 2)
    probabilities[:, 1, 0] = 1
    probabilities[:, 0, 1] = 1
    assert torch.allclose(class_affinities(probabilities, 0)[0], torch.full((2, 2), 0.5))
    for axis in (1, 2):
        assert torch.allclose(class_affinities(probabilities, axis)[0], torch.eye(2), atol=1e-6)


def test_class_that_is_nowhere_has_even_affinities():
    probabilities = constant(0.0)[0].exp()
    assert torch.allclose(class_affinities(probabilities, 0)[0], torch.tensor([[1.0, 0.0], [0.5, 0.5]]), atol=1e-5)


def test_class_consistency_is_blind_to_mirrored_predictions_and_the_voxel_wise_one_is_not():
    cube = torch.randn(1, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    branches = [log_probabilities(cube), log_probabilities(cube.flip(2, 3, 4))]
    assert multi_view_class_consistency(branches).item() == pytest.approx(0, abs=1e-6)
    assert uncertainty_weighted_consistency(branches).item() > 0.05


# ---------------------------------------------------------------------- invariants


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    number=st.integers(2, 4),
    scale=st.sampled_from([0.1, 3.0, 50.0, 1e4]),
    shape=st.sampled_from([(1, 2, 2, 2, 2), (2, 3, 4, 3), (1, 4, 1, 3, 1)]),
)
def test_losses_are_finite_not_negative_and_zero_for_equal_branches(seed, number, scale, shape):
    branches = branches_of(shape, number=number, seed=seed, scale=scale)
    for loss in (uncertainty_weighted_consistency, multi_view_class_consistency):
        leaves = [branch.clone().requires_grad_() for branch in branches]
        value = loss(leaves)
        value.backward()
        assert value.item() >= -1e-6
        assert all(torch.isfinite(leaf.grad).all() for leaf in leaves)
        assert loss([branches[0]] * number).item() == pytest.approx(0, abs=1e-5)


def test_order_of_the_branches_does_not_matter():
    branches = branches_of(SHAPES[0])
    for loss in (uncertainty_weighted_consistency, multi_view_class_consistency):
        assert loss(branches).item() == pytest.approx(loss(branches[::-1]).item(), rel=1e-5)


@pytest.mark.parametrize("loss", [uncertainty_weighted_consistency, multi_view_class_consistency])
def test_a_single_branch_agrees_with_itself(loss):
    assert loss(branches_of(SHAPES[0], number=1)).item() == pytest.approx(0, abs=1e-6)


def gradient(loss, *, shape=(1, 3, 3, 3, 3), **options):
    """Of the first branch's logits."""
    logits = [2 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    logits[0].requires_grad_()
    loss([log_probabilities(one) for one in logits], **options).backward()
    return logits[0].grad


def test_gradient_with_a_moving_target_is_that_of_the_whole_loss():
    logits = [
        2 * torch.randn(1, 3, 3, 3, 3, generator=torch.Generator().manual_seed(seed)).double() for seed in range(3)
    ]
    direction = torch.randn(logits[0].shape, generator=torch.Generator().manual_seed(9)).double()
    for loss, reference in (
        (uncertainty_weighted_consistency, reference_uspc),
        (multi_view_class_consistency, reference_mpcc),
    ):
        up, down = (
            reference(
                [(logits[0] + sign * 1e-4 * direction).log_softmax(1), *(one.log_softmax(1) for one in logits[1:])]
            )
            for sign in (1, -1)
        )
        found = (gradient(loss, detach_target=False) * direction).sum().item()
        assert found == pytest.approx((up - down) / 2e-4, rel=1e-3)


def test_target_that_is_the_mean_may_as_well_be_fixed_but_for_its_weights():
    """The mean has the least summed divergence from the branches, so that moving it a little changes nothing."""
    for loss, options in (
        (multi_view_class_consistency, {}),
        (uncertainty_weighted_consistency, {"uncertainty_weights": False}),
    ):
        fixed, moving = (gradient(loss, detach_target=detach, **options) for detach in (True, False))
        assert torch.allclose(fixed, moving, atol=1e-7)
        assert fixed.abs().max() > 1e-5
    fixed, moving = (gradient(uncertainty_weighted_consistency, detach_target=detach) for detach in (True, False))
    assert (fixed - moving).norm() > 0.1 * fixed.norm()


def test_the_target_is_fixed_unless_asked_otherwise():
    fixed = gradient(uncertainty_weighted_consistency, detach_target=True)
    assert torch.equal(gradient(uncertainty_weighted_consistency), fixed)


def test_large_volumes_do_not_overflow_under_half_precision():
    branches = [branch.half() for branch in branches_of((1, 2, 8, 300, 300), number=2)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = multi_view_class_consistency(branches)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(multi_view_class_consistency([b.float() for b in branches]).item(), rel=1e-3)


def test_mean_and_entropy_are_those_of_probabilities():
    branches = branches_of(SHAPES[0])
    mean = sum(branch.exp() for branch in branches) / 3
    assert torch.allclose(mean_log_probabilities(branches).exp(), mean, atol=1e-6)
    expected = -(mean * mean.log()).sum(1, keepdim=True)
    assert torch.allclose(entropy(mean.log()), expected, atol=1e-6)
    assert entropy(torch.full((1, 4, 2, 2), math.log(0.25))).unique().item() == pytest.approx(math.log(4))
