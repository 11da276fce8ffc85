"""A sweep on Slurm: a job for each training, as one array."""

import getpass
import math
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError, JobPaths

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.jobs.slurm_worker import Worker
from nnunet_ext.jobs.sweep import RUNNING, WAITING, Sweep, Training

JOBS = "slurm_jobs.json"
AT_WORK = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED")
# submitit's own limit of 3 is soon reached by a training of 1000 epochs
MAX_TIMEOUTS = 20
LIMITS: Mapping[str, tuple[int | None, int, float, str]] = {
    "time": (None, 1, math.inf, "the time limit in minutes, such as time=720"),
    "max_num_timeout": (MAX_TIMEOUTS, 0, math.inf, "a whole number of at least 0"),
    "nodes": (1, 1, 1, "1, because a training is one process"),
    "ntasks_per_node": (1, 1, 1, "1, because a training is one process"),
}
"""Of parameters that are checked here: default, lowest and highest value, and what is wanted, in words."""


class SlurmJobs:
    """The jobs of a sweep on Slurm."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep

    def at_work(self) -> dict[str, str]:
        """The trainings that have a job which has not ended, by name, as waiting or running."""
        jobs = self._jobs()
        queue = _queue() if jobs else {}
        return {name: RUNNING if queue[job] in AT_WORK else WAITING for name, job in jobs.items() if job in queue}

    def check(self) -> None:
        """See that jobs could be submitted; raises what `slurm_executor` raises."""
        slurm_executor(self.sweep)

    def submit(self, trainings: Sequence[Training], program: Path) -> str:
        """Submit a job for each training; what was done, a sentence. A UserError if Slurm refuses them."""
        executor = slurm_executor(self.sweep)
        workers = [Worker(str(self.sweep.folder), training.name, str(program)) for training in trainings]
        try:
            jobs = executor.submit_array(workers)
        except (FailedJobError, FailedSubmissionError) as error:
            raise UserError(f"sbatch has refused the jobs: {error}") from None
        submitted = {training.name: job.job_id for training, job in zip(trainings, jobs)}
        try:
            write_json(self.sweep.folder / JOBS, {**self._jobs(), **submitted})
        except BaseException:  # a full disk, Ctrl-C: nobody would know of them
            for job in jobs:
                job.cancel(check=False)
            raise
        return f"Slurm job {jobs[0].job_id.partition('_')[0]}, its script: {jobs[0].paths.submission_file}"

    def log_before(self, training: Training) -> Path:
        """What the job's script or submitit said before the training began, and wrote a log of its own."""
        job = self._jobs().get(training.name, "unknown")
        return JobPaths(self.sweep.folder / "submitit", job, 0).stderr

    def stop(self) -> str:
        """Cancel the jobs that have not ended; what was done, a sentence. A UserError if Slurm cannot do all of it."""
        jobs, names = self._jobs(), self.at_work()
        if not names:
            return "Nothing was at work."
        _output(["scancel", *(jobs[name] for name in names)])
        return f"Cancelled {len(names)} Slurm jobs."

    def _jobs(self) -> dict[str, str]:
        file = self.sweep.folder / JOBS
        return read_typed(dict[str, str], file) if file.is_file() else {}


def slurm_executor(sweep: Sweep) -> SlurmExecutor:
    """submitit's executor for a sweep.

    A UserError says if this is no machine of a cluster with Slurm, or a parameter is wrong.
    """
    parameters = {"job_name": sweep.folder.name, **(sweep.resources.slurm or {})}
    check_parameters(parameters)
    cpus = parameters.get("cpus_per_task")
    if cpus is not None and "srun_args" not in parameters:
        # srun of Slurm 22.05 to 23.02 does not take them over from sbatch, and would give the training one core
        parameters["srun_args"] = ["--cpus-per-task", str(cpus)]
    timeouts = parameters.pop("max_num_timeout", MAX_TIMEOUTS)
    for key in ("setup", "teardown", "srun_args"):
        if isinstance(parameters.get(key), str):
            parameters[key] = [parameters[key]]
    try:
        executor = SlurmExecutor(sweep.folder / "submitit", max_num_timeout=timeouts)
        executor.update_parameters(**parameters)
    except RuntimeError as error:
        raise UserError(f"Slurm was not found: {error}") from None
    except (ValueError, TypeError) as error:
        raise UserError(f"--slurm: {error}") from None
    return executor


def check_parameters(parameters: Mapping[str, Any]) -> None:
    """See that the parameters ask for jobs of one process and a known time; a UserError names the one that is wrong."""
    for key, (default, lowest, highest, wanted) in LIMITS.items():
        value = parameters.get(key, default)
        if type(value) is not int or not lowest <= value <= highest:
            found = "nothing" if value is None else repr(value)
            raise UserError(f"--slurm {key} must be {wanted}; found {found}.")


def _queue() -> dict[str, str]:
    """The state of each of the user's jobs that has not ended, by id.

    By squeue and not by submitit, which asks sacct: not every cluster keeps accounts, and they lag behind.
    """
    command = ["squeue", "--noheader", "--array", "--user", getpass.getuser(), "--format", "%i %T"]
    listing = _output(command)
    return {fields[0]: fields[1] for line in listing.splitlines() if len(fields := line.split()) == 2}


def _output(command: Sequence[str]) -> str:
    """What a program of Slurm prints; a UserError if it is not there or does not succeed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        fix = "Run this command on a login node of the cluster."
        raise UserError(f"Slurm was not found: there is no {command[0]} on this machine. {fix}") from None
    except subprocess.CalledProcessError as error:
        raise UserError(f"Slurm's {command[0]} has failed: {error.stderr.strip()}. Repeat the command.") from None
