"""What has been done in an experiment's folder: steps that are finished once, and those that failed."""

from __future__ import annotations

import re
import shlex
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.engine.children import Children, CommandFailed
from benchmarks.engine.provenance import REPOSITORY, commit
from nnunet_ext.claims import Claim
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json

ORIGINALS = r"(?<![\w$/])(?:[A-Z]:)?/(?:[^/']+/)*?(?=Dataset\d{3}_)"
"""The folder of the user's datasets, before the name of one."""

Action = Callable[[], Sequence[str] | None]
"""Does something itself, or returns a command to run."""

DECLARED = ("configure_", "train_", "evaluate_")
"""Steps that must be repeated, elsewhere, when the declaration changes."""

SHOWN = ("change_", "fingerprint_", "widen_")
"""Such steps, too, of which what is shown says all; of others it is known only when they are done."""

ANEW = "Give what is new a name of its own, or choose another folder."


class OutOfTime(Exception):
    """A step was not begun, because the time that was given is over."""


class NotDone(Exception):
    """A step has not been done: it, or one that it needs, has failed, or this is a dry run."""


class Journal:
    """The steps of an experiment and what became of them; each is done once, whoever asks for it.

    Several threads may ask: one that asks for a step that another one is doing waits for it.
    """

    def __init__(
        self, folder: Path, *, is_dry: bool = False, deadline: float | None = None, machine: str | None = None
    ) -> None:
        self.folder, self.is_dry, self.deadline, self.machine = folder, is_dry, deadline, machine
        self.file = folder / "steps.json"
        # elsewhere: finished steps whose product was left on another machine
        self.state: dict[str, Any] = {"finished": {}, "failed": {}, "running": [], "elsewhere": []}
        if self.file.is_file():
            self.state |= read_json(self.file)
        self.planned: dict[str, str] = {}
        """Every step that was asked for, with its command."""
        self.children = Children()
        self.is_checking = False
        self._failed_now: set[str] = set()
        self._guard = threading.RLock()  # of what is shared by the threads
        self._step_guards: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def lock(self) -> bool:
        """Take the folder for this process; False if another works in it."""
        self._lock = Claim(self.folder / ".lock")  # held as long as this object is
        return self._lock.take({}, patience_s=0)

    def only_checking(self) -> Journal:
        """A journal of the same steps that does none, but raises where one was finished that is declared otherwise."""
        checking = Journal(self.folder, is_dry=True)
        checking.state, checking.is_checking = self.state, not self.is_dry
        return checking

    def is_finished(self, name: str) -> bool:
        """Whether a step has been done, here or elsewhere."""
        return name in self.state["finished"]

    def is_here(self, name: str) -> bool:
        """Whether a step has been done and what it made is here."""
        return self.is_finished(name) and name not in self.state["elsewhere"]

    def with_elsewhere(self, steps: Mapping[str, Any], whole: Collection[str]) -> dict[str, Any]:
        """The state with steps that were finished on another machine; what they made is here of `whole` alone."""
        with self._guard:
            return {
                "finished": {**self.state["finished"], **steps},
                "failed": {name: reason for name, reason in self.state["failed"].items() if name not in steps},
                "running": [*self.state["running"]],
                "elsewhere": [*dict.fromkeys([*self.state["elsewhere"], *(one for one in steps if one not in whole)])],
            }

    def add_from_elsewhere(self, steps: Mapping[str, Any], whole: Collection[str]) -> None:
        """Take the steps of `with_elsewhere`."""
        with self._changed() as state:
            state.update(self.with_elsewhere(steps, whole))

    def do(
        self, name: str, action: Action, *, shown: str = "", declared: str = "", check: Callable[[], None] | None = None
    ) -> None:
        """Do a step, unless it has been done.

        Args:
            name: of the step.
            action: does it.
            shown: what it does, where it is no command.
            declared: what the declaration says of it, where neither `shown` nor the command does; it is kept.
            check: raises a UserError if what the step made, which is here, is not what is declared now.

        Raises:
            OutOfTime: if it has not been done and the deadline is over.
            NotDone: if it fails.
            UserError: if it has been done otherwise than it is declared now.
        """
        with self._guard:
            guard = self._step_guards[name]
        with guard:
            self._do(name, action, shown, declared, check)

    def _do(self, name: str, action: Action, shown: str, declared: str, check: Callable[[], None] | None) -> None:
        if name in self.planned:
            if name in self._failed_now:
                raise NotDone(name)
            return
        command = None if shown else action()
        planned = shown or self._text(command or [])
        if self.is_finished(name) and (self.is_checking or not self.is_dry):
            if name.startswith(SHOWN) or (name.startswith(DECLARED) and not shown):
                self._check_same(name, self.state["finished"][name]["command"], planned)
            # journals of earlier versions do not say it
            self._check_same(name, self.state["finished"][name].get("declared", declared), declared)
            if check is not None and self.is_here(name):
                check()
        if self.is_dry or self.is_here(name):
            pass
        elif self.children.are_stopped or (self.deadline is not None and time.monotonic() > self.deadline):
            raise OutOfTime(name)
        else:
            planned = self._start(name, action if shown else lambda: command, planned, declared)
        with self._guard:
            self.planned[name] = planned

    def _text(self, command: Sequence[str]) -> str:
        """The command without what may differ from machine to machine."""
        text = shlex.join(command).replace(str(self.folder), "$OUT")
        text = re.sub(ORIGINALS, "$ORIGINALS/", text)
        return re.sub(r"(--?device) \w+", r"\1 $DEVICE", text)

    def _check_same(self, name: str, *told: str) -> None:
        """See that a finished step was what the declaration says now."""
        before, now = (text.removesuffix(" --c") for text in told)
        if before != now:
            raise UserError(
                f"{name} has been done otherwise than the experiment says now. Before: {before}. Now: {now}. {ANEW}"
            )

    def _start(self, name: str, action: Action, planned: str, declared: str) -> str:
        """Do a step and keep that it was done; returns its command."""
        with self._changed() as state:
            state["running"].append(name)
        started, at = time.monotonic(), commit(REPOSITORY)
        print(f"[{time.strftime('%H:%M:%S')}] {name}: {planned}", flush=True)
        try:
            command = action()
            if command:
                planned = self._text(command)
                self.children.run(command, self.folder / "logs" / f"{name}.log")
        except (CommandFailed, UserError) as error:
            if self.children.are_stopped:
                raise OutOfTime(name) from None
            print(f"    failed: {name}: {error}", flush=True)
            with self._changed() as state:
                state["failed"][name] = str(error)
                self._failed_now.add(name)
                self.planned[name] = planned
            raise NotDone(name) from None
        finally:
            with self._changed() as state:
                state["running"].remove(name)
        seconds = round(time.monotonic() - started, 1)
        record: dict[str, Any] = {"commit": at, "seconds": seconds, "command": planned, "machine": self.machine}
        record |= {"declared": declared} if declared else {}
        with self._changed() as state:
            if name in state["elsewhere"]:  # what was scored is the other machine's
                record = {**state["finished"][name], "again": record}
                state["elsewhere"].remove(name)
            state["finished"][name] = record
            state["failed"].pop(name, None)
        return planned

    def forget_failure(self, name: str) -> None:
        """Take back that something has failed, where it needs no step of its own to succeed."""
        if name in self.state["failed"] and not self.is_dry:
            with self._changed() as state:
                state["failed"].pop(name)

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        """Hold the state for a change, and write it."""
        with self._guard:
            yield self.state
            write_json(self.file, self.state)

    def status(self) -> dict[str, list[str]]:
        """The planned steps by state: done, running, waiting, failed; a step that was killed is waiting."""
        running = self.state["running"]
        if running and self.lock():  # nobody works here: they were killed
            running = []
        states: dict[str, list[str]] = {"done": [], "running": [], "waiting": [], "failed": []}
        for name in self.planned:
            known = "failed" if name in self.state["failed"] else "done" if self.is_finished(name) else "waiting"
            states["running" if name in running else known].append(name)
        return states


def open_folder(out: Path, request: dict[str, Any]) -> None:
    """Make the output folder, or see that what is in it was begun with the same request.

    Raises:
        UserError: if it holds something else.
    """
    note = out / "request.json"
    if note.is_file():
        if read_json(note) != request:
            raise UserError(f"{out} holds a run with {read_json(note)}; this is {request}. Choose another folder.")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder, nor one that an experiment was begun in. Choose another.")
    for part in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "logs", "evaluations"):
        (out / part).mkdir(parents=True, exist_ok=True)
    write_json(note, request)
