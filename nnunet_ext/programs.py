"""Programs that commands start: finding them, and ending them with everything that they have started."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from nnunet_ext.errors import UserError
from nnunet_ext.machine import FEW_CORES
from nnunet_ext.registration import VARIABLE, extended_value
from nnunet_ext.training_log import last_lines

PATIENCE_S = 10.0
PAUSE_S = 0.05


class CommandFailed(Exception):
    """A command did not succeed; the message names it, its last output and its log."""


def check_status(status: int, line: str, log: Path) -> None:
    """Raise a CommandFailed unless the exit status of a command, whose output is in a log, is 0."""
    if status != 0:
        raise CommandFailed(
            f"this command failed with status {status}:\n  {line}\nIts last output, from {log}:\n{output_tail(log)}"
        )


def output_tail(log: Path) -> str:
    """The last lines of a command's output, indented."""
    return "\n".join(f"    {text}" for text in last_lines(log, 12))


def find_executable(name: str) -> Path:
    """A program of this Python environment, else on PATH; a UserError if it is in neither place."""
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name)
    if found is None:
        raise UserError(f"{name} is neither beside {sys.executable} nor on PATH. Install nnunet_ext with pip first.")
    return Path(found)


def child_environment(out: Path, present: Mapping[str, str], *, cores: int) -> dict[str, str]:
    """The variables that the commands need beside those that are set; `out` is absolute.

    With at most four cores, nnU-Net is held to fewer worker processes than its defaults, unless the user chose.
    """
    environment = {f"nnUNet_{part}": str(out / f"nnUNet_{part}") for part in ("raw", "preprocessed", "results")}
    environment[VARIABLE] = extended_value(present.get(VARIABLE))
    if cores <= FEW_CORES:
        # 0 would mean training without workers, but planning fails with it
        if present.get("nnUNet_n_proc_DA", "0") == "0":
            environment["nnUNet_n_proc_DA"] = "1"
        if "nnUNet_def_n_proc" not in present:
            environment["nnUNet_def_n_proc"] = "2"
    return environment


def check_system() -> None:
    """Raise a UserError on Windows."""
    if os.name == "nt":
        raise UserError("Trainings need file locks and signals that Windows does not have. Use Linux, WSL or macOS.")


@contextmanager
def running(
    command: Sequence[str], output: IO[bytes], variables: Mapping[str, str], *, pass_fds: Collection[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program; when the block ends, however it does, end the program and everything that it has started.

    `output` takes what it prints and its errors; `variables` are set beside the environment of this process.
    """
    process = subprocess.Popen(
        command,
        env={**os.environ, **variables, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # so that nnU-Net's workers can be ended together with it
        pass_fds=tuple(pass_fds),
    )
    try:
        yield process
    finally:
        end_group(process.pid, leader=process)


def end_group(group: int, *, leader: subprocess.Popen[bytes] | None = None, patience_s: float = PATIENCE_S) -> None:
    """End a group of processes, by the id of its leader: ask, wait, kill what is left, wait again.

    A leader that is a child of this process is waited for. On Windows, which has no such groups, it alone is ended.
    """
    if not hasattr(os, "killpg"):
        if leader is not None:
            leader.terminate()
            with suppress(subprocess.TimeoutExpired):
                leader.wait(timeout=patience_s)
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        # macOS forbids to signal a group of which only an ended process is left
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        if wait_until(lambda: _has_ended(group, leader), seconds=patience_s):
            return


def wait_until(condition: Callable[[], bool], *, seconds: float) -> bool:
    """Wait until a condition holds, but no longer than some time; whether it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def _has_ended(group: int, leader: subprocess.Popen[bytes] | None) -> bool:
    if leader is not None:
        leader.poll()
    return not group_exists(group)


def group_exists(group: int) -> bool:
    """Whether a process of the group is there."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
