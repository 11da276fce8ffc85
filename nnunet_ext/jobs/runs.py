"""One training of a sweep: claim it, run nnU-Net's command, remember how it ended."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from nnunet_ext.jobs.claims import PATIENCE_S, Claim
from nnunet_ext.jobs.sweep import FAILED, FINISHED, RUNNING, STOPPED, WAITING, Record, Sweep, Training
from nnunet_ext.programs import running
from nnunet_ext.registration import VARIABLE, extended_value

POLL_S = 0.2


def identity(sweep: Sweep) -> dict[str, Any]:
    """What this process writes into its claims."""
    return {"sweep": str(sweep.folder), "host": socket.gethostname(), "pid": os.getpid()}


def is_open(sweep: Sweep, training: Training) -> bool:
    """Whether a training may be taken: it is to be done, or whoever did it was killed."""
    return sweep.record(training).state in (WAITING, RUNNING) and not sweep.is_finished(training)


def take(
    sweep: Sweep, trainings: Iterable[Training], *, patience_s: float = PATIENCE_S
) -> tuple[Training, Claim] | None:
    """The first training that is open and that nobody is at work on, claimed; None if there is none."""
    for training in trainings:
        if not is_open(sweep, training):
            continue
        claim = Claim(sweep.claim_file(training))
        if not claim.take(identity(sweep), patience_s=patience_s):
            continue
        if is_open(sweep, training):  # it may have been finished between the look and the claim
            return training, claim
        claim.release()
    return None


def run_training(
    sweep: Sweep,
    training: Training,
    claim: Claim,
    program: str,
    is_asked_to_end: Callable[[], bool],
    *,
    gpu: str | None = None,
    shell: Sequence[str] = (),
) -> tuple[Record, int | None]:
    """Run nnU-Net's command to its end, or until it is to end; nothing of it is left running.

    Args:
        sweep: the training's.
        training: from `take`.
        claim: from `take`.
        program: path of ``nnUNetv2_train``.
        is_asked_to_end: asked again and again.
        gpu: value of CUDA_VISIBLE_DEVICES for the command; None leaves it as it is.
        shell: what the command is started by.

    Returns:
        What is to be remembered, and the exit status; None if the command was ended from here.
    """
    command = sweep.command(training)
    record = Record(RUNNING, sweep.record(training).attempts + 1)
    sweep.remember(training, record)
    variables = {**sweep.request.folders, VARIABLE: extended_value(os.environ.get(VARIABLE))}
    if gpu is not None:
        variables["CUDA_VISIBLE_DEVICES"] = gpu
    with sweep.log(training).open("ab") as output:
        time_now = datetime.now().astimezone().isoformat(timespec="seconds")
        output.write(f"\n[{time_now}, attempt {record.attempts}] $ {shlex.join(command)}\n".encode())
        output.flush()
        # if this process is killed, the training stays claimed as long as the command goes on
        with running([*shell, program, *command[1:]], output, variables, pass_fds=[claim.fileno()]) as process:
            claim.write({**identity(sweep), "group": process.pid})
            status = _wait(process, is_asked_to_end)
    if status is None:
        return replace(record, state=STOPPED, reason="ended by a signal"), None
    if status == 0:
        return replace(record, state=FINISHED), 0
    return replace(record, state=FAILED, reason=describe_status(status)), status


def describe_status(status: int) -> str:
    """An exit status in words."""
    return f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _wait(process: subprocess.Popen[bytes], is_asked_to_end: Callable[[], bool]) -> int | None:
    """The exit status of a process, None if it is to be ended first."""
    while not is_asked_to_end():
        try:
            return process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            continue
    return None
