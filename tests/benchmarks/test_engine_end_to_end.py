"""The engine with real commands on generated data: a run that is killed in a training ends as one that is not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.engine.children import Children, CommandFailed
from nnunet_ext.files import read_json, write_json

ROOT = Path(__file__).parents[2]
EXPERIMENT = """
from dataclasses import replace
from support.tiny_experiment import EXPERIMENT as TINY, Comparison

EXPERIMENT = replace(
    TINY,
    methods=tuple(replace(one, seeds=()) for one in TINY.methods[:2]),
    comparisons=(Comparison("MixUp", "stock", is_primary=True),),
    pilot=replace(TINY.pilot, rates=(1e-2,)),
)
"""
OF_THE_DATA = ("make_", "folds_", "plan_", "preset_", "change_", "preprocess_")


class Run:
    """``python -m benchmarks run`` in a process of its own."""

    def __init__(self, folder, name):
        self.out = folder / name
        (folder / "tiny.py").write_text(EXPERIMENT)
        paths = [ROOT, ROOT / "tests", os.environ.get("PYTHONPATH", "")]
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "nnUNet_n_proc_DA": "0"}
        self.command = [sys.executable, "-m", "benchmarks", "run", str(folder / "tiny.py"), "--out", str(self.out)]

    def start(self):
        return subprocess.Popen(
            [*self.command, "--device", "cpu"],
            env=self.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def to_the_end(self):
        process = self.start()
        printed, _ = process.communicate()
        assert process.returncode == 0, printed
        return printed

    def checkpoints(self, name):
        return list(self.out.glob(f"nnUNet_results/*/*__{name}/fold_*/checkpoint_*.pth"))

    def take_over_data(self, other):
        """Begin with the other's datasets and plans, which take a while to make."""
        for part in ("nnUNet_raw", "nnUNet_preprocessed"):
            shutil.copytree(other.out / part, self.out / part)
        for file in ("request.json", "steps.json"):
            shutil.copy(other.out / file, self.out)
        state = read_json(self.out / "steps.json")
        state["finished"] = {name: step for name, step in state["finished"].items() if name.startswith(OF_THE_DATA)}
        write_json(self.out / "steps.json", state)


@pytest.mark.full
def test_killed_run_goes_on_to_the_same_table(tmp_path, quick_programs):
    whole, killed = Run(tmp_path, "whole"), Run(tmp_path, "killed")
    whole.to_the_end()
    killed.take_over_data(whole)
    process = killed.start()
    while not killed.checkpoints("stock_6steps_s0"):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    finished = read_json(killed.out / "steps.json")["finished"]
    assert "train_pilot_stock_6steps_lr0.01_s0" in finished
    assert "train_stock_6steps_s1" not in finished
    printed = killed.to_the_end()
    assert "train_pilot" not in printed
    assert (killed.out / "tiny.csv.gz").read_bytes() == (whole.out / "tiny.csv.gz").read_bytes()
    assert not read_json(killed.out / "steps.json")["failed"]
    assert not [*whole.out.rglob("progress.png")]  # it costs time and changes nothing


def test_command_that_fails_names_its_log(tmp_path):
    with pytest.raises(CommandFailed, match=r"status 2 of nnunet_ext nothing; its output is in .*a\.log"):
        Children().run(["nnunet_ext", "nothing"], tmp_path / "a.log")
    assert "invalid choice: 'nothing'" in (tmp_path / "a.log").read_text()


def test_stopping_ends_what_runs_and_lets_nothing_begin(tmp_path):
    children, log = Children(), tmp_path / "a.log"
    with ThreadPoolExecutor(2) as pool:
        demo = ["nnunet_ext", "demo", "--out", str(tmp_path / "demo"), "--device", "cpu"]
        runs = [pool.submit(children.run, demo, log)]
        while not log.exists():
            time.sleep(0.02)
        children.stop()
        runs.append(pool.submit(children.run, ["nnunet_ext", "list"], log))
    assert "status -15" in str(runs[0].exception()) or "status 1" in str(runs[0].exception())
    assert "was not begun" in str(runs[1].exception())


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this system does not share time by sessions")
def test_a_session_gets_the_niceness_of_its_process():
    line = "import os; os.nice(7); from benchmarks.engine.children import keep_niceness; keep_niceness(); "
    shown = subprocess.run(
        [sys.executable, "-c", line + "print(open('/proc/self/autogroup').read())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert shown.stdout.strip().endswith(f"nice {min(19, os.nice(0) + 7)}"), shown.stderr
