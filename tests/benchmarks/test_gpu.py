"""The pack for a machine with a GPU: its time, its parts, and what it says of them; tried out on the CPU."""

import os
import sys
import tarfile
from pathlib import Path

import pytest

from benchmarks.gpu import ENDING_S, Pack, build_parser, main
from nnunet_ext.files import write_json
from nnunet_ext.programs import wait_until

pytestmark = pytest.mark.skipif(os.name == "nt", reason="groups of processes are ended as on Linux and macOS")


@pytest.fixture
def pack(tmp_path):
    def build(*options, minutes="1"):
        arguments = ["--device", "cpu", "--out", str(tmp_path / "out"), "--minutes", minutes, *options]
        return Pack(build_parser().parse_args(arguments))

    return build


def exists(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def outcome(pack):
    return pack.parts[-1].outcome


def test_without_a_gpu_it_says_how_to_try_it_out(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--out", str(tmp_path / "out")]) == 2
    assert "--device cpu" in capsys.readouterr().err


def test_part_ends_in_its_time_with_all_that_it_has_started(pack, tmp_path):
    one, note = pack(), tmp_path / "child"
    child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, {str(note)!r}])"
    assert one.run("slow", [sys.executable, "-c", code], seconds=3) is None
    assert outcome(one) == "its time was over (slow.log)"
    # an orphan that has ended is there until the system looks after it
    assert wait_until(lambda: not exists(int(note.read_text())), seconds=60)


def test_output_and_status_of_a_part_are_kept(pack):
    one = pack()
    assert one.run("good", [sys.executable, "-c", "print('said')"], seconds=30) == 0
    assert one.run("bad", [sys.executable, "-c", "raise SystemExit(3)"], seconds=30) == 3
    assert [part.outcome for part in one.parts] == ["passed (good.log)", "ended with status 3 (bad.log)"]
    assert (one.out / "good.log").read_text() == "said\n"


def test_nothing_begins_when_the_time_is_over(pack):
    one = pack(minutes=str(ENDING_S / 60))
    one.run("late", [sys.executable, "-c", "raise SystemExit(3)"], seconds=one.left())
    assert outcome(one) == "skipped: no time is left"


def test_cpu_skips_what_needs_a_gpu_and_the_summary_says_so(pack, monkeypatch):
    one = pack()
    one.tests()
    assert outcome(one) == "skipped: they need a CUDA device"
    one.experiment()
    assert outcome(one) == "skipped: --run names no folder"
    one.summary()
    text = (one.out / "summary.md").read_text()
    assert "| tests | skipped: they need a CUDA device |" in text
    assert "torch " in text
    assert "python -m benchmarks.gpu --device cpu --minutes 1" in text


@pytest.mark.full
def test_experiment_goes_on_in_its_folder_and_comes_back_as_an_archive(pack, tmp_path, quick_programs):
    declared = Path(__file__).parents[1] / "support" / "tiny_experiment.py"
    run = tmp_path / "run"
    run.mkdir()
    write_json(run / "request.json", {"experiment": "tiny"})
    one = pack("--experiment", str(declared), "--run", str(run), "--at-once", "2", minutes="8")
    one.experiment()
    assert outcome(one) == "passed (experiment.log)", (one.out / "experiment.log").read_text()
    assert (one.out / "tiny.md").is_file()
    with tarfile.open(one.out / "run.tar.gz") as archive:
        names = archive.getnames()
    assert {"steps.json", "request.json", "evaluations/stock_6steps_s0__squares/scores.csv"} <= set(names)
    assert "nnUNet_preprocessed/Dataset990_Squares/nnUNetPlans.json" in names
