"""What experiments that train many models share: their settings, steps in this process, options and exit status."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import in_process
from benchmarks.steps import OutOfTime, Steps, resume_option
from nnunet_ext.cli import FINE, PROBLEM, WRONG_USAGE
from nnunet_ext.demo.run import CommandFailed, CommandRunner, child_environment
from nnunet_ext.demo.stopping import stopping_signals_interrupt
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.machine import FEW_CORES
from nnunet_ext.files import read_json

T = TypeVar("T")


@dataclass(frozen=True)
class Experiment:
    """The steps of an experiment, in one folder.

    Attributes:
        out: the folder.
        device: for ``-device``.
        epochs: of a training.
        iterations: steps in an epoch.
        lrs: learning rates that the pilot tries.
        steps: runs the commands.
    """

    out: Path
    device: str
    epochs: int
    iterations: int
    lrs: Sequence[float]
    steps: Steps

    def log(self, name: str) -> Path:
        """Where the output of a step goes."""
        return self.out / "logs" / f"{name}.log"

    def extend(self, name: str, command: Sequence[str]) -> None:
        """Run one of this package's commands that only writes files, without a process of its own."""
        environment = self.steps.runner.environment
        self.steps.call(name, command, lambda: in_process.run_command(command, environment=environment))

    def train_here(self, name: str, command: Sequence[str], fold_folder: Path) -> None:
        """Train in this process, without nnU-Net's final validation; goes on where a training was stopped.

        Args:
            name: of the step.
            command: as `in_process.train` takes it.
            fold_folder: where nnU-Net writes the checkpoints.
        """
        environment, log = self.steps.runner.environment, self.log(name)
        resume = bool(resume_option(fold_folder))
        self.steps.call(
            name, command, lambda: in_process.train(command, resume=resume, environment=environment, log=log)
        )

    def evaluate_here(self, name: str, model: Path, fold: int, options: Sequence[str]) -> None:
        """Score a model by ``nnunet_ext evaluate`` in this process.

        Args:
            name: of the model.
            model: nnU-Net's folder of it.
            fold: of the model.
            options: on which cases, and with which metrics.
        """
        command = ["nnunet_ext", "evaluate", str(model), *options]
        command += ["-f", str(fold), "-o", str(self.out / "evaluations" / name), "--disable-tta"]
        command += ["--device", self.device]
        step, environment = f"evaluate_{name}", self.steps.runner.environment
        log = self.log(step)
        self.steps.call(step, command, lambda: in_process.run_command(command, environment=environment, log=log))

    def evaluation(self, name: str) -> dict[str, Any] | None:
        """What ``nnunet_ext evaluate`` found for a model; None if that is not finished."""
        if f"evaluate_{name}" not in self.steps.finished():
            return None
        return read_json(self.out / "evaluations" / name / "evaluation.json")


def shared_settings(*, epochs: int, iterations: int, seed: int, lr: float) -> dict[str, Any]:
    """The settings of every training that is compared.

    Args:
        epochs: of the training.
        iterations: steps in an epoch.
        seed: of the training.
        lr: learning rate at the start.
    """
    return {
        "seed": seed,
        "initial_lr": lr,
        "num_epochs": epochs,
        "num_iterations_per_epoch": iterations,
        "num_val_iterations_per_epoch": 1,  # nothing is chosen by the pseudo Dice that it is for
        "save_every": epochs,
        "memory_format": "channels_last",
    }


def assignments(settings: Mapping[str, Any]) -> list[str]:
    """Settings as ``nnunet_ext configure`` takes them: JSON, but plain words without quotes."""

    def text(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

    return [f"{key}={text(value)}" for key, value in settings.items()]


def environment_of(out: Path, *, cores: int) -> dict[str, str]:
    """The variables of all commands: without what pays only in long trainings."""
    environment = child_environment(out, os.environ, cores=cores)
    environment["nnUNet_compile"] = "f"
    if cores <= FEW_CORES and "nnUNet_def_n_proc" not in os.environ:
        environment["nnUNet_def_n_proc"] = "1"  # a second process takes longer to start than to validate two cases
    return environment


def resumable_steps(out: Path, environment: Mapping[str, str], *, total: int, max_minutes: float | None) -> Steps:
    """The steps of an experiment, which show how far it is and end when its time is over.

    Args:
        out: its folder.
        environment: of its commands.
        total: how many commands there are.
        max_minutes: no step begins after this time from now; None for no limit.
    """
    deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes
    return Steps(CommandRunner(dict(environment), out / "logs", total=total), out / "finished.json", deadline=deadline)


def raw_dataset_folder(name: str, *, advice: str) -> Path:
    """A dataset in the user's nnUNet_raw.

    Args:
        name: ``DatasetXXX_Name``.
        advice: sentence for the message where it is missing: what it is for, or where to get it.

    Raises:
        UserError: if it is not there.
    """
    root = os.environ.get("nnUNet_raw")
    if not root:
        raise UserError(f"The environment variable nnUNet_raw is not set. It must lead to the folder with {name}.")
    folder = Path(root).resolve() / name
    if not (folder / "dataset.json").is_file():
        raise UserError(f"{folder} is not there. {advice}")
    return folder


def shown_commands(commands: Sequence[str], finished_runs: Sequence[str]) -> list[str]:
    """Those that the table's file shows: all before the pilot and those of one run, as the others differ in names only.

    Args:
        commands: all of them.
        finished_runs: the first is the example.
    """
    first_pilot = next((n for n, line in enumerate(commands) if " pilot_" in line), len(commands))
    example = [line for line in commands if finished_runs and finished_runs[0] in line]
    left_out = len(commands) - first_pilot - len(example)
    note = [f"# and {left_out} commands of the pilot and the other runs, in the JSON file"] if left_out > 0 else []
    return [*commands[:first_pilot], *example, *note]


def run_until_stopped(run: Callable[[], object], write: Callable[[], T]) -> T:
    """Do the steps of an experiment, and write the results also of a part where something ends it early."""
    try:
        with stopping_signals_interrupt():
            run()
    except OutOfTime:
        print("The time is over; the same command goes on from here.", flush=True)
    finally:
        content = write()
    return content


def learning_rate(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def exit_status(program: str, action: Callable[[], object]) -> int:
    """Run something: 0 if it came to its end, 1 if a command failed, 2 for wrong usage, 130 if it was interrupted."""
    try:
        action()
    except UserError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return WRONG_USAGE
    except CommandFailed as error:
        print(f"{program}: {error}", file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        print(f"{program}: interrupted; the same command goes on from here.", file=sys.stderr)
        return in_process.INTERRUPTED
    return FINE
