"""A stand-in for ``nnUNetv2_train``, what a sweep needs around it, and a way to kill one."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_ext.claims import holder
from nnunet_ext.jobs.sweep import Sweep
from support.raw_datasets import DATASET_JSON

DATASET = "Dataset004_Phantoms"

# Leaves behind what nnU-Net's program does, three epochs long, and notes how it was called.
STAND_IN = """
import json, os, sys, time
from pathlib import Path

here = Path(__file__).parent
args = sys.argv[1:]
options = dict(zip(args, args[1:]))
dataset, configuration, fold, trainer = *args[:3], options["-tr"]
with open(here / "calls.jsonl", "a") as file:
    variables = ("nnUNet_extTrainer", "CUDA_VISIBLE_DEVICES", "nnUNet_results")
    environment = {name: os.environ.get(name) for name in variables}
    file.write(json.dumps({"args": args, "pid": os.getpid(), "environment": environment}) + "\\n")
model = Path(os.environ["nnUNet_results"]) / dataset / f"{trainer}__nnUNetPlans__{configuration}"
folder = model / f"fold_{fold}"
folder.mkdir(parents=True, exist_ok=True)
(folder / "debug.json").write_text('{"num_epochs": "3"}')
final, latest = folder / "checkpoint_final.pth", folder / "checkpoint_latest.pth"
begin = int(latest.read_text()) if "--c" in args and latest.exists() else 0
for epoch in range(begin, 3):
    print(f"2026-01-01 00:00:00: Epoch {epoch} ")
    if (here / f"fail {trainer} {fold}").exists():
        sys.exit("CUDA out of memory")
    latest.write_text(str(epoch + 1))
    print(f"Pseudo dice [np.float32(0.{epoch + 1}), nan]")
    print(f"Yayy! New best EMA pseudo Dice: 0.{epoch + 1}")
    while (here / f"hold {trainer} {fold}").exists():
        time.sleep(0.02)
final.write_text("3")
latest.unlink(missing_ok=True)
print("Training done.")
(folder / "validation").mkdir(exist_ok=True)
(folder / "validation" / "summary.json").write_text("{}")
"""


def eventually(condition: Callable[[], object], what: str, *, seconds: float = 240) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


class StandIn:
    """The program, what it was told to do, and how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "nnUNetv2_train"
        self.program.write_text(f"#!/bin/sh\n'''exec' \"{sys.executable}\" \"$0\" \"$@\"\n' '''\n{STAND_IN}")
        self.program.chmod(0o755)

    def tell(self, what: str, trainer: str, fold: int = 0) -> Path:
        """``hold`` after an epoch as long as the file is there, or ``fail``."""
        file = self.folder / f"{what} {trainer} {fold}"
        file.touch()
        return file

    def calls(self) -> list[dict]:
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def starts(self) -> dict[str, list[bool]]:
        """For each training, whether ``--c`` was given, call by call."""
        result: dict[str, list[bool]] = {}
        for call in self.calls():
            _, configuration, fold, _, trainer = call["args"][:5]
            result.setdefault(f"{trainer}__{configuration}__fold_{fold}", []).append("--c" in call["args"])
        return result


@pytest.fixture
def nnunet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """nnU-Net's folders with a planned dataset, and the stand-in in place of its program."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / f"nnU-Net {name} ü").mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / f"nnU-Net {name} ü"))
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "mine"))
    folder = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    (folder / "gt_segmentations").mkdir(parents=True)
    for number in range(6):
        (folder / "gt_segmentations" / f"case_{number}.nii.gz").touch()
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    planned = {name: {"architecture": {}} for name in ("2d", "3d_fullres")}
    plans = {"plans_name": "nnUNetPlans", "configurations": planned}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    programs = tmp_path / "programs with spaces"
    programs.mkdir()
    stand_in = StandIn(programs)
    monkeypatch.setattr("nnunet_ext.programs.find_executable", lambda name: programs / name)
    return stand_in


def kill_jobs(sweep: Sweep, *, with_commands: bool) -> None:
    """Kill the background process of a sweep as ``kill -9`` does, and its commands if asked."""
    content = holder(sweep.pool_file)
    assert content is not None
    os.kill(content["pid"], signal.SIGKILL)
    eventually(lambda: holder(sweep.pool_file) is None, "the process has ended")
    for file in map(sweep.claim_file, sweep.trainings) if with_commands else ():
        content = holder(file)
        if content is not None:
            os.killpg(content["group"], signal.SIGKILL)
            eventually(lambda file=file: holder(file) is None, "the command has ended")  # type: ignore[misc]
