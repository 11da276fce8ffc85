"""A training that is killed and continued with ``--c`` ends as if nothing had happened."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from support.nnunet_runs import run_in_new_process, train
from support.trainers_under_test import EVERY_TRAINER, data_kind, trainer_class

CONFIGURATION = "3d_tiny_three_epochs"


def train_and_be_killed(name: str, kind: str, threads: int) -> None:
    """Train until the middle of the last epoch, then die as by ``kill -9``."""
    torch.set_num_threads(threads)  # which decides the last digits
    cls = trainer_class(name)
    whole_step = cls.train_step

    def train_step(self, batch):
        output = whole_step(self, batch)
        if self.current_epoch == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return output

    cls.train_step = train_step
    train(name, CONFIGURATION, kind=kind)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL and no forkserver")
@pytest.mark.capability("killed and resumed")
@pytest.mark.parametrize("name", EVERY_TRAINER)
def test_killed_and_continued_equals_uninterrupted(name, results, tmp_path, monkeypatch):
    kind = data_kind(name, "labels")
    assert run_in_new_process(train_and_be_killed, name, kind, torch.get_num_threads()) == -signal.SIGKILL
    interrupted_folder = next(results.glob("*/*/fold_0"))
    assert (interrupted_folder / "checkpoint_latest.pth").is_file()
    assert not (interrupted_folder / "checkpoint_final.pth").exists()
    continued = train(name, CONFIGURATION, kind=kind, resume=True)

    monkeypatch.setenv("nnUNet_results", str(tmp_path / "uninterrupted"))
    uninterrupted = train(name, CONFIGURATION, kind=kind)

    losses = {run: run.logger.get_value("train_losses", step=None) for run in (continued, uninterrupted)}
    assert len(losses[continued]) == 3
    assert losses[continued] == losses[uninterrupted]
    expected = uninterrupted.network.state_dict()
    differing = [key for key, value in continued.network.state_dict().items() if not torch.equal(value, expected[key])]
    assert not differing
