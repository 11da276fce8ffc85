"""Sweeps on Slurm: stand-ins for its programs, and submitit's own script, pickles and requeuing."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pytest

from nnunet_ext.claims import Claim, holder
from nnunet_ext.cli import main
from nnunet_ext.errors import UserError
from nnunet_ext.jobs.control import states
from nnunet_ext.jobs.slurm import check_parameters
from nnunet_ext.jobs.slurm_worker import TrainingFailed, Worker
from nnunet_ext.jobs.sweep import FAILED, Record, Sweep
from support.sweeps import StandIn, eventually

ROOT = Path(__file__).resolve().parents[2]
A, B = "nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"
PROGRAMS = {
    "srun": "",
    "sbatch": 'echo x >> "$here/submitted"; echo Submitted batch job $((11 + $(wc -l < "$here/submitted")))',
    "squeue": 'cat "$here/queue"',
    "scancel": 'echo "$@" >> "$here/cancelled"',
    "scontrol": 'echo "$@" >> "$here/controlled"',
}


@pytest.fixture
def slurm(nnunet: StandIn, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with stand-ins for Slurm's programs on PATH; its file ``queue`` is what squeue prints."""
    folder = nnunet.folder / "slurm"
    folder.mkdir()
    for name, body in PROGRAMS.items():
        (folder / name).write_text(f'#!/bin/sh\nhere=$(dirname "$0")\n{body}\n')
        (folder / name).chmod(0o755)
    (folder / "queue").touch()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def sweep_folder(tmp_path: Path) -> Path:
    return tmp_path / "sweep ü x"


def start(folder: Path, *parameters: str) -> int:
    command = ["jobs", "start", "-d", "4", "-c", "2d", "-tr", A, B, "-f", "0", "-o", str(folder)]
    return main([*command, "--slurm", *(parameters or ("time=720", "partition=gpu"))])


def run_job(sweep: Sweep, index: int) -> subprocess.Popen[bytes]:
    """Do what srun does with a task of the array."""
    environment = {
        **os.environ,
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": str(12 + index),
        "SLURM_ARRAY_JOB_ID": "12",
        "SLURM_ARRAY_TASK_ID": str(index),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "submitit.core._submit", str(sweep.folder / "submitit")],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_the_script_asks_for_what_was_asked(slurm: Path, sweep_folder: Path, capsys) -> None:
    parameters = ["time=720", "partition=gpu", "gpus_per_node=1", "cpus_per_task=12", "mem=48GB", "setup=module load x"]
    assert start(sweep_folder, *parameters, "array_parallelism=1") == 0
    script = sweep_folder / "submitit" / "12_submission.sh"
    assert f"Slurm job 12, its script: {script}" in capsys.readouterr().out
    lines = script.read_text().splitlines()
    for line in (
        "#SBATCH --array=0-1%1",
        "#SBATCH --time=720",
        "#SBATCH --partition=gpu",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --cpus-per-task=12",
        "#SBATCH --mem=48GB",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --open-mode=append",
        "#SBATCH --job-name='sweep ü x'",
        "module load x",
    ):
        assert line in lines
    assert (sweep_folder / "slurm_jobs.json").exists()


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        (["cpus_per_task=12"], "--cpus-per-task 12 "),
        (["cpus_per_task=12", 'srun_args=["--cpu-bind", "none"]'], "--cpu-bind none "),
        (["srun_args=--exact"], "--exact "),
        ([], ""),
    ],
)
def test_the_cores_reach_srun_which_in_some_versions_does_not_take_them_from_sbatch(
    slurm: Path, sweep_folder: Path, parameters: list[str], wanted: str
) -> None:
    assert start(sweep_folder, "time=720", *parameters) == 0
    script = (sweep_folder / "submitit" / "12_submission.sh").read_text()
    assert f"_%t_log.err' {wanted}{shlex.quote(sys.executable)} " in script


def test_the_script_in_the_docs_is_what_is_submitted(slurm: Path, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "clusters.md").read_text(encoding="utf-8")
    command = re.search(r"^nnunet_ext (jobs start .* --slurm .*) -o /shared/sweep$", page, re.MULTILINE)
    assert command is not None
    assert main([*command[1].split(), "-o", str(tmp_path / "sweep")]) == 0
    script = (tmp_path / "sweep" / "submitit" / "12_submission.sh").read_text()
    shown = script.replace(str(tmp_path), "/shared").replace(shlex.quote(sys.executable), "/shared/env/bin/python")
    assert f"```text\n{shown.strip()}\n```" in page


