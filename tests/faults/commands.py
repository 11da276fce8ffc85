"""Every command that writes, its result, and what may be left of it after a fault."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fuzz.commands import COMMANDS, PLANNED, Command
from fuzz.runs import fingerprints, start
from nnunet_ext.plans.plans_file import MEMORY
from support.forked import Forked

WRITING = tuple(command for command in COMMANDS if command.outputs)
LONGEST_S = 120.0
# how long something took, when it was, and the names of matplotlib's parts of a picture
VARYING = re.compile(rb'"seconds": [0-9.e-]+|Written [0-9-]+ [0-9:]+ UTC|\b[a-zA-Z][0-9a-f]{10}\b')


@dataclass(frozen=True)
class Written:
    """A copy of the valid workspace in a folder, and a command that writes into it."""

    command: Command
    folder: Path

    @classmethod
    def prepare(cls, command: Command, valid: Path, folder: Path) -> Written:
        """Copy the valid workspace."""
        shutil.copytree(valid, folder / "work space")
        written = cls(command, folder)
        assert written.before is not None
        return written

    @cached_property
    def before(self) -> dict[str, str]:
        """The result of before, such as a plans file."""
        return self.result()

    @cached_property
    def inputs(self) -> dict[str, str]:
        """Everything but what the command writes, as it was before."""
        return self._others()

    def _others(self) -> dict[str, str]:
        found = fingerprints(self.folder / "work space")
        return {path: digest for path, digest in found.items() if not self.owns(path)}

    @property
    def target(self) -> Path:
        """The file or folder that the command writes."""
        verb, *arguments = self.command.line.split()
        workspace = self.folder / "work space"
        if verb == "register":
            return workspace / arguments[-1]
        if "-o" not in arguments:
            plans = arguments[arguments.index("--new-plans") + 1] if "--new-plans" in arguments else "nnUNetPlans"
            return workspace / PLANNED / ("splits_final.json" if verb == "split" else f"{plans}.json")
        name = arguments[arguments.index("-o") + 1]
        return workspace / ("raw" if name.startswith("Dataset") else "") / name

    def owns(self, path: str) -> bool:
        """Whether a path in the workspace is of what the command writes, or a hidden file beside it."""
        place = self.folder / "work space" / path
        beside = place.relative_to(self.target.parent) if place.is_relative_to(self.target.parent) else None
        in_plans = place.parent == self.target.parent and place.name == MEMORY
        return beside is not None and (in_plans or beside.parts[0] == self.target.name or beside.parts[0][0] == ".")

    def start(self, **options: object) -> Forked:
        """Start the command."""
        self.inputs  # noqa: B018  before anything is written
        return start(self.command, self.folder, **options)  # type: ignore[arg-type]

    def run(self, **options: object) -> int | None:
        """Run the command to its end; the exit status."""
        (self.folder / "output.txt").unlink(missing_ok=True)
        process = self.start(**options)
        process.wait(LONGEST_S)
        return process.kill()

    def repeat(self) -> bool:
        """Run the command again after a fault; whether it succeeds, or has nothing left to do but to say so."""
        return self.run() == 0 or "exists" in self.output and "add --force to replace it" in self.output

    @property
    def output(self) -> str:
        """What it printed."""
        return (self.folder / "output.txt").read_text(errors="replace")

    def result(self) -> dict[str, str]:
        """What every file of the result holds, by its path, without times and this folder's name."""
        place = self.target.parent
        names = [path for path in (self.target, place / MEMORY) if path.exists()]
        files = [file for path in names for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
        shown = {file.relative_to(place): file for file in files if file.is_file() and file.name != "nnunet.log"}
        return {
            str(path): self._digest(file)
            for path, file in shown.items()
            if not any(part.startswith(".") for part in path.parts)
        }

    def _digest(self, file: Path) -> str:
        content = file.read_bytes().replace(b"<wbr>", b"").replace(str(self.folder).encode(), b"")
        return hashlib.sha256(VARYING.sub(b"", content)).hexdigest()

    def new(self) -> dict[str, str]:
        """The part of the result that was not there before."""
        return {path: digest for path, digest in self.result().items() if self.before.get(path) != digest}

    def inputs_changed(self) -> list[str]:
        """Paths of inputs that are no longer what they were, and of files that should not be there."""
        now = self._others()
        return sorted(path for path in {**now, **self.inputs} if now.get(path) != self.inputs.get(path))

    def left_hidden(self) -> list[str]:
        """Hidden files that are left beside the result or in it, but for the mark of this package."""
        return [
            path
            for path in fingerprints(self.folder / "work space")
            if self.owns(path)
            and any(part.startswith(".") for part in Path(path).parts)
            and not path.endswith("/.made_by_nnunet_ext")
        ]


def undisturbed_run(command: Command, valid: Path, folder: Path) -> tuple[Written, float]:
    """A run that nobody disturbs, and its seconds."""
    undisturbed = Written.prepare(command, valid, folder)
    started = time.monotonic()
    assert undisturbed.run() == 0, undisturbed.output
    seconds = time.monotonic() - started
    assert undisturbed.inputs_changed() == []
    assert undisturbed.left_hidden() == []
    return undisturbed, seconds


def kill_and_repeat(
    command: Command, valid: Path, folder: Path, expected: tuple[Written, float], *, kills: int, seed: int
) -> tuple[int, list[str]]:
    """Kill a command at random moments, one after the other in one workspace, and let it end.

    Args:
        command: to kill.
        valid: workspace to copy.
        folder: for the copy.
        expected: of `undisturbed_run`.
        kills: how often to kill it, unless it ends before.
        seed: of the moments.

    Returns:
        How often it was killed, and what is then wrong.
    """
    undisturbed, seconds = expected
    written, rng, killed = Written.prepare(command, valid, folder / "killed"), np.random.default_rng(seed), 0
    for number in range(kills):
        process = written.start()
        # early at first, and ever earlier: a later run finds files in memory and may be faster
        if process.wait(rng.uniform(0, seconds if killed else seconds / (3 * 2**number))) is None:
            killed += process.kill() == -signal.SIGKILL
    wrong = [] if written.repeat() else [f"cannot be repeated: {written.output}"]
    wrong += [] if written.result() == undisturbed.result() else ["the result differs"]
    wrong += [f"{path} was changed" for path in written.inputs_changed()]
    # if the result was there already, nobody has taken the lock again, which no longer locks anything
    left = [path for path in written.left_hidden() if not path.endswith(".lock")]
    return killed, wrong + [f"{path} is left" for path in left]
