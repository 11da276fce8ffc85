"""The benchmark on much data: its inputs are valid, and it measures a command with everything that it starts."""

from __future__ import annotations

import pytest

from benchmarks.scale import DICE, STOCK, Data, commands_for, figures, make_dataset, measured, memory_of, page
from nnunet_ext.cli import main

SMALL = Data("Dataset901_Cases", 2, (6, 24, 24), 3)

ALLOCATE = "x = bytearray(150_000_000); x[::4096] = x[::4096]; time.sleep(1.0)"
WITH_A_CHILD = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; {ALLOCATE}']).wait()"
)


def test_every_measured_command_of_ours_works_on_the_data(tmp_path, monkeypatch):
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path))
    commands = commands_for(make_dataset(SMALL, tmp_path), 1)
    for name, command in commands.items():
        if name != STOCK:
            assert main(command[1:]) == 0, name


def test_memory_is_that_of_all_processes_and_time_that_of_the_processor():
    used = measured(["python", "-c", WITH_A_CHILD], {})
    assert 150_000_000 < used.peak_bytes < 400_000_000
    assert used.cpu_s > 0
    assert used.wall_s >= 1.0
    assert memory_of(2**30) == 0


def test_a_command_that_fails_is_told_with_its_output():
    with pytest.raises(RuntimeError, match="no such thing"):
        measured(["python", "-c", "raise SystemExit('no such thing')"], {})


def test_the_page_compares_the_evaluation_by_dice_with_that_of_nnunet():
    rows = [
        {"input": "cases", "command": command, "processes": 1, "round": turn, "wall_s": wall, "cpu_s": wall / 2}
        | {"peak_MB": 100 * wall, "load": 0.5, "commit": "abc"}
        for command, walls in ((STOCK, (4.0, 8.0, 6.0)), (DICE, (3.0, 3.0, 9.0)), ("check", (5.0,)))
        for turn, wall in enumerate(walls)
    ]
    assert figures(rows, ("cases", 1, STOCK)) == (6.0, 3.0, 600.0)
    lines = page(rows, "python -m benchmarks.scale --rounds 3").splitlines()
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if "|" in line
    }
    assert cells[DICE] == ["1", "3", "3.0", "1.5", "300", "0.50", "0.50"]
    assert cells["check"] == ["1", "1", "5.0", "2.5", "500", "", ""]
    assert "python -m benchmarks.scale --rounds 3" in lines
    assert "- Commit: abc" in lines
    assert any(line.startswith("- Machine: cpu ") for line in lines)