def test_jobs_that_end_before_the_training_begins_say_where_and_why(slurm: Path, sweep_folder: Path, capsys) -> None:
    assert start(sweep_folder) == 0
    error = sweep_folder / "submitit" / "12_1_0_log.err"
    error.write_text("source: no such file\nslurmstepd: error: ü\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["jobs", "status", str(sweep_folder)]) == 1
    said = capsys.readouterr().out
    assert f"{B}__2d__fold_0: stopped before it began; last line of {error}: slurmstepd: error: ü" in said
    assert f"{A}__2d__fold_0: stopped before it began; last line of {error.with_name('12_0_0_log.err')}: \n" in said


def test_what_is_known_of_a_failure_stays_where_jobs_are_refused(slurm: Path, sweep_folder: Path, capsys) -> None:
    assert start(sweep_folder) == 0
    sweep = Sweep.read(sweep_folder)
    failed = Record(FAILED, 1, "exit status 1")
    for training in sweep.trainings:
        sweep.remember(training, failed)
    (slurm / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2\nexit 1\n")
    assert main(["jobs", "resume", str(sweep_folder)]) == 2
    assert "sbatch has refused the jobs" in capsys.readouterr().err
    assert [sweep.record(training) for training in sweep.trainings] == [failed, failed]


def test_jobs_that_cannot_be_noted_are_cancelled(slurm: Path, sweep_folder: Path, capsys, monkeypatch) -> None:
    """Nobody could stop them."""

    def full_disk(file: Path, content: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(file))

    monkeypatch.setattr("nnunet_ext.jobs.slurm.write_json", full_disk)
    assert start(sweep_folder) == 1
    assert "slurm_jobs.json" in capsys.readouterr().err
    assert (slurm / "cancelled").read_text().split() == ["12_0", "12_1"]


def test_states_are_slurms_and_only_what_has_ended_is_submitted_again(
    slurm: Path, sweep_folder: Path, nnunet: StandIn, capsys
) -> None:
    assert start(sweep_folder) == 0
    (slurm / "queue").write_text("12_0 RUNNING\n12_1 PENDING\n999 PENDING\n")
    sweep = Sweep.read(sweep_folder)
    assert list(states(sweep).values()) == ["running", "waiting"]
    assert main(["jobs", "status", str(sweep_folder)]) == 3
    capsys.readouterr()
    assert main(["jobs", "resume", str(sweep_folder)]) == 0
    assert "2 waiting or running, 0 submitted" in capsys.readouterr().out

    assert run_job(sweep, 1).wait(60) == 0
    (slurm / "queue").write_text("")
    assert list(states(sweep).values()) == ["stopped", "finished"]
    assert main(["jobs", "resume", str(sweep_folder)]) == 0
    (slurm / "queue").write_text("13 PENDING\n")
    assert list(states(sweep).values()) == ["waiting", "finished"]
    assert main(["jobs", "stop", str(sweep_folder)]) == 0
    assert (slurm / "cancelled").read_text() == "13\n"
    assert nnunet.calls()[0]["args"][-2:] == ["-device", "cuda"]


def test_stop_cancels_the_others_where_one_has_just_ended(slurm: Path, sweep_folder: Path, capsys) -> None:
    assert start(sweep_folder) == 0
    (slurm / "queue").write_text("12_0 RUNNING\n12_1 PENDING\n")
    refused = "scancel: error: Kill job error on job id 12_0: Job/step already completing or completed"
    (slurm / "scancel").write_text(f'#!/bin/sh\necho "$@" >> "{slurm}/cancelled"\necho "{refused}" >&2\nexit 1\n')
    assert main(["jobs", "stop", str(sweep_folder)]) == 2
    assert (slurm / "cancelled").read_text() == "12_0 12_1\n"
    assert f"Slurm's scancel has failed: {refused}. Repeat the command." in capsys.readouterr().err
    (slurm / "queue").write_text("")
    assert main(["jobs", "stop", str(sweep_folder)]) == 0
    assert "Nothing was at work" in capsys.readouterr().out


def begun(sweep: Sweep, nnunet: StandIn) -> int:
    """The group of the command that the first job has begun, once it has a checkpoint."""
    eventually(lambda: (sweep.fold_folder(sweep.trainings[0]) / "checkpoint_latest.pth").exists(), "an epoch")
    content = holder(sweep.claim_file(sweep.trainings[0]))
    assert content is not None
    return int(content["group"])


@pytest.mark.parametrize("is_terminated_first", [False, True], ids=["announced", "terminated_first"])
def test_a_preempted_job_is_requeued_and_goes_on(
    slurm: Path, sweep_folder: Path, nnunet: StandIn, is_terminated_first: bool
) -> None:
    hold = nnunet.tell("hold", A, 0)
    assert start(sweep_folder) == 0
    sweep = Sweep.read(sweep_folder)
    job = run_job(sweep, 0)
    group = begun(sweep, nnunet)
    # Slurm signals every process of a job
    if is_terminated_first:
        os.killpg(group, signal.SIGTERM)
        job.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(1.5)
    else:
        os.killpg(group, signal.SIGUSR2)
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(0.5)
        os.killpg(group, 0)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(30) == 255
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert (slurm / "controlled").read_text() == "requeue 12_0\n"
    assert sweep.record(sweep.trainings[0]).reason == "requeued"
    hold.unlink()
    assert run_job(sweep, 0).wait(60) == 0
    assert nnunet.starts() == {f"{A}__2d__fold_0": [False, True]}
    assert states(sweep)[f"{A}__2d__fold_0"] == "finished"


def test_too_many_time_limits_end_it(slurm: Path, sweep_folder: Path, nnunet: StandIn, capsys) -> None:
    hold = nnunet.tell("hold", A, 0)
    assert start(sweep_folder, "time=1", "max_num_timeout=0") == 0
    sweep = Sweep.read(sweep_folder)
    job = run_job(sweep, 0)
    begun(sweep, nnunet)
    job.send_signal(signal.SIGUSR2)
    assert job.wait(30) == 1
    hold.unlink()
    assert not (slurm / "controlled").exists()
    assert main(["jobs", "status", str(sweep_folder)]) == 1
    assert "stopped, Job not requeued because: timed-out too many times" in capsys.readouterr().out


def test_a_failed_training_fails_its_job(slurm: Path, sweep_folder: Path, nnunet: StandIn) -> None:
    nnunet.tell("fail", A, 0)
    assert start(sweep_folder) == 0
    sweep = Sweep.read(sweep_folder)
    assert run_job(sweep, 0).wait(60) == 1
    assert list(states(sweep).values()) == ["failed", "stopped"]


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_job_whose_training_another_holds_is_not_completed(
    slurm: Path, sweep_folder: Path, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    """Such as a job that was requeued while the file server keeps the locks of the node that died."""
    assert start(sweep_folder) == 0
    sweep = Sweep.read(sweep_folder)
    training = sweep.trainings[0]
    if is_restarted:
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    else:
        monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    waited = []

    def not_run(*_, patience_s: float, **options) -> None:
        waited.append(patience_s)

    monkeypatch.setattr("nnunet_ext.jobs.slurm_worker.run_training", not_run)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    worker = Worker(str(sweep_folder), training.name, "nnUNetv2_train")
    with Claim(sweep.claim_file(training)) as other:
        assert other.take({"host": "node7", "pid": 1})
        message = rf"was not trained: a process on node7 holds {re.escape(str(other.file))}\. .*nnunet_ext jobs resume"
        with pytest.raises(TrainingFailed, match=message):
            worker()
    assert waited == [300.0 if is_restarted else 60.0]
    fold = sweep.fold_folder(training)
    (fold / "validation").mkdir(parents=True)
    (fold / "validation" / "summary.json").write_text("{}")
    (fold / "checkpoint_final.pth").touch()
    assert worker() == f"{training.name} is done."


def test_a_requeued_job_is_the_same_callable() -> None:
    worker = Worker("/a sweep", "A__2d__fold_0", "/bin/nnUNetv2_train")
    again = pickle.loads(cloudpickle.dumps(worker.checkpoint())).function
    assert isinstance(again, Worker)
    assert vars(again) == vars(worker)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["partition=gpu"], "time must be the time limit in minutes, such as time=720; found nothing"),
        (["time=24:00:00"], "found '24:00:00'"),
        (["time=60", "ntasks_per_node=4"], "ntasks_per_node must be 1"),
        (["time=60", "max_num_timeout=often"], "max_num_timeout must be"),
        (["time=60", "partitoin=gpu"], "partitoin"),
        (["time"], "KEY=VALUE"),
    ],
)
def test_wrong_parameters_are_named_and_nothing_is_written(
    slurm: Path, sweep_folder: Path, capsys, parameters: list[str], message: str
) -> None:
    assert start(sweep_folder, *parameters) == 2
    assert message in capsys.readouterr().err
    assert not sweep_folder.exists()


def test_without_slurm_it_says_so(nnunet: StandIn, sweep_folder: Path, capsys) -> None:
    assert start(sweep_folder) == 2
    assert "Slurm was not found" in capsys.readouterr().err
    assert not sweep_folder.exists()


def test_refused_jobs_are_explained(slurm: Path, sweep_folder: Path, capsys) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'invalid partition specified: gpu' >&2; exit 1\n")
    assert start(sweep_folder) == 2
    assert "invalid partition specified" in capsys.readouterr().err
    assert set(states(Sweep.read(sweep_folder)).values()) == {"stopped"}


def test_one_node_and_one_task_may_be_said() -> None:
    check_parameters({"time": 60, "nodes": 1, "ntasks_per_node": 1})
    with pytest.raises(UserError, match="time must be"):
        check_parameters({"time": True})
