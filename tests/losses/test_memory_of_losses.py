"""What losses keep for the backward pass, which grows with the number of labels: the pages say how much it is."""

import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch.autograd.graph import saved_tensors_hooks

from nnunet_ext.losses.consistency import multi_view_class_consistency, uncertainty_weighted_consistency
from nnunet_ext.losses.hard_labels import (
    label_log_probabilities,
    log_probabilities,
    one_hot,
    partial_cross_entropy,
    tversky_loss,
)
from nnunet_ext.losses.partial_instances import (
    divergence_weighted_cross_entropy,
    mixed_pseudo_labels,
    symmetric_cross_entropy,
)

SHAPE = (2, 14, 16, 16, 16)


def stock(branches, labels, inside):
    dice = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, dice_class=MemoryEfficientSoftDiceLoss)(branches[0], labels)


def dbdmp(branches, labels, inside):
    target = one_hot(labels, SHAPE[1])
    main, auxiliary = map(log_probabilities, branches)
    total = torch.zeros(())
    for log_p in (main, auxiliary):
        of_label = label_log_probabilities(log_p, target)
        total = total + tversky_loss(log_p, target, inside) + symmetric_cross_entropy(of_label, inside)
        total = total + partial_cross_entropy(of_label, labels > 0)
    pseudo_labels = mixed_pseudo_labels(main, auxiliary, target, labels > 0, ratio=0.3)
    for one, other in ((main, auxiliary), (auxiliary, main)):
        total = total + divergence_weighted_cross_entropy(one, other, pseudo_labels, inside)
    return total


def tdnet(branches, labels, inside):
    target, log_ps = one_hot(labels, SHAPE[1]), list(map(log_probabilities, branches))
    supervised = [partial_cross_entropy(label_log_probabilities(log_p, target), inside) for log_p in log_ps]
    consistency = uncertainty_weighted_consistency(log_ps, inside) + multi_view_class_consistency(log_ps, inside)
    return torch.stack(supervised).sum() + consistency


@pytest.mark.parametrize(("loss", "branches", "documented"), [(stock, 1, 3), (dbdmp, 2, 12), (tdnet, 3, 14)])
def test_numbers_kept_for_each_voxel_and_label_at_full_resolution(loss, branches, documented):
    labels = torch.randint(0, SHAPE[1], (SHAPE[0], 1, *SHAPE[2:]))
    logits = [torch.randn(SHAPE, requires_grad=True) for _ in range(branches)]
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(logits, labels, torch.ones_like(labels, dtype=torch.bool))
    for one in logits:
        kept.pop(one.untyped_storage().data_ptr(), None)
    numbers = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4
    assert round(numbers / logits[0].numel()) == documented
