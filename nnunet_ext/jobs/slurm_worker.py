"""What a job of Slurm does: train one model of a sweep, and have itself requeued when it is told to leave."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from submitit import JobEnvironment
from submitit.core.utils import DelayedSubmission

from nnunet_ext.claims import holder
from nnunet_ext.jobs.runs import POLL_S, run_training
from nnunet_ext.jobs.sweep import FAILED, STOPPED, WAITING, Record, Sweep

# for somebody else to let go of the training
PATIENCE_S = 60.0
# a job that Slurm has started again may begin while the last processes of its former run still end, or while the file
# server has not noticed yet that their machine is dead
RESTARTED_PATIENCE_S = 300.0
# between the SIGTERM that ends the command and the one that tells this process
BETWEEN_SIGNALS_S = 5.0
# Slurm sends its signals to all processes of a job: the one for this process must not end the command
SHELL = ("/bin/sh", "-c", f'trap "" {JobEnvironment.USR_SIG}; exec "$@"', "sh")


class TrainingFailed(Exception):
    """The training of a job has failed; the message names it."""


class Signals:
    """Notes what the process is told, to be dealt with where it is safe: never while a command is being started.

    submitit answers SIGUSR2, which announces a time limit or a preemption, by requeuing the job, and ignores SIGTERM.
    The first is put off; the second means that the job will be killed soon.
    """

    def __init__(self) -> None:
        self.must_requeue = False
        self.will_be_killed = False
        self.requeue_signal = getattr(signal, f"SIG{JobEnvironment.USR_SIG}")
        self._requeue: Any = signal.signal(self.requeue_signal, self._note_requeue)
        signal.signal(signal.SIGTERM, self._note_kill)

    def requeue(self) -> None:
        """What submitit does on its signal: note how to go on, requeue the job and leave this process."""
        if not callable(self._requeue):
            raise RuntimeError(f"submitit handles no {self.requeue_signal.name} here.")
        self._requeue(self.requeue_signal, None)

    def wait(self) -> None:
        """After SIGTERM has ended the command, wait for what Slurm does with the job, if the signal came from there.

        A job that ends by itself now would count as failed, and not be requeued.
        """
        deadline = time.monotonic() + BETWEEN_SIGNALS_S
        while not self.must_requeue and (self.will_be_killed or time.monotonic() < deadline):
            time.sleep(POLL_S)

    def _note_requeue(self, number: int, frame: FrameType | None) -> None:
        self.must_requeue = True

    def _note_kill(self, number: int, frame: FrameType | None) -> None:
        self.will_be_killed = True


class Worker:
    """The callable that submitit pickles. Whatever it has to know at its start lies in the sweep's folder.

    It is made of that folder, absolute, the training's name, and the path of ``nnUNetv2_train``.
    """

    def __init__(self, folder: str, name: str, program: str) -> None:
        self.folder, self.name, self.program = folder, name, program

    def checkpoint(self) -> DelayedSubmission:
        """What submitit runs when the job is requeued: the same, which goes on from nnU-Net's last checkpoint."""
        return DelayedSubmission(self)

    def __call__(self) -> str:
        """Train, unless it is done; what became of it.

        Raises:
            TrainingFailed: if it has failed, or somebody else is at work on it.
        """
        signals = Signals()
        sweep = Sweep.read(Path(self.folder))
        training = sweep.training(self.name)

        def requeued(record: Record, status: int | None) -> Record:
            if status == -signal.SIGTERM:
                signals.wait()
            is_ended = status in (None, -signal.SIGTERM)
            return replace(record, state=WAITING, reason="requeued") if is_ended and signals.must_requeue else record

        record = run_training(
            sweep,
            training,
            self.program,
            lambda: signals.must_requeue,
            after=requeued,
            shell=SHELL,
            patience_s=RESTARTED_PATIENCE_S if "SLURM_RESTART_COUNT" in os.environ else PATIENCE_S,
        )
        if record is None:
            if not sweep.is_finished(training):  # Slurm would call the job completed
                raise TrainingFailed(f"{self.name} was not trained: {_who_holds(sweep.claim_file(training))}")
            return f"{self.name} is done."
        if record.state == FAILED:
            raise TrainingFailed(f"{self.name}: {record.reason}")
        if record.state == WAITING:
            try:
                signals.requeue()  # leaves this process
            except Exception as error:
                sweep.remember(training, replace(record, state=STOPPED, reason=str(error)))
                raise
        return record.state


def _who_holds(claim: Path) -> str:
    """Who kept a job from its training, and what to do."""
    host = (holder(claim) or {}).get("host", "an unknown machine")
    return (
        f"a process on {host} holds {claim}. If that machine is dead and nothing runs there, remove this file; then "
        "start the training again by nnunet_ext jobs resume."
    )
