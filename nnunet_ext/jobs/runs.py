"""One training of a sweep: claim it, run nnU-Net's command, remember how it ended."""

import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from nnunet_ext.claims import PATIENCE_S, Claim
from nnunet_ext.jobs.sweep import FAILED, FINISHED, RUNNING, STOPPED, Record, Sweep, Training
from nnunet_ext.programs import running
from nnunet_ext.registration import VARIABLE, extended_value

POLL_S = 0.2


def identity(sweep: Sweep) -> dict[str, Any]:
    """What this process writes into its claims."""
    return {"sweep": str(sweep.folder), "host": socket.gethostname(), "pid": os.getpid()}


def run_training(
    sweep: Sweep,
    training: Training,
    program: str,
    is_asked_to_end: Callable[[], bool],
    *,
    after: Callable[[Record, int | None], Record] = lambda record, status: record,
    gpu: str | None = None,
    shell: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> Record | None:
    """Run nnU-Net's command to its end, or until it is to end, unless it is done or somebody else is at work on it.

    Args:
        program: path of ``nnUNetv2_train``.
        is_asked_to_end: asked again and again.
        after: from what became of it and the exit status (None if it was ended from here), what is to be remembered.
        gpu: value of CUDA_VISIBLE_DEVICES for the command; None leaves it as it is.
        shell: what the command is started by.
        patience_s: how long to wait for somebody else.

    Returns:
        What is remembered; None if nothing was run.
    """
    with Claim(sweep.claim_file(training)) as claim:
        if not claim.take(identity(sweep), patience_s=patience_s) or sweep.is_finished(training):
            return None
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
            state, reason = STOPPED, "ended by a signal"
        elif status < 0:
            state, reason = FAILED, f"ended by {signal.Signals(-status).name}"
        else:
            state, reason = (FAILED, f"exit status {status}") if status else (FINISHED, "")
        record = after(replace(record, state=state, reason=reason), status)
        sweep.remember(training, record)
    print(f"{training.name}: {record.state} {record.reason}".rstrip(), flush=True)
    return record


def _wait(process: subprocess.Popen[bytes], is_asked_to_end: Callable[[], bool]) -> int | None:
    """The exit status of a process, None if it is to be ended first."""
    while not is_asked_to_end():
        try:
            return process.wait(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            continue
    return None
