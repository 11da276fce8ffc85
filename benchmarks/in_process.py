"""nnU-Net's training and this package's commands in the process of a benchmark, with the output in a log file.

On few cores, starting a process and importing takes as long as a short training; so many short ones share one process.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

import nnunet_ext
from nnunet_ext import cli
from nnunet_ext.cli import FINE
from nnunet_ext.demo.run import CommandFailed

INTERRUPTED = 130


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the time of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def logged(log: Path) -> Iterator[None]:
    """Write what is printed, and the traceback of an error, to a file."""
    with log.open("w", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            yield
        except BaseException:
            traceback.print_exc()
            raise


def run_command(command: Sequence[str], *, environment: Mapping[str, str], log: Path | None = None) -> None:
    """Run a command of this package.

    Args:
        command: with its name ``nnunet_ext``.
        environment: variables beside those that are set.
        log: where its output goes; None leaves it on the terminal.

    Raises:
        CommandFailed: if it did not end well.
        KeyboardInterrupt: if it was interrupted, which the command turns into a status.
    """
    with variables(environment):
        if log is None:
            status = cli.main(list(command[1:]))
        else:
            with logged(log):
                status = cli.main(list(command[1:]))
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status != FINE:
        place = "" if log is None else f"; its output is in {log}"
        raise CommandFailed(f"this command failed with status {status}: {' '.join(command)}{place}")


def train(command: Sequence[str], *, resume: bool, environment: Mapping[str, str], log: Path) -> None:
    """Do what ``nnUNetv2_train DATASET CONFIGURATION FOLD -tr TRAINER -p PLANS -device DEVICE`` does, but validate.

    The final validation predicts the fold's validation cases and changes nothing about the model.

    Args:
        command: the above, ``-pretrained_weights FILE`` may follow.
        resume: go on from a checkpoint; pre-trained weights are in it already.
        environment: variables beside those that are set.
        log: where the output goes.
    """
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    _, dataset, configuration, fold, _, trainer_name, _, plans, _, device, *more = command
    pretrained = more[1] if more and not resume else None
    with variables(environment), logged(log):
        nnunet_ext.register()
        trainer = get_trainer_from_args(
            dataset, configuration, int(fold), trainer_name, plans, resume, device=torch.device(device)
        )
        maybe_load_checkpoint(trainer, resume, False, pretrained)
        trainer.run_training()
