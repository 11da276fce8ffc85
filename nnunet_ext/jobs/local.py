"""A sweep on this machine: one process in the background with a pool of threads, each of which runs a training."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from queue import SimpleQueue

from nnunet_ext.claims import Claim, holder
from nnunet_ext.errors import UserError, in_one_line
from nnunet_ext.jobs.runs import identity, run_training
from nnunet_ext.jobs.sweep import FAILED, RUNNING, WAITING, Sweep, Training
from nnunet_ext.programs import end_group, wait_until

START_S = 120.0
STOP_S = 30.0


class LocalJobs:
    """The background process of a sweep on this machine."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.log = sweep.folder / "pool.log"

    def is_alive(self) -> bool:
        """Whether the process is there."""
        return holder(self.sweep.pool_file) is not None

    def at_work(self) -> dict[str, str]:
        """The trainings that the process will take, by name, as waiting."""
        states = {one.name: self.sweep.record(one).state for one in self.sweep.trainings} if self.is_alive() else {}
        return {name: state for name, state in states.items() if state == WAITING}

    def check(self) -> None:
        """See that a process can be started; a UserError if there is one."""
        if self.is_alive():
            folder = self.sweep.folder
            stop = f"nnunet_ext jobs stop {shlex.quote(str(folder))}"
            raise UserError(f"{folder} is at work. Wait for its end, or stop it: {stop}")

    def submit(self, trainings: Sequence[Training], program: Path) -> str:
        """Start the process, which finds its trainings by their records; what was done, a sentence.

        A UserError says if it does not begin. Then, and after Ctrl-C, it is ended.
        """
        gpus = visible_gpus() if self.sweep.resources.device == "cuda" else []
        with self.log.open("ab") as output:
            command = [sys.executable, "-m", __name__, str(self.sweep.folder), str(program), *gpus]
            # away from this terminal: Ctrl-C and closing it must not reach the trainings, nor their output a pipe
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )

        def has_begun() -> bool:
            pool = holder(self.sweep.pool_file)  # nobody held it before, so that an unknown holder is this one
            return process.poll() == 0 or (pool is not None and pool.get("pid", process.pid) == process.pid)

        is_wanted = False
        try:
            wait_until(lambda: has_begun() or process.poll() is not None, seconds=START_S)
            is_wanted = has_begun()
        finally:
            if not is_wanted and process.poll() is None:  # it would begin later, and nobody would know
                end_group(process.pid, leader=process, patience_s=STOP_S)
        if not is_wanted:
            raise UserError(f"The background process does not begin. What it says is in {self.log}.")
        return f"{self.sweep.resources.local} at a time in the background of this machine."

    def log_before(self, training: Training) -> Path:
        """What the process said, such as why a training could not begin, and write a log of its own."""
        return self.log

    def stop(self) -> str:
        """End the process and its commands, and wait until they have ended; what was done, a sentence.

        A UserError says if they are on another machine, are not known, or do not end.
        """
        self._check_holder(self.sweep.pool_file, f"python -m {__name__} {shlex.quote(str(self.sweep.folder))}")
        pool, running = holder(self.sweep.pool_file), self._commands()
        hosts = {content["host"] for content in (*running, *([pool] if pool else []))} - {socket.gethostname()}
        if hosts:
            raise UserError(f"The sweep runs on {', '.join(sorted(hosts))}. Stop it there.")
        if pool:
            with suppress(ProcessLookupError):
                os.kill(pool["pid"], signal.SIGTERM)
            if not wait_until(lambda: not self.is_alive(), seconds=STOP_S):
                raise UserError(f"The background process does not end; its process id: {pool['pid']}.")
        for content in self._commands():  # of a process that was killed
            if "group" in content:
                end_group(content["group"])
        for training in self.sweep.trainings:
            self._check_holder(self.sweep.claim_file(training), shlex.join(self.sweep.command(training)))
        return f"Stopped {len(running)} trainings at work." if pool or running else "Nothing was at work."

    def _check_holder(self, file: Path, command: str) -> None:
        """Raise a UserError if somebody unknown holds a claim; `command` is what it is likely to be."""
        if holder(file) == {}:
            raise UserError(
                f"Who holds {file} cannot be read, as on an SMB share. Repeat this command; if that does not help, end "
                f"this process on the machine that it runs on: {command}"
            )

    def _commands(self) -> list[dict]:
        """What the holders of this sweep's trainings say about themselves."""
        contents = (holder(self.sweep.claim_file(training)) for training in self.sweep.trainings)
        return [content for content in contents if content and content.get("sweep") == str(self.sweep.folder)]


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be for a process that is to have one GPU: one value for each that this one sees."""
    if present := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return [entry.strip() for entry in present.split(",")]

    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def work(sweep: Sweep, program: str, gpus: Sequence[str]) -> None:
    """What the background process does: run the trainings that wait, some at a time, or until a signal.

    `gpus` are values of CUDA_VISIBLE_DEVICES that the trainings share; none leaves it as it is.
    """
    at_a_time = sweep.resources.local or 1
    places: SimpleQueue[str | None] = SimpleQueue()
    for _, gpu in zip(range(at_a_time), cycle(gpus or [None])):
        places.put(gpu)
    asked_to_end = threading.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: asked_to_end.set())

    def train(training: Training) -> None:
        if asked_to_end.is_set():
            return
        gpu = places.get()
        try:
            run_training(sweep, training, program, asked_to_end.is_set, gpu=gpu)
        except Exception as error:  # a full disk, no more processes: the other trainings may go on
            note_failure(sweep, training, error)
        finally:
            places.put(gpu)

    with Claim(sweep.pool_file) as pool, ThreadPoolExecutor(at_a_time) as threads:
        if pool.take(identity(sweep)):
            list(threads.map(train, [one for one in sweep.trainings if sweep.record(one).state == WAITING]))


def note_failure(sweep: Sweep, training: Training, error: Exception) -> None:
    """Say, and as far as possible remember, that a training could not be run, or its end not be noted."""
    with suppress(Exception):  # what kept the training from running may keep this from being noted
        record = sweep.record(training)
        if record.state in (WAITING, RUNNING):
            reason = str(error) if isinstance(error, UserError) else in_one_line(error)
            sweep.remember(training, replace(record, state=FAILED, reason=reason))
    with suppress(OSError):
        traceback.print_exception(error)


if __name__ == "__main__":
    work(Sweep.read(Path(sys.argv[1])), sys.argv[2], sys.argv[3:])
