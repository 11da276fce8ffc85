"""What only a CUDA device can show: mixed precision with its gradient scaler, and torch.compile as users get it."""

import numpy as np
import pytest
import torch

from support.nnunet_runs import build_trainer
from support.trainers_under_test import EVERY_TRAINER, data_kind

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


@pytest.mark.parametrize("compiled", ["false", "true"])
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_trains_in_mixed_precision(name, compiled, results, monkeypatch):
    monkeypatch.setenv("nnUNet_compile", compiled)
    trainer = build_trainer(name, kind=data_kind(name, "labels"), device="cuda")
    trainer.run_training()
    assert trainer.grad_scaler is not None
    assert np.isfinite(trainer.logger.get_value("train_losses", step=None)).all()
