"""Sweeps on this machine: killed, resumed, stopped, failing."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
from contextlib import redirect_stderr
from pathlib import Path

import pytest

from nnunet_ext.claims import holder
from nnunet_ext.cli import main
from nnunet_ext.jobs.control import states
from nnunet_ext.jobs.local import LocalJobs, visible_gpus, work
from nnunet_ext.jobs.sweep import RUNNING, STOPPED, Record, Sweep
from nnunet_ext.registration import discovery_folder
from support.sweeps import DATASET, StandIn, eventually, kill_jobs

A, B = "nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"
START = ["jobs", "start", "-d", "4", "-c", "2d", "--device", "cpu", "-tr", A, B]


def start(folder: Path, *arguments: str) -> Sweep:
    assert main([*START, *(arguments or ("-f", "0", "1")), "-o", str(folder)]) == 0
    return Sweep.read(folder)


def wait_for_end(sweep: Sweep) -> None:
    eventually(lambda: not LocalJobs(sweep).is_alive(), "the background process has ended")


def test_a_sweep_killed_half_way_is_resumed_where_it_was(nnunet: StandIn, folder: Path, capsys) -> None:
    hold = nnunet.tell("hold", B, 0)
    sweep = start(folder)
    held = f"{B}__2d__fold_0"
    eventually(lambda: held in nnunet.starts(), "the second training has begun")
    assert main(["jobs", "status", str(folder)]) == 3
    before = states(sweep)
    assert before == {
        f"{A}__2d__fold_0": "finished",
        held: "running",
        f"{A}__2d__fold_1": "waiting",
        f"{B}__2d__fold_1": "waiting",
    }
    kill_jobs(sweep, with_commands=True)
    assert set(states(sweep).values()) == {"finished", "stopped"}
    capsys.readouterr()
    assert main(["jobs", "status", str(folder)]) == 1
    assert f"{held}: stopped, its job was killed; last line of its log: Yayy!" in capsys.readouterr().out

    hold.unlink()
    assert main(["jobs", "resume", str(folder)]) == 0
    assert "4 trainings: 1 finished before, 0 waiting or running, 3 submitted." in capsys.readouterr().out
    wait_for_end(sweep)
    assert main(["jobs", "status", str(folder)]) == 0
    assert nnunet.starts() == {
        f"{A}__2d__fold_0": [False],
        held: [False, True],
        f"{A}__2d__fold_1": [False],
        f"{B}__2d__fold_1": [False],
    }
    assert len((sweep.fold_folder(sweep.training(held)) / "checkpoint_final.pth").read_text()) > 0
    epochs = [line for line in sweep.log(sweep.training(held)).read_text().splitlines() if "Epoch" in line]
    assert [line.split()[-1] for line in epochs] == ["0", "1", "2"], "no epoch is trained twice"

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["trainer", "configuration", "fold", "seed", "state", "epoch", "Dice", "best", "log"]
    assert rows[2] == [B, "2d", "0", "-", "finished", "3/3", "0.300", "0.300", f"logs/{held}.log"]
    assert main(["jobs", "resume", str(folder)]) == 0
    assert "4 finished before, 0 waiting or running, 0 submitted" in capsys.readouterr().out
    # a sweep of what is there already is one, too, and the command that is printed shows it
    other = folder.with_name("other x")
    start(other)
    said = capsys.readouterr().out
    assert "4 finished before" in said
    (see,) = [line for line in said.splitlines() if line.startswith("See: ")]
    assert main(shlex.split(see.removeprefix("See: nnunet_ext "))) == 0
    assert len(nnunet.calls()) == 5


def test_a_command_that_outlives_its_job_is_not_started_twice(nnunet: StandIn, folder: Path) -> None:
    hold = nnunet.tell("hold", A, 0)
    sweep = start(folder, "-f", "0")
    name = f"{A}__2d__fold_0"
    eventually(lambda: name in nnunet.starts(), "the first training has begun")
    kill_jobs(sweep, with_commands=False)
    assert states(sweep)[name] == "running"
    assert main(["jobs", "resume", str(folder)]) == 0
    wait_for_end(sweep)
    assert states(sweep) == {name: "running", f"{B}__2d__fold_0": "finished"}
    hold.unlink()
    eventually(lambda: states(sweep)[name] == "finished", "the command has ended by itself")
    assert nnunet.starts()[name] == [False]


def test_stop_ends_the_commands_and_those_of_killed_jobs(nnunet: StandIn, folder: Path, capsys) -> None:
    for fold in (0, 1):
        nnunet.tell("hold", A, fold)
        nnunet.tell("hold", B, fold)
    sweep = start(folder, "-f", "0", "1", "--local", "2")
    eventually(lambda: len(nnunet.calls()) == 2, "two trainings have begun")
    assert sorted(states(sweep).values()) == ["running", "running", "waiting", "waiting"]
    assert main(["jobs", "stop", str(folder)]) == 0
    assert "Stopped 2 trainings" in capsys.readouterr().out
    assert set(states(sweep).values()) == {"stopped"}
    assert len(nnunet.calls()) == 2, "no other training was taken"
    for call in nnunet.calls():
        with pytest.raises(ProcessLookupError):
            os.kill(call["pid"], 0)
    assert sweep.record(sweep.trainings[0]).reason == "ended by a signal"

    assert main(["jobs", "resume", str(folder)]) == 0
    eventually(lambda: len(nnunet.calls()) == 4, "they have begun again")
    assert [nnunet.starts()[training.name] for training in sweep.trainings[:2]] == [[False, True], [False, True]]
    kill_jobs(sweep, with_commands=False)
    assert list(states(sweep).values()).count("running") == 2
    assert main(["jobs", "stop", str(folder)]) == 0
    assert set(states(sweep).values()) == {"stopped"}
    assert main(["jobs", "stop", str(folder)]) == 0
    assert "Nothing was at work" in capsys.readouterr().out


def test_a_failure_stops_no_other_training_and_is_explained(nnunet: StandIn, folder: Path, capsys) -> None:
    fail = nnunet.tell("fail", A, 0)
    sweep = start(folder, "-f", "0", "1", "--local", "3")
    wait_for_end(sweep)
    name = f"{A}__2d__fold_0"
    assert list(states(sweep).values()) == ["failed", "finished", "finished", "finished"]
    assert len(nnunet.starts()[name]) == 1, "a failed training is not tried again by itself"
    capsys.readouterr()
    assert main(["jobs", "status", str(folder)]) == 1
    assert f"{name}: failed, exit status 1; last line of its log: CUDA out of memory" in capsys.readouterr().out
    fail.unlink()
    start(folder, "-f", "0", "1", "--local", "3")
    wait_for_end(sweep)
    assert main(["jobs", "status", str(folder)]) == 0
    assert sweep.record(sweep.training(name)).attempts == 2


def test_a_training_that_cannot_be_run_ends_no_other_one(nnunet: StandIn, folder: Path, capsys) -> None:
    claims = Path(os.environ["nnUNet_results"]) / DATASET / ".nnunet_ext_jobs"
    claim = claims / f"{A}__nnUNetPlans__2d__fold_0.claim"
    claim.mkdir(parents=True)  # in the place of a file, which could be opened for writing
    sweep = start(folder, "-f", "0")
    assert claim == sweep.claim_file(sweep.trainings[0])
    wait_for_end(sweep)
    assert list(states(sweep).values()) == ["failed", "finished"]
    capsys.readouterr()
    assert main(["jobs", "status", str(folder)]) == 1
    log = folder / "pool.log"
    reason = f"{A}__2d__fold_0: failed, {claim} cannot be written (Is a directory).; see {log}\n"
    assert capsys.readouterr().out.endswith(reason)
    assert "Traceback" in log.read_text(encoding="utf-8")
    claim.rmdir()
    assert main(["jobs", "resume", str(folder)]) == 0
    wait_for_end(sweep)
    assert set(states(sweep).values()) == {"finished"}


def test_a_training_whose_failure_cannot_be_noted_is_explained_by_the_pools_log(
    nnunet: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """As on a full disk, which may have room again for the next training."""
    remember = Sweep.remember

    def full_disk(self, training, record):
        if training.trainer == A and record.state in (RUNNING, "failed"):
            raise OSError(errno.ENOSPC, "No space left on device")
        remember(self, training, record)

    def work_here(self, trainings, program) -> str:
        with (self.sweep.folder / "pool.log").open("a") as output, redirect_stderr(output):
            work(self.sweep, str(program), [])
        return ""

    monkeypatch.setattr(Sweep, "remember", full_disk)
    monkeypatch.setattr(LocalJobs, "submit", work_here)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    sweep = start(folder, "-f", "0")
    assert list(states(sweep).values()) == ["stopped", "finished"]
    capsys.readouterr()
    assert main(["jobs", "status", str(folder)]) == 1
    line = f"last line of {folder / 'pool.log'}: OSError: [Errno 28] No space left on device\n"
    assert capsys.readouterr().out.endswith(f"{A}__2d__fold_0: stopped before it began; {line}")


def test_what_has_failed_is_not_tried_again_as_long_as_others_run(nnunet: StandIn, folder: Path, capsys) -> None:
    fail, hold = nnunet.tell("fail", A, 0), nnunet.tell("hold", B, 0)
    sweep = start(folder, "-f", "0")
    failed, held = (f"{trainer}__2d__fold_0" for trainer in (A, B))
    eventually(lambda: held in nnunet.starts(), "the second training has begun")
    pool = holder(sweep.pool_file)
    assert pool is not None
    assert os.getsid(pool["pid"]) != os.getsid(0), "Ctrl-C and the end of this terminal must not reach the trainings"
    assert states(sweep) == {failed: "failed", held: "running"}
    assert main([*START, "-f", "0", "--local", "2", "-o", str(folder)]) == 2
    assert "is at work with --device cpu --local 1. Stop it first" in capsys.readouterr().err, "though nothing waits"
    assert main(["jobs", "resume", str(folder)]) == 2
    assert "is at work" in capsys.readouterr().err
    fail.unlink()
    hold.unlink()
    wait_for_end(sweep)
    assert main(["jobs", "resume", str(folder)]) == 0
    wait_for_end(sweep)
    assert set(states(sweep).values()) == {"finished"}
    assert nnunet.starts() == {failed: [False, False], held: [False]}


def test_ctrl_c_while_a_sweep_is_begun_ends_it(nnunet: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nnunet.tell("hold", A, 0)

    def press(condition, *, seconds: float) -> bool:
        eventually(nnunet.calls, "the first training has begun, which this command has not seen yet")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("nnunet_ext.jobs.local.wait_until", press)
        assert main([*START, "-f", "0", "-o", str(folder)]) == 130
    sweep = Sweep.read(folder)
    assert not LocalJobs(sweep).is_alive()
    (call,) = nnunet.calls()
    with pytest.raises(ProcessLookupError):
        os.kill(call["pid"], 0)
    begun, waiting = map(sweep.record, sweep.trainings)
    assert begun == Record(STOPPED, 1, "ended by a signal")
    assert waiting == Record(STOPPED), "nothing waits any more"


def test_a_process_that_does_not_begin_in_time_does_not_begin_later(
    nnunet: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    started = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments, **options) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr("nnunet_ext.jobs.local.START_S", 0.0)
    monkeypatch.setattr("nnunet_ext.jobs.local.subprocess.Popen", Noted)
    assert main([*START, "-f", "0", "-o", str(folder)]) == 2
    assert "The background process does not begin" in capsys.readouterr().err
    assert started[-1].poll() is not None
    assert nnunet.calls() == []
    assert [Sweep.read(folder).record(one) for one in Sweep.read(folder).trainings] == [Record(), Record()]


def test_a_process_that_nobody_else_can_read_about_is_waited_for_and_not_taken_for_none(
    nnunet: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """As on an SMB share."""
    hold = nnunet.tell("hold", A, 0)
    monkeypatch.setattr("nnunet_ext.jobs.local.START_S", 60.0)
    with monkeypatch.context() as patched:
        patched.setattr("nnunet_ext.jobs.local.holder", lambda file: None if holder(file) is None else {})
        sweep = start(folder, "-f", "0")
        eventually(nnunet.calls, "the first training has begun")
        assert main(["jobs", "stop", str(folder)]) == 2
        assert f"Who holds {sweep.pool_file} cannot be read" in capsys.readouterr().err
        kill_jobs(sweep, with_commands=False)
        assert main(["jobs", "stop", str(folder)]) == 2
        said = capsys.readouterr().err
        assert f"Who holds {sweep.claim_file(sweep.trainings[0])} cannot be read" in said
        assert "nnUNetv2_train Dataset004_Phantoms 2d 0" in said
    hold.unlink()


def test_commands_get_the_trainers_the_folders_and_one_gpu_each(
    nnunet: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, 7")
    monkeypatch.setattr("nnunet_ext.machine.choose_device", lambda wanted: "cuda")
    holds = [nnunet.tell("hold", trainer, 0) for trainer in (A, B)]
    assert main([*START, "-f", "0", "--local", "2", "-o", str(folder)]) == 0
    eventually(lambda: len(nnunet.calls()) == 2, "both have begun")
    for hold in holds:
        hold.unlink()
    wait_for_end(Sweep.read(folder))
    environments = [call["environment"] for call in nnunet.calls()]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in environments} == {"5", "7"}
    expected = os.pathsep.join([os.environ["nnUNet_extTrainer"], str(discovery_folder())])
    assert {one["nnUNet_extTrainer"] for one in environments} == {expected}
    assert {one["nnUNet_results"] for one in environments} == {os.environ["nnUNet_results"]}
    assert all("-device cuda" in " ".join(call["args"]) for call in nnunet.calls())
    assert visible_gpus() == ["5", "7"]


def test_another_sweep_of_the_same_model_is_refused(nnunet: StandIn, folder: Path, tmp_path: Path, capsys) -> None:
    nnunet.tell("hold", A, 0)
    start(folder, "-f", "0")
    eventually(lambda: nnunet.calls(), "the first training has begun")
    other = tmp_path / "other"
    assert main([*START, "-f", "0", "-o", str(other)]) == 2
    assert f"{A}__2d__fold_0 is being trained by the sweep {folder}" in capsys.readouterr().err
    assert not other.exists()
    assert main([*START, "-f", "0", "--local", "2", "-o", str(folder)]) == 2
    assert "Stop it first" in capsys.readouterr().err
