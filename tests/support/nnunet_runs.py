"""nnU-Net's training and commands, in this process or in a new one."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

from support.tiny_data import KINDS

PRELOADED = [
    "nnunetv2.run.run_training",
    "nnunetv2.inference.predict_from_raw_data",
    "nnunetv2.training.nnUNetTrainer.primus.primus_trainers",  # whoever looks up a trainer of ours imports it, for 3 s
    "nnunet_ext.trainers.base",
]


def build_trainer(
    trainer: str,
    configuration: str = "3d_tiny",
    *,
    kind: str = "labels",
    fold: int | str = 0,
    plans: str = "nnUNetPlans",
    resume: bool = False,
    device: str = "cpu",
) -> Any:
    """The trainer that ``nnUNetv2_train`` would build, found by its name."""
    return get_trainer_from_args(
        str(KINDS[kind]["id"]), configuration, fold, trainer, plans, resume, device=torch.device(device)
    )


def train(trainer: str, configuration: str = "3d_tiny", *, resume: bool = False, **options: Any) -> Any:
    """Train in this process, without nnU-Net's final validation; returns the trainer."""
    built = build_trainer(trainer, configuration, resume=resume, **options)
    maybe_load_checkpoint(built, resume, False)
    built.run_training()
    return built


def call_entry_point(entry_point: Callable[[], Any], arguments: list[str]) -> None:
    """Run one of nnU-Net's commands in this process, which keeps its number of threads: nnU-Net's commands set it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [entry_point.__name__, *arguments])
        patch.setattr(torch, "set_num_threads", lambda number: None)
        entry_point()


def fork_pools() -> None:
    """Have nnU-Net fork its pools from this process, which has imported everything and does nothing else afterwards.

    Never in the tests' own process: what forks behind used threads may crash, and nnU-Net then waits for ever.
    """
    get_context = multiprocessing.get_context
    multiprocessing.get_context = lambda method=None: get_context("fork")  # type: ignore[assignment,misc]


def run_in_new_process(target: Callable[..., Any], *arguments: Any, timeout: float = 240) -> int | None:
    """Run a function of a test module in a process that was never used before; returns its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_in_environment, args=(dict(os.environ), target, *arguments))
    process.start()
    process.join(timeout)
    if process.is_alive():
        process.kill()
        pytest.fail(f"{target.__name__} did not end within {timeout} s")
    return process.exitcode


def _in_environment(environment: dict[str, str], target: Callable[..., Any], *arguments: Any) -> None:
    os.environ.clear()
    os.environ.update(environment)
    target(*arguments)
