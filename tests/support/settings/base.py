"""The general settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from nnunet_ext.trainers import nnUNetTrainerConfigurable as BASE
from support.settings import Case, last_kernel


def length(trainer: Any) -> list[int]:
    """Steps, validation batches and epochs of a run in which nothing is computed."""
    counts = dict.fromkeys(("train_step", "validation_step", "on_epoch_end"), 0)

    def counted(name: str) -> Callable[..., None]:
        def count(*_: Any) -> None:
            counts[name] += 1

        return count

    for name in ("train", "train_epoch", "epoch", "validation_epoch"):
        for moment in ("start", "end"):
            setattr(trainer, f"on_{name}_{moment}", lambda *_: None)
    for name in counts:
        setattr(trainer, name, counted(name))
    trainer.dataloader_train = trainer.dataloader_val = itertools.repeat({})
    trainer.run_training()
    return list(counts.values())


def saved_epochs(trainer: Any) -> list[int]:
    """After which epochs, by their number, the latest checkpoint is written."""
    saved = []
    trainer.save_checkpoint = lambda file: saved.append(trainer.current_epoch) if "latest" in file else None
    trainer.print_to_log_file = lambda *_: None
    trainer.logger = SimpleNamespace(
        log=lambda *_: None,
        get_value=lambda name, step: [0.5] if "per_class" in name else 0.5,
        plot_progress_png=lambda _: None,
    )
    for _ in range(trainer.num_epochs):
        trainer.on_epoch_end()
    return saved


def of_optimizer(key: str) -> Callable[[Any], Any]:
    return lambda trainer: trainer.optimizer.param_groups[0][key]


def sure_of_foreground(trainer: Any) -> list[bool]:
    """Of each sample of a batch, whether it is sure to hold foreground."""
    loader = trainer.get_dataloaders()[0].data_loader
    return [bool(loader.get_do_oversample(sample)) for sample in range(trainer.batch_size)]


def layouts(trainer: Any) -> list[bool]:
    """Whether weights and data have their channels last."""
    trainer._settle_memory_format()
    batch = trainer.prepare_batch({"data": torch.zeros(2, 3, 4, 4, 4), "target": torch.zeros(2, 1)}, training=True)
    return [one.is_contiguous(memory_format=torch.channels_last_3d) for one in (last_kernel(trainer), batch["data"])]


SHORT = {"num_epochs": 4, "num_iterations_per_epoch": 5, "num_val_iterations_per_epoch": 3}
SHORTER = {name: {key: value for key, value in SHORT.items() if key != name} for name in SHORT}

CASES = {
    "num_epochs": Case(BASE, 4, length, [20, 12, 4], SHORTER["num_epochs"]),
    "num_iterations_per_epoch": Case(BASE, 5, length, [20, 12, 4], SHORTER["num_iterations_per_epoch"]),
    "num_val_iterations_per_epoch": Case(BASE, 3, length, [20, 12, 4], SHORTER["num_val_iterations_per_epoch"]),
    "initial_lr": Case(BASE, 0.5, of_optimizer("lr"), 0.5),
    "weight_decay": Case(BASE, 0.5, of_optimizer("weight_decay"), 0.5),
    "momentum": Case(BASE, 0.5, of_optimizer("momentum"), 0.5),
    "nesterov": Case(BASE, False, of_optimizer("nesterov"), False),
    "optimizer": Case(BASE, "adamw", lambda trainer: type(trainer.optimizer).__name__, "AdamW"),
    "oversample_foreground_percent": Case(BASE, 1.0, sure_of_foreground, [True, True]),
    "save_every": Case(BASE, 40, saved_epochs, [39, 79], {"num_epochs": 100}),
    "seed": Case(BASE, 7, lambda trainer: last_kernel(trainer).flatten().tolist()),
    "memory_format": Case(BASE, "channels_last", layouts, [True, True]),
}
