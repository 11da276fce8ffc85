"""A sweep on this machine: some jobs of submitit's local executor, called lanes, share the trainings.

The local executor begins every job at once. So there are as many jobs as trainings at a time, and each takes one
training after the other.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.jobs.claims import holder, last_content
from nnunet_ext.jobs.sweep import WAITING, Sweep, Training
from nnunet_ext.jobs.worker import Worker, is_open
from nnunet_ext.programs import end_group

START_S = 120.0
STOP_S = 30.0
PAUSE_S = 0.1
# submitit kills a local job after two minutes unless told otherwise; a training ends by itself
TEN_YEARS_MIN = 10 * 365 * 24 * 60


class Lanes:
    """The jobs of a sweep on this machine."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def alive(self) -> list[int]:
        """Numbers of the lanes that are at work."""
        files = (self.sweep.folder / "lanes").glob("*.claim")
        return sorted(int(file.stem) for file in files if holder(file) is not None)

    def at_work(self) -> dict[str, str]:
        """The trainings that a lane will take, by name, as waiting."""
        if not self.alive():
            return {}
        return {training.name: WAITING for training in self.sweep.trainings if is_open(self.sweep, training)}

    def submit(self, trainings: Sequence[Training], program: Path, *, gpus: Sequence[str]) -> str:
        """Start lanes up to the number of trainings at a time, and wait until they have begun.

        Args:
            trainings: those that wait.
            program: ``nnUNetv2_train``.
            gpus: values of CUDA_VISIBLE_DEVICES that the lanes share, in turn.

        Returns:
            What was done, a sentence.

        Raises:
            UserError: if a lane does not begin.
        """
        assert self.sweep.means.local is not None
        alive = self.alive()
        free = [lane for lane in range(self.sweep.means.local) if lane not in alive]
        tokens = {lane: uuid.uuid4().hex for lane in free[: len(trainings)]}
        if tokens:
            self._start(tokens, program, gpus)
        at_a_time = len(alive) + len(tokens)
        return f"{at_a_time} at a time in the background of this machine."

    def _start(self, tokens: dict[int, str], program: Path, gpus: Sequence[str]) -> None:
        order = {"program": str(program), "tokens": tokens, "gpus": list(gpus)}
        log = self.sweep.folder / "submitit" / "lanes.log"
        with log.open("ab") as output:
            # away from this terminal: Ctrl-C and closing it must not reach the lanes, nor their output a pipe
            status = subprocess.run(
                [sys.executable, "-m", __name__, str(self.sweep.folder), json.dumps(order)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
            ).returncode
        deadline = time.monotonic() + START_S
        missing = dict(tokens)
        while missing:
            missing = {
                lane: token
                for lane, token in missing.items()
                if last_content(self.sweep.lane_file(lane)).get("token") != token
            }
            if missing and (status != 0 or time.monotonic() > deadline):
                raise UserError(f"The local jobs do not begin. What they say is in {log} and beside it.")
            time.sleep(PAUSE_S)

    def stop(self) -> str:
        """End the lanes and their commands, and wait until they have ended.

        Returns:
            What was done, a sentence.

        Raises:
            UserError: if they are on another machine, or do not end.
        """
        lanes = [content for lane in self.alive() if (content := holder(self.sweep.lane_file(lane)))]
        claims = [self.sweep.claim_file(training) for training in self.sweep.trainings]
        running = [content for file in claims if (content := holder(file)) and self._is_ours(content)]
        if elsewhere := sorted({content["host"] for content in (*lanes, *running)} - {socket.gethostname()}):
            raise UserError(f"The sweep runs on {', '.join(elsewhere)}. Stop it there.")
        for content in lanes:
            with suppress(ProcessLookupError):
                os.kill(content["pid"], signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        while self.alive() and time.monotonic() < deadline:
            time.sleep(PAUSE_S)
        for file in claims:  # still held: the job was killed, and its command lives on
            content = holder(file) or {}
            if self._is_ours(content) and "group" in content:
                end_group(content["group"])
        if self.alive():
            raise UserError(f"Some jobs do not end; their process ids: {[one['pid'] for one in lanes]}.")
        return f"Stopped {len(running)} trainings at work." if lanes or running else "Nothing was at work."

    def _is_ours(self, content: Mapping[str, Any]) -> bool:
        return content.get("sweep") == str(self.sweep.folder)


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may be for a process that is to have one GPU: one value for each that this one sees."""
    if present := os.environ.get("CUDA_VISIBLE_DEVICES"):
        return [entry.strip() for entry in present.split(",")]

    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def submit_lanes(folder: Path, order: str) -> None:
    """Hand the lanes to submitit; runs in a session of its own, see `Lanes.submit`."""
    from submitit import LocalExecutor

    wanted = json.loads(order)
    sweep = Sweep.read(folder)
    executor = LocalExecutor(folder / "submitit")
    executor.update_parameters(timeout_min=TEN_YEARS_MIN)
    names = [training.name for training in sweep.trainings]
    gpus = wanted["gpus"]
    for number, token in wanted["tokens"].items():
        lane = int(number)
        # submitit hides all GPUs from a local job that asks for none, and could give the first ones alone
        gpu = gpus[lane % len(gpus)] if gpus else None
        executor.submit(Worker(str(folder), names, wanted["program"], lane=lane, token=token, gpu=gpu))


if __name__ == "__main__":
    submit_lanes(Path(sys.argv[1]), sys.argv[2])
