"""What a job does: take trainings of a sweep, one after the other, and run nnU-Net's command for each."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

from nnunet_ext.jobs.claims import Claim
from nnunet_ext.jobs.sweep import FAILED, FINISHED, RUNNING, STOPPED, WAITING, Record, Sweep, Training
from nnunet_ext.programs import running
from nnunet_ext.registration import VARIABLE, extended_value

POLL_S = 0.2
# a job that Slurm has requeued may begin while the last processes of its former run still end
PATIENCE_OF_SLURM_S = 60.0
# between the SIGTERM that ends the command and the one that tells this process
BETWEEN_SIGNALS_S = 5.0


class TrainingsFailed(Exception):
    """Some trainings of a job have failed; the message names them."""


class Signals:
    """Notes what the process is told, to be dealt with where it is safe: never while a command is being started.

    submitit answers SIGUSR2, which announces a time limit or a preemption, by requeuing the job, and ignores SIGTERM.
    The first is put off; the second means on Slurm that the job will be killed soon, and elsewhere that it is to end.

    Args:
        on_slurm: whether the process is part of a Slurm job.
    """

    def __init__(self, *, on_slurm: bool) -> None:
        self.must_stop = False
        self.must_requeue = False
        self.will_be_killed = False
        self.requeue_signal = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        self._requeue: Any = signal.signal(self.requeue_signal, self._note_requeue)
        signal.signal(signal.SIGTERM, self._note_kill if on_slurm else self._note_stop)
        signal.signal(signal.SIGINT, self._note_stop)

    def is_asked_to_end(self) -> bool:
        """Whether the present training must be left for later."""
        return self.must_stop or self.must_requeue

    def requeue(self) -> None:
        """What submitit does on its signal: note how to go on, requeue the job and leave this process."""
        if not callable(self._requeue):
            raise RuntimeError(f"submitit handles no {self.requeue_signal.name} here.")
        self._requeue(self.requeue_signal, None)

    def _note_requeue(self, number: int, frame: FrameType | None) -> None:
        self.must_requeue = True

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self.must_stop = True

    def _note_kill(self, number: int, frame: FrameType | None) -> None:
        self.will_be_killed = True


class Worker:
    """The callable that submitit pickles. Whatever it has to know at its start lies in the sweep's folder.

    It takes the first training that is neither finished nor failed nor another's, and so on until there is none. So any
    number of workers share a sweep, and one that is started again goes on where it was.

    Args:
        folder: of the sweep, absolute.
        names: of the trainings that it may take.
        program: path of ``nnUNetv2_train``.
        lane: its number among the workers of this machine; None on Slurm.
        token: by which whoever starts a lane recognises that it has begun.
        gpu: value of CUDA_VISIBLE_DEVICES for the command; None leaves it as it is.
    """

    def __init__(
        self,
        folder: str,
        names: Sequence[str],
        program: str,
        *,
        lane: int | None = None,
        token: str = "",
        gpu: str | None = None,
    ) -> None:
        self.folder = folder
        self.names = list(names)
        self.program = program
        self.lane = lane
        self.token = token
        self.gpu = gpu

    def checkpoint(self) -> DelayedSubmission:
        """What submitit runs when the job is requeued: the same, which goes on from nnU-Net's last checkpoint."""
        return DelayedSubmission(self)

    def __call__(self) -> list[str]:
        """Work until there is nothing to take.

        Returns:
            The names of the trainings that were run.

        Raises:
            TrainingsFailed: at the end, if some have failed.
        """
        signals = Signals(on_slurm=self.lane is None)
        sweep = Sweep.read(Path(self.folder))
        if self.lane is None:
            return self._work(sweep, signals)
        with Claim(sweep.lane_file(self.lane)) as lane:
            if not lane.take(self._identity()):
                print(f"Lane {self.lane} is at work already.", flush=True)
                return []
            return self._work(sweep, signals)

    def _work(self, sweep: Sweep, signals: Signals) -> list[str]:
        done: list[str] = []
        failed: list[str] = []
        while not signals.is_asked_to_end() and (taken := self._take(sweep)) is not None:
            training, claim = taken
            with claim:
                record = self._run(sweep, training, claim, signals)
                sweep.remember(training, record)
            done.append(training.name)
            print(f"{training.name}: {record.state} {record.reason}".rstrip(), flush=True)
            if record.state == FAILED:
                failed.append(training.name)
            if record.state == WAITING:
                self._requeue(sweep, training, record, signals)
        if failed:
            raise TrainingsFailed(f"failed: {', '.join(failed)}")
        return done

    def _take(self, sweep: Sweep) -> tuple[Training, Claim] | None:
        """The next training, claimed; None if there is none."""
        for name in self.names:
            training = sweep.training(name)
            if not is_open(sweep, training):
                continue
            claim = Claim(sweep.claim_file(training))
            patience = {} if self.lane is not None else {"patience_s": PATIENCE_OF_SLURM_S}
            if not claim.take({**self._identity(), "training": name}, **patience):
                print(f"{name} is being trained by another job.", flush=True)
                continue
            if is_open(sweep, training):  # it may have been finished between the look and the claim
                return training, claim
            claim.release()
        return None

    def _identity(self) -> dict[str, Any]:
        return {"sweep": self.folder, "host": socket.gethostname(), "pid": os.getpid(), "token": self.token}

    def _run(self, sweep: Sweep, training: Training, claim: Claim, signals: Signals) -> Record:
        """Run nnU-Net's command to its end, or until a signal; nothing of it is left running."""
        command = sweep.command(training)
        record = Record(RUNNING, sweep.record(training).attempts + 1)
        sweep.remember(training, record)
        log = sweep.log(training)
        with log.open("ab") as output:
            time_now = datetime.now().astimezone().isoformat(timespec="seconds")
            output.write(f"\n[{time_now}, attempt {record.attempts}] $ {shlex.join(command)}\n".encode())
            output.flush()
            # Slurm sends its signals to all processes of a job: the one for this process must not end the command
            ignoring = ["/bin/sh", "-c", f'trap "" {JobEnvironment.USR_SIG}; exec "$@"', "sh"]
            command = [*ignoring, self.program, *command[1:]]
            # if this process is killed, the model stays claimed as long as the command goes on
            with running(command, output, self._environment(sweep), pass_fds=[claim.fileno()]) as process:
                claim.write({**self._identity(), "training": training.name, "group": process.pid})
                status = _wait(process, signals.is_asked_to_end)
        if status == -signal.SIGTERM and self.lane is None:
            _wait_for_slurm(signals)
            status = None if signals.is_asked_to_end() else status
        if status is None:
            state = WAITING if signals.must_requeue else STOPPED
            return replace(record, state=state, reason="requeued" if signals.must_requeue else "ended by a signal")
        if status == 0:
            return replace(record, state=FINISHED)
        return replace(record, state=FAILED, reason=describe_status(status))

    def _environment(self, sweep: Sweep) -> dict[str, str]:
        environment = {**sweep.request.folders, VARIABLE: extended_value(os.environ.get(VARIABLE))}
        if self.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpu
        return environment

    def _requeue(self, sweep: Sweep, training: Training, record: Record, signals: Signals) -> None:
        try:
            signals.requeue()  # leaves this process
        except Exception as error:
            sweep.remember(training, replace(record, state=STOPPED, reason=str(error)))
            raise


def is_open(sweep: Sweep, training: Training) -> bool:
    """Whether a worker may take a training: it is to be done, or whoever did it was killed."""
    return sweep.record(training).state in (WAITING, RUNNING) and not sweep.is_finished(training)


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


def _wait_for_slurm(signals: Signals) -> None:
    """After SIGTERM has ended the command: if Slurm sent it to the whole job, wait until that is requeued or killed.

    A job that ends by itself now would count as failed, and not be requeued.
    """
    deadline = time.monotonic() + BETWEEN_SIGNALS_S
    while not signals.is_asked_to_end() and (signals.will_be_killed or time.monotonic() < deadline):
        time.sleep(POLL_S)
