"""Run a command on damaged input in a process of its own, and judge what became of it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fuzz.commands import COMMANDS, Command
from fuzz.mutations import MARK, mutate, pick
from nnunet_ext import cli
from support.forked import Forked

SECONDS = 60

GOOD = "good"
"""It ended with status 0 to 3 and without a traceback, and changed nothing that it must not."""


@dataclass(frozen=True)
class Run:
    """A run.

    Attributes:
        seed: repeats it.
        command: arguments.
        damage: what was done to which file.
        verdict: `GOOD`, or what was wrong.
        status: exit status; None if the command did not end.
        output: what it printed.
    """

    seed: int
    command: str
    damage: str
    verdict: str
    status: int | None
    output: str


def fuzz(seed: int, valid: Path, folder: Path) -> Run:
    """Damage a copy of the valid workspace, and run a command on it.

    Args:
        seed: draws command and damage.
        valid: made by `make_workspace`.
        folder: does not exist; the copy, removed again unless something was wrong.
    """
    rng = np.random.default_rng(seed)
    command: Command = pick(COMMANDS, rng)
    shutil.copytree(valid, folder / "work space", symlinks=True)
    workspace = folder / "work space"
    damage = []
    os.environ[MARK] = _environment(folder)[MARK]
    for _ in range(int(rng.integers(1, 3))):
        files = sorted(file for file in workspace.glob(pick(command.inputs, rng)) if file.is_file())
        if files:
            file = pick(files, rng)
            damage.append(f"{file.relative_to(workspace)}: {mutate(file, rng)}")
    before = fingerprints(folder)
    status = _run(command, folder)
    output = (folder / "output.txt").read_text(errors="replace")
    verdict = _verdict(status, output, before, fingerprints(folder), command, folder)
    if verdict == GOOD:
        shutil.rmtree(folder)
    return Run(seed, command.line, "; ".join(damage), verdict, status, output)


def run_command(command: Command, valid: Path, folder: Path) -> tuple[int | None, str]:
    """Run a command on a copy of the valid workspace; its exit status and output."""
    shutil.copytree(valid, folder / "work space", symlinks=True)
    status = _run(command, folder)
    return status, (folder / "output.txt").read_text(errors="replace")


def fingerprints(folder: Path) -> dict[str, str]:
    """What every file below a folder holds, by its path; links by where they point. A lock may go meanwhile."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            try:
                content = os.readlink(file).encode() if file.is_symlink() else file.read_bytes()
            except FileNotFoundError:
                if file.suffix != ".lock":
                    raise
                continue
            found[str(file.relative_to(folder))] = hashlib.sha256(content).hexdigest()
    return found


def _environment(folder: Path) -> dict[str, str]:
    workspace = folder / "work space"
    variables = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
    return {name: str(workspace / part) for name, part in variables.items()} | {MARK: str(folder / "payload ran")}


def start(command: Command, folder: Path, *, before: Callable[[], object] = lambda: None) -> Forked:
    """Start a command on the workspace in a folder; `before` is called in its process first."""

    def run() -> int:
        before()
        return cli.main(command.line.split())

    workspace, output = folder / "work space", folder / "output.txt"
    return Forked(run, folder=workspace, environment=_environment(folder), output=output)


def _run(command: Command, folder: Path) -> int | None:
    """Run the command, and wait; None if it took longer than `SECONDS`."""
    process = start(command, folder)
    status = process.wait(SECONDS)
    process.kill()
    return status


def _verdict(
    status: int | None,
    output: str,
    before: dict[str, str],
    after: dict[str, str],
    command: Command,
    folder: Path,
) -> str:
    """`GOOD`, or the worst of what is wrong."""
    allowed = tuple(f"work space/{path}" for path in command.outputs)
    changed = sorted(path for path in before if after.get(path) != before[path])
    new = sorted(set(after) - set(before) - {"output.txt"})
    if (folder / "payload ran").exists():
        return "a payload was run"
    outside = [path for path in new if not path.startswith(allowed)] if allowed else new
    if outside:
        return f"wrote outside of its output: {outside[:3]}"
    inputs = [path for path in changed if not _in_place(path, command)]
    if inputs:
        return f"changed its input: {inputs[:3]}"
    if status is None:
        return f"did not end within {SECONDS} s"
    if "Traceback (most recent call last)" in output:
        return f"traceback: {output.strip().splitlines()[-1][:120]}"
    if status not in (0, 1, 2, 3):  # 3: trainings of a sweep are waiting
        return f"exit status {status}"
    if status == 2 and not output.strip():
        return "no message"
    return GOOD


def _in_place(path: str, command: Command) -> bool:
    """Whether a command is there to change this file."""
    name = path.rpartition("/")[2]
    verb = command.line.split()[0]
    in_place = {"configure": "Plans.json", "plan": "Plans.json", "split": "splits_final.json", "register": "bashrc"}
    return verb in in_place and name.endswith(in_place[verb])
