"""Runs a command, as a user would type it, in a child of its own: quickly, logged, and never longer than this process.

A server process has imported torch and nnU-Net once and forks, so that a command starts at once. Commands are the
console scripts of nnU-Net and of this package. ``nnUNetv2_train`` is the exception. What changes nothing about the
model is left out: the final validation, as `nnunet_ext evaluate` predicts the cases again, and the picture of the
curves, which takes a tenth of the time of a small training.

``nnunet_ext jobs`` is not used: its sweeps are trainers × folds × seeds of one configuration of one dataset, while each
training here has a configuration of its own, and some wait for the scores or the model of others.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from nnunet_ext.programs import CommandFailed, end_group

PRELOADED = [
    "nnunetv2.run.run_training",
    "nnunetv2.training.nnUNetTrainer.primus.primus_trainers",  # whoever looks up a trainer of ours imports it, for 3 s
    "nnunet_ext.trainers",
    "nnunet_ext.commands.evaluate",
]
WORKERS = "BENCHMARKS_AUGMENTATION_WORKERS"
"""The variable with the user's nnUNet_n_proc_DA, for trainings alone: planning fails with 0."""

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"


class Children:
    """The commands that run now, each begun and waited for by a thread of its own."""

    def __init__(self) -> None:
        self.are_stopped = False
        self._running: set[int] = set()
        # also because a child's end is read once: what starts the next one looks whether others have ended
        self._guard = threading.Lock()

    def run(self, command: Sequence[str], log: Path) -> None:
        """Run a console script to its end; everything that it has started ends with it.

        Raises:
            CommandFailed: if it does not exit with 0, or may not start any more.
        """
        context: Any = multiprocessing.get_context(METHOD)
        child = context.Process(target=_carry_out, args=(list(command), str(log)), daemon=False)
        with self._guard:
            if self.are_stopped:
                raise CommandFailed(f"{command[0]} was not begun")
            if METHOD == "forkserver":
                context.set_forkserver_preload(PRELOADED)
            child.start()
            self._running.add(child.pid)
        try:
            wait([child.sentinel])
        finally:
            end_group(child.pid)
            with self._guard:
                child.join()
                self._running.remove(child.pid)
        if child.exitcode != 0:
            raise CommandFailed(f"status {child.exitcode} of {' '.join(command)}; its output is in {log}")

    def stop(self) -> None:
        """End all that run, and let none begin."""
        with self._guard:
            self.are_stopped, running = True, list(self._running)
        for group in running:
            end_group(group)


def _carry_out(command: list[str], log: str) -> None:
    """In the child: write to the log, and end with whoever started it, even if that was killed."""
    if hasattr(os, "setsid"):
        os.setsid()
        keep_niceness()
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = command
    try:
        if command[0] == "nnUNetv2_train":
            train(command)
        else:
            (script,) = entry_points(group="console_scripts", name=command[0])
            sys.exit(script.load()())
    except Exception:  # of a command, whatever it is: it belongs to the log, and the status to the parent
        traceback.print_exc()
        sys.exit(1)


def keep_niceness() -> None:
    """Give this process's niceness to its session, too: Linux may share its time out by sessions first (autogroups)."""
    for _ in range(20):
        with suppress(OSError):  # the file is of Linux alone, and not every kernel has it
            try:
                Path("/proc/self/autogroup").write_text(str(os.nice(0)), encoding="ascii")
            except BlockingIOError:  # Linux takes one such line in a tenth of a second
                time.sleep(0.1)
                continue
        return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    if hasattr(os, "killpg"):
        os.killpg(0, 9)
    os._exit(1)


def train(command: Sequence[str]) -> None:
    """Do what ``nnUNetv2_train D C FOLD -tr T -p PLANS -device DEVICE [-pretrained_weights FILE] [--c]`` does, but
    validate and draw."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    import nnunet_ext

    _, dataset, configuration, fold, _, trainer_name, _, plans, _, device, *more = command
    resumes = "--c" in more
    pretrained = more[1] if more[:1] == ["-pretrained_weights"] and not resumes else None
    nnunet_ext.register()
    if os.environ.get(WORKERS):
        os.environ["nnUNet_n_proc_DA"] = os.environ[WORKERS]
    trainer = get_trainer_from_args(
        dataset, configuration, int(fold), trainer_name, plans, resumes, device=torch.device(device)
    )
    maybe_load_checkpoint(trainer, resumes, False, pretrained)
    trainer.logger.plot_progress_png = lambda folder: None
    trainer.run_training()
