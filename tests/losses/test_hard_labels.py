import math

import numpy as np
import pytest
import torch

from nnunet_ext.losses.hard_labels import one_hot, squared_dice_loss


def case(seed=0, shape=(2, 3, 4, 5)):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(shape, generator=generator)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=generator)
    mask = torch.rand(labels.shape, generator=generator) < 0.5
    return logits.log_softmax(1), labels, mask


@pytest.mark.parametrize("masked", [False, True])
def test_squared_dice_against_a_count_of_every_voxel(masked):
    log_p, labels, mask = case()
    per_class = []
    for label in range(3):
        both = sizes = 0.0
        for place in np.ndindex(2, 4, 5):
            b, x, y = place
            if masked and not mask[b, 0, x, y]:
                continue
            p, is_it = log_p[b, label, x, y].double().exp().item(), float(labels[b, 0, x, y] == label)
            both, sizes = both + p * is_it, sizes + p**2 + is_it
        per_class.append(1 - (2 * both + 1e-5) / (sizes + 1e-5))
    found = squared_dice_loss(log_p, one_hot(labels, 3), mask if masked else None)
    assert found.item() == pytest.approx(sum(per_class) / 3, rel=1e-5)


def test_squared_dice_of_one_voxel_by_hand():
    log_p = torch.tensor([math.log(0.2), math.log(0.8)]).reshape(1, 2, 1, 1)
    target = one_hot(torch.ones(1, 1, 1, 1, dtype=torch.long), 2)
    # foreground 1 - 1.6 / 1.64; background, which is not there, 1 - 0 / .04
    expected = (1 - (1.6 + 1e-5) / (1.64 + 1e-5) + 1 - 1e-5 / (0.04 + 1e-5)) / 2
    assert squared_dice_loss(log_p, target).item() == pytest.approx(expected, rel=1e-5)
    assert squared_dice_loss(target.float().clamp_min(1e-30).log(), target).item() == pytest.approx(0, abs=1e-6)


def test_squared_dice_of_nothing_is_zero_and_has_no_gradient():
    log_p, labels, mask = case()
    log_p.requires_grad_()
    loss = squared_dice_loss(log_p, one_hot(labels, 3), torch.zeros_like(mask))
    loss.backward()
    assert loss.item() == 0
    assert not log_p.grad.any()


def test_one_hot_lies_where_the_labels_lie():
    assert one_hot(torch.zeros(1, 1, 2, 2, device="meta"), 3).device.type == "meta"
