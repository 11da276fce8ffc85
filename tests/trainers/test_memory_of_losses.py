"""What losses keep for the backward pass, which grows with the number of labels: the pages say how much it is."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from nnunet_ext.trainers import (
    nnUNetTrainerConfigurable,
    nnUNetTrainerDBDMP,
    nnUNetTrainerPartialLabels,
    nnUNetTrainerTDNet,
)
from support.changed_trainers import changed_trainer

LABELS = {"background": 0} | {f"organ {number}": number for number in range(1, 14)}


@pytest.mark.parametrize(
    ("trainer_class", "branches", "documented"),
    [
        (nnUNetTrainerConfigurable, 1, 3),
        (nnUNetTrainerPartialLabels, 1, 4),
        (nnUNetTrainerDBDMP, 2, 10),
        (nnUNetTrainerTDNet, 3, 13),
    ],
)
def test_numbers_kept_for_each_voxel_and_label_at_full_resolution(
    trainer_class, branches, documented, workspace, results
):
    trainer = changed_trainer(trainer_class, patch=(16, 16, 16), dataset={"labels": LABELS})
    trainer.enable_deep_supervision = False  # further heads have few voxels
    trainer.initialize()
    trainer.on_train_epoch_start()
    shape = (2, len(LABELS), 16, 16, 16)
    logits = [torch.randn(shape, requires_grad=True) for _ in range(branches)]
    target = torch.randint(0, len(LABELS), (2, 1, *shape[2:])).float()
    batch = {"target": target, "inside": torch.ones_like(target, dtype=torch.bool)}
    if trainer_class is nnUNetTrainerPartialLabels:  # each case lacks some
        annotated = torch.ones(shape[:2], dtype=torch.bool)
        annotated[0, 3:5] = annotated[1, 5:9] = False
        batch["annotated"] = annotated
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = trainer.loss_terms(logits if branches > 1 else logits[0], batch)
    assert all(torch.isfinite(term) for term in terms.values())
    for one in logits:
        kept.pop(one.untyped_storage().data_ptr(), None)
    numbers = sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / 4
    assert round(numbers / logits[0].numel()) == documented
