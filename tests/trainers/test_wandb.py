"""What arrives at Weights & Biases by nnU-Net's own logger: terms and observations of the techniques, by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.logging import nnunet_logger

from support.nnunet_runs import build_trainer, train
from support.wandb_stand_in import WandbStandIn

CONFIGURATION = "3d_tiny_three_epochs"
OF_TDNET = ["loss/partial_ce", "loss/uspc", "loss/mpcc", "tdnet/ramp"]


@pytest.fixture
def wandb(results, monkeypatch):
    stand_in = WandbStandIn()
    monkeypatch.setattr(nnunet_logger, "wandb", stand_in)
    monkeypatch.setenv("nnUNet_wandb_enabled", "1")
    return stand_in


def stop_before(epoch: int, trainer: Any) -> None:
    """Train until an epoch begins."""

    def start() -> None:
        if trainer.current_epoch == epoch:
            raise KeyboardInterrupt
        type(trainer).on_epoch_start(trainer)

    trainer.on_epoch_start = start
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()


def test_terms_and_observations_arrive_with_their_epoch(wandb):
    trainer = train("nnUNetTrainerTDNet", CONFIGURATION, kind="ignore")
    (rows,) = wandb.history.values()
    assert list(rows) == [0, 1, 2]
    for name in ["train_losses", "val_losses", "mean_fg_dice", *OF_TDNET]:
        assert [row[name] for row in rows.values()] == trainer.logger.get_value(name, step=None)
    assert all("dice_per_class_or_region/class_2" in row for row in rows.values())
    assert next(iter(wandb.configs.values()))["nnunet_ext"] == trainer.settings_record()


def test_continued_training_goes_on_with_its_run(wandb):
    stop_before(2, build_trainer("nnUNetTrainerTDNet", CONFIGURATION, kind="ignore"))
    (rows,) = wandb.history.values()
    assert list(rows) == [0, 1]
    continued = train("nnUNetTrainerTDNet", CONFIGURATION, kind="ignore", resume=True)
    assert len(wandb.history) == 1
    assert list(rows) == [0, 1, 2]
    for name in ["train_losses", *OF_TDNET]:
        assert [row[name] for row in rows.values()] == continued.logger.get_value(name, step=None)


def test_a_term_that_an_epoch_has_not_is_nan_there(wandb):
    trainer = build_trainer("nnUNetTrainerMixUp", CONFIGURATION)
    whole_step = trainer.train_step

    def train_step(batch):
        output = whole_step(batch)
        return {"loss": output["loss"]} if trainer.current_epoch == 1 else output

    trainer.train_step = train_step
    trainer.run_training()
    (rows,) = wandb.history.values()
    assert [row["loss/mixup"] == row["loss/mixup"] for row in rows.values()] == [True, False, True]


def test_changed_settings_go_on_in_a_new_run_once_the_folder_of_the_old_one_is_gone(wandb):
    """W&B refuses other plans in nnU-Net's own lines; the documentation says what to do."""
    first = build_trainer("nnUNetTrainerTDNet", CONFIGURATION, kind="ignore")
    stop_before(1, first)
    only = next(iter(wandb.configs.values()))
    dict.update(only, plans={**only["plans"], "nnunet_ext": "other settings"})
    with pytest.raises(ValueError, match="plans"):
        build_trainer("nnUNetTrainerTDNet", CONFIGURATION, kind="ignore", resume=True)
    (Path(first.output_folder) / "wandb").rename(Path(first.output_folder) / "earlier")
    continued = build_trainer("nnUNetTrainerTDNet", CONFIGURATION, kind="ignore", resume=True)
    maybe_load_checkpoint(continued, True, False)
    continued.run_training()
    assert [list(rows) for rows in wandb.history.values()] == [[0], [1, 2]]


def test_nothing_is_sent_unless_it_is_asked_for(wandb, monkeypatch):
    monkeypatch.delenv("nnUNet_wandb_enabled")
    train("nnUNetTrainerMixUp")
    assert not wandb.started
