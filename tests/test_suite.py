"""The suite itself: its tiny data is built once, and no trainer loses a capability."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from support.cells import PAGE, differences, documented, page
from support.trainers_under_test import EVERY_TRAINER
from support.workspace import built_once

TESTS = Path(__file__).parent


def build_and_note(shared: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "built by").write_text(str(os.getpid()))

    (shared / f"seen by {os.getpid()}").write_text((built_once(shared, build) / "built by").read_text())


def die_half_way(shared: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "a part").touch()
        os._exit(1)

    built_once(shared, build)


def in_processes(target, shared: Path, count: int) -> list[int | None]:
    processes = [multiprocessing.Process(target=target, args=(shared,)) for _ in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


def test_one_process_builds_for_all(tmp_path):
    assert in_processes(build_and_note, tmp_path, 3) == [0, 0, 0]
    builders = [file.read_text() for file in tmp_path.glob("seen by *")]
    assert len(builders) == 3
    assert len(set(builders)) == 1


def test_after_a_builder_was_killed_the_next_builds_anew(tmp_path):
    assert in_processes(die_half_way, tmp_path, 1) == [1]
    assert in_processes(build_and_note, tmp_path, 1) == [0]
    (built,) = tmp_path.glob("built ü")
    assert [file.name for file in built.iterdir()] == ["built by"]


def cells(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "support.cells"]
    return subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, check=False)


def test_every_trainer_goes_through_every_capability_in_one_of_the_tiers():
    run = cells(TESTS)
    assert run.returncode == 0, run.stdout + run.stderr
    assert all(trainer in run.stdout for trainer in EVERY_TRAINER)


def test_a_lost_cell_is_named():
    assert list(differences({"2d": {}}, {"2d": {"nnUNetTrainerMixUp": "full"}})) == [
        "2d × nnUNetTrainerMixUp: not run; tests/README.md says full"
    ]


def test_every_trainer_trains_predicts_and_resumes_in_the_quick_tier():
    required, _ = documented()
    for capability in ("3d", "killed and resumed"):
        assert required[capability] == dict.fromkeys(EVERY_TRAINER, "quick")


def test_the_page_of_capabilities_is_that_of_the_suite() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == page(), "write it anew: PYTHONPATH=tests python -m support.cells --page"
