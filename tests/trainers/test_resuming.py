"""A training that goes on, or begins beside the checkpoints of another: what is read, kept, refused and told."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunet_ext.errors import UserError
from nnunet_ext.trainers import nnUNetTrainerConfigurable
from nnunet_ext.trainers.resuming import ALLOW_CHANGED_SETTINGS, best_dice_before, earlier_run, read_extra_state
from support.changed_trainers import changed_trainer
from support.nnunet_runs import build_trainer, train

THREE_EPOCHS = "3d_tiny_three_epochs"


def checkpoint(file: Path, **changes: object) -> Path:
    content = {"network_weights": {"w": torch.zeros(2)}, "current_epoch": 2, "_best_ema": np.float64(0.5)}
    torch.save({**content, "nnunet_ext": {"version": "1"}, **changes}, file)
    return file


# ---------------------------------------------------------------------- reading


def refused_mapping(monkeypatch, error: Exception | None = None) -> None:
    """Have torch read as where files cannot be mapped into memory; or not at all."""
    load = torch.load

    def limited(file, *arguments, mmap=None, **options):
        if error is not None:
            raise error
        if mmap:
            raise RuntimeError(f"unable to mmap 1376 bytes from file <{file}>: No such device (19)")
        return load(file, *arguments, **options)

    monkeypatch.setattr(torch, "load", limited)


def test_a_checkpoint_is_read_where_files_cannot_be_mapped_into_memory(tmp_path, monkeypatch):
    file = checkpoint(tmp_path / "checkpoint_best.pth")
    refused_mapping(monkeypatch)
    assert read_extra_state(str(file)) == {"version": "1"}
    assert best_dice_before(2, tmp_path) == 0.5


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, os.strerror(errno.EIO)), PermissionError(errno.EACCES, os.strerror(errno.EACCES))]
)
def test_what_hinders_reading_is_not_called_damage(tmp_path, monkeypatch, error):
    file = checkpoint(tmp_path / "checkpoint_latest.pth")
    refused_mapping(monkeypatch, error)
    with pytest.raises(UserError, match=rf"checkpoint_latest\.pth cannot be read \({error.strerror}\)") as raised:
        read_extra_state(str(file))
    assert "remove" not in str(raised.value)
    assert "damaged" not in str(raised.value)


def test_a_damaged_checkpoint_may_be_removed(tmp_path):
    file = checkpoint(tmp_path / "checkpoint_latest.pth")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot be read as a checkpoint .* It is damaged or cut off: remove it"):
        read_extra_state(str(file))


# ---------------------------------------------------------------------- the best checkpoint


@pytest.mark.parametrize(("epoch", "expected"), [(1, None), (2, 0.5), (3, 0.5)])
def test_the_best_so_far_is_that_of_epochs_that_do_not_come_again(tmp_path, epoch, expected):
    checkpoint(tmp_path / "checkpoint_best.pth")
    assert best_dice_before(epoch, tmp_path) == expected


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off", b"text"])
def test_without_a_readable_best_checkpoint_nothing_tells(tmp_path, content):
    if content is not None:
        (tmp_path / "checkpoint_best.pth").write_bytes(content)
    assert best_dice_before(9, tmp_path) is None


class Interrupted(Exception):
    """In place of a kill."""


@pytest.mark.parametrize("scores", [(0.5, 1.0, 0.3), (0.5, 0.5, 0.3)], ids=["best in epoch 1", "best in epoch 0"])
def test_a_worse_epoch_does_not_replace_the_best_after_an_interruption(workspace, results, monkeypatch, scores):
    """nnU-Net writes checkpoint_latest.pth of the best epoch before it knows that this is the best."""

    def on_validation_epoch_end(self, outputs):
        score = scores[self.current_epoch]
        self.logger.log("mean_fg_dice", score, self.current_epoch)
        self.logger.log("dice_per_class_or_region", [score, score], self.current_epoch)
        self.logger.log("val_losses", 0.0, self.current_epoch)

    def interrupted(self, batch):
        if self.current_epoch == 2:
            raise Interrupted
        return train_step(self, batch)

    train_step = nnUNetTrainerConfigurable.train_step
    monkeypatch.setattr(nnUNetTrainerConfigurable, "on_validation_epoch_end", on_validation_epoch_end)
    with monkeypatch.context() as patch:
        patch.setattr(nnUNetTrainerConfigurable, "train_step", interrupted)
        with pytest.raises(Interrupted):
            train("nnUNetTrainerConfigurable", THREE_EPOCHS)
    folder = next(results.glob("*/*/fold_0"))
    best = folder / "checkpoint_best.pth"
    before = best.read_bytes()
    recorded = torch.load(folder / "checkpoint_latest.pth", weights_only=False)["_best_ema"]

    trainer = train("nnUNetTrainerConfigurable", THREE_EPOCHS, resume=True)
    expected = max(0.5, 0.9 * 0.5 + 0.1 * scores[1])
    assert recorded == 0.5, "the checkpoint itself is as nnU-Net writes it"
    assert trainer._best_ema == pytest.approx(expected)
    assert trainer.current_epoch == 3
    assert best.read_bytes() == before


# ---------------------------------------------------------------------- validation after a training that went on


def test_the_best_checkpoint_of_a_training_that_went_on_with_other_settings_can_be_validated(
    workspace, results, monkeypatch
):
    """``--c --val_best`` loads it after the training."""
    before = train("nnUNetTrainerConfigurable", "3d_tiny")
    old = Path(before.output_folder, "checkpoint_best.pth")
    longer = changed_trainer(nnUNetTrainerConfigurable, num_epochs=2)
    content = longer.plans_manager.plans
    shutil.copy(old, results / "kept.pth")

    def resumed():
        made = nnUNetTrainerConfigurable(
            {**content, "continue_training": True}, "3d_tiny", 0, longer.dataset_json, torch.device("cpu")
        )
        maybe_load_checkpoint(made, True, False)
        made.run_training()
        return made

    with monkeypatch.context() as patch:
        patch.setenv(ALLOW_CHANGED_SETTINGS, "1")
        assert resumed().current_epoch == 2
    shutil.copy(results / "kept.pth", old)  # as if no later epoch had been better
    trainer = resumed()
    trainer.load_checkpoint(str(old))
    assert trainer.current_epoch == 1
    assert "Settings differ" in Path(trainer.log_file).read_text()

    again = build_trainer("nnUNetTrainerConfigurable", resume=True)
    again.is_resuming = True
    again.settings = longer.settings
    with pytest.raises(UserError, match=r"num_epochs: 1 -> 2"):
        again.load_checkpoint(str(old))


# ---------------------------------------------------------------------- beginning beside an earlier run


def test_a_training_that_begins_beside_an_earlier_run_says_that_it_would_be_resumed(workspace, results):
    first = train("nnUNetTrainerConfigurable")
    assert "of an earlier run" not in Path(first.log_file).read_text()
    Path(first.log_file).unlink()  # their names have the second
    again = train("nnUNetTrainerConfigurable")
    log = Path(again.log_file).read_text()
    assert "WARNING: " in log
    assert "checkpoint_final.pth is of an earlier run, and this training begins anew." in log
    Path(again.log_file).unlink()
    resumed = train("nnUNetTrainerConfigurable", resume=True)
    assert "of an earlier run" not in Path(resumed.log_file).read_text()


def test_the_file_that_nnunet_would_go_on_with_is_named(tmp_path):
    assert earlier_run(tmp_path, 5) is None
    (tmp_path / "checkpoint_best.pth").touch()
    assert earlier_run(tmp_path, 5) is None, "replaced after the first epoch"
    (tmp_path / "checkpoint_latest.pth").touch()
    told = earlier_run(tmp_path, 5)
    assert f"{tmp_path / 'checkpoint_latest.pth'} is of an earlier run" in told
    assert "its own checkpoint_latest.pth (every 5 epochs)" in told
    (tmp_path / "checkpoint_final.pth").touch()
    assert "its own checkpoint_final.pth (at its end)" in earlier_run(tmp_path, 5)
