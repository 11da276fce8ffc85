"""What benchmarks that run nnU-Net's commands share: steps that are finished once, their folder and their record."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import REPOSITORY, commit, shown_command
from nnunet_ext.demo.run import CommandRunner
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.registration import VARIABLE, discovery_folder


class OutOfTime(Exception):
    """A step was not begun, because the time that was given is over."""


@dataclass
class Steps:
    """Runs commands that have not yet succeeded in this folder.

    Attributes:
        runner: what runs them.
        record: file that remembers those that have, with the commit that each was started at.
        deadline: by `time.monotonic`; no step is begun after it.
    """

    runner: CommandRunner
    record: Path
    deadline: float | None = None

    def finished(self) -> dict[str, str | None]:
        """The steps that have succeeded, in their order, and the commit of each."""
        return read_json(self.record) if self.record.is_file() else {}

    def run(self, name: str, command: Sequence[str], *, extra: Sequence[str] = ()) -> None:
        """Run a command, or say that it has been run.

        Args:
            name: of the step.
            command: program and arguments.
            extra: arguments that only this attempt needs.

        Raises:
            OutOfTime: if it has not been run and the deadline is over.
        """

        def start() -> None:
            self.runner.run(name, [*command, *extra])
            self.runner.shown[-1] = shlex.join(command)

        self._once(name, command, start)

    def call(self, name: str, command: Sequence[str], action: Callable[[], None]) -> None:
        """The same for a command that is carried out in this process, because it takes less than starting another.

        Args:
            name: of the step.
            command: what a user types for it.
            action: does it.

        Raises:
            OutOfTime: if it has not been done and the deadline is over.
        """

        def start() -> None:
            self.runner.shown.append(shlex.join(command))
            print(f"[{len(self.runner.shown)}/{self.runner.total}] $ {shlex.join(command)}", flush=True)
            started = time.monotonic()
            action()
            print(f"      {time.monotonic() - started:.0f} s", flush=True)

        self._once(name, command, start)

    def _once(self, name: str, command: Sequence[str], start: Callable[[], None]) -> None:
        finished = self.finished()
        if name in finished:
            self.runner.shown.append(shlex.join(command))
            print(f"[{len(self.runner.shown)}/{self.runner.total}] done before: {shlex.join(command)}", flush=True)
            return
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime(name)
        started_at = commit(REPOSITORY)
        start()
        write_json(self.record, {**finished, name: started_at})


def open_folder(out: Path, request: Mapping[str, Any], *, folders: Sequence[str]) -> None:
    """Make the output folder, or see that what is in it was begun with the same request.

    Args:
        out: the folder.
        request: what decides the results, as plain JSON data.
        folders: to make in it, beside nnU-Net's three.

    Raises:
        UserError: if it holds something else.
    """
    note = out / "request.json"
    if note.is_file():
        if read_json(note) != request:
            raise UserError(f"{out} holds a run with {read_json(note)}; this is {request}. Choose another folder.")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder, nor one that this benchmark began. Choose another.")
    out.mkdir(parents=True, exist_ok=True)
    write_json(note, request)
    for folder in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", *folders):
        (out / folder).mkdir(exist_ok=True)


def resume_option(fold_folder: Path) -> list[str]:
    """What nnUNetv2_train needs to go on with a training that was interrupted."""
    return ["--c"] if any(fold_folder.glob("checkpoint_*.pth")) else []


def epoch_seconds(curves: Mapping[str, Sequence[float]]) -> list[float]:
    """Time of each epoch, validation batches included."""
    return [end - start for start, end in zip(curves["epoch_start_timestamps"], curves["epoch_end_timestamps"])]


def recorded_commands(runner: CommandRunner, out: Path) -> list[str]:
    """The environment and the commands of a run, with ``$OUT`` for its folder."""
    exports = [
        f"export {name}={_shown_folders(value) if name == VARIABLE else value}".replace(str(out), "$OUT")
        for name, value in runner.environment.items()
    ]
    return [*exports, *(shown_command(shlex.split(line), {out: "$OUT"}) for line in runner.shown)]


def _shown_folders(value: str) -> str:
    """Where nnU-Net looks for trainers: in this package and in folders of this repository; no other has a part."""
    ours = str(discovery_folder())
    inside = [Path(entry) for entry in value.split(os.pathsep) if entry != ours]
    others = [entry.relative_to(REPOSITORY).as_posix() for entry in inside if entry.is_relative_to(REPOSITORY)]
    return os.pathsep.join(["$(nnunet_ext path)", *others])


def training_commits(finished: Mapping[str, str | None]) -> str | None:
    """The commits that the trainings were started at, which may be some time before the results are written."""
    commits = dict.fromkeys(found for step, found in finished.items() if step.startswith("train_") and found)
    return "; ".join(commits) or None
