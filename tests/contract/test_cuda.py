"""What only a CUDA device can show: mixed precision with its gradient scaler, and torch.compile as users get it."""

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunet_ext.finetuning.entries import Rows, top_entries
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable
from support.nnunet_runs import build_trainer, run_in_new_process, train
from support.trainers_under_test import EVERY_TRAINER, data_kind

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


def train_in_mixed_precision(name, kind):
    trainer = build_trainer(name, kind=kind, device="cuda")
    trainer.run_training()
    assert trainer.grad_scaler is not None
    assert np.isfinite(trainer.logger.get_value("train_losses", step=None)).all()


@pytest.mark.full
@pytest.mark.capability("mixed precision on CUDA")
@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_trains_in_mixed_precision(name, compiled, results, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", compiled)
    # in a process of its own: threads of torch.compile go on importing, and nnU-Net, as it looks for the next trainer,
    # goes through all modules ("dictionary changed size during iteration")
    assert run_in_new_process(train_in_mixed_precision, name, data_kind(name, "labels")) == 0


def test_dgst_selects_the_same_entries_as_on_the_cpu():
    rows, generator = Rows((32, 16, 3, 3, 3)), torch.Generator().manual_seed(0)
    gradient = torch.randn(rows.shape, generator=generator)
    for k in (1, 5):
        masks = []
        for device in ("cpu", "cuda"):
            mask = torch.zeros(rows.shape, dtype=torch.bool, device=device)
            mask.view(-1)[top_entries(gradient.to(device), rows, k)] = True
            masks.append(mask.cpu())
        assert torch.equal(*masks)


def test_a_strict_step_in_mixed_precision_moves_selected_entries_alone(results):
    trainer = build_trainer("nnUNetTrainerDGST", device="cuda")
    trainer.initialize()
    trainer.on_train_start()
    before = {weight: weight.detach().clone() for weight in trainer.rows}
    steps = 0
    while steps < 3:
        trainer.train_step(next(trainer.dataloader_train))
        if not trainer.optimizer.state:
            continue  # the first steps only find the loss scale
        steps += 1
        for weight, rows in trainer.rows.items():
            moved = rows.matrix(weight.detach() != before[weight]).sum(dim=1)
            assert (moved <= 1).all()
            before[weight] = weight.detach().clone()


def test_a_resumed_adamw_keeps_its_numbers_of_steps_on_the_cpu(results, monkeypatch):
    monkeypatch.setattr(nnUNetTrainerConfigurable, "default_settings", {"optimizer": "adamw"})
    train("nnUNetTrainerConfigurable", device="cuda")
    resumed = build_trainer("nnUNetTrainerConfigurable", device="cuda", resume=True)
    maybe_load_checkpoint(resumed, True, False)
    assert {state["step"].device.type for state in resumed.optimizer.state.values()} == {"cpu"}
