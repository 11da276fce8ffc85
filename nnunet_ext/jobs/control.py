"""Starting, resuming and stopping a sweep, and the state of its trainings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_ext import programs
from nnunet_ext.claims import holder
from nnunet_ext.errors import UserError
from nnunet_ext.formats.names import check_names
from nnunet_ext.jobs.local import LocalJobs
from nnunet_ext.jobs.preparation import prepare
from nnunet_ext.jobs.sweep import (
    FAILED,
    FINISHED,
    RUNNING,
    STOPPED,
    SWEEP,
    WAITING,
    Record,
    Resources,
    Sweep,
    SweepRequest,
)
from nnunet_ext.messages import changed_fields, last_line
from nnunet_ext.training_log import planned_epochs, read_progress

if TYPE_CHECKING:
    from nnunet_ext.jobs.slurm import SlurmJobs


def jobs_of(sweep: Sweep) -> LocalJobs | SlurmJobs:
    """What runs the trainings of a sweep; a UserError if it is Slurm, and the library that talks to it is missing."""
    if sweep.resources.slurm is None:
        return LocalJobs(sweep)
    try:
        from nnunet_ext.jobs.slurm import SlurmJobs
    except ImportError as error:
        raise UserError(
            f"Sweeps on Slurm need the library submitit, which cannot be imported ({error}). Install it: "
            "pip install -U submitit"
        ) from None
    return SlurmJobs(sweep)


def states(sweep: Sweep) -> dict[str, str]:
    """The state of each training, by name.

    ``stopped`` is what is not finished, has not failed, and nobody is at work on.
    """
    waiting = jobs_of(sweep).at_work()
    # before the records and the results, which a training writes before it lets its claim go
    running = {one.name: RUNNING for one in sweep.trainings if holder(sweep.claim_file(one)) is not None}
    others = {one.name: FAILED if sweep.record(one).state == FAILED else STOPPED for one in sweep.trainings}
    finished = {one.name: FINISHED for one in sweep.trainings if sweep.is_finished(one)}
    return others | waiting | running | finished


def open_sweep(folder: Path, request: SweepRequest, resources: Resources) -> Sweep:
    """The sweep of a folder, new or begun with the same request; nothing is written.

    A UserError says if the folder holds something else, the sweep is at work with other resources, or a name in the
    request cannot be a folder's.
    """
    folder = folder.absolute()
    check_names(request.folder_names, what="folder", where=f"The sweep {folder}")
    if "%" in str(folder):
        raise UserError(f"{folder} has a % in its path, which submitit and Slurm take for a variable. Choose another.")
    sweep = Sweep(folder, request, resources)
    if not (folder / SWEEP).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not an empty folder, and no sweep. Choose another.")
        return sweep
    present = Sweep.read(folder)
    if different := changed_fields(present.request, request):
        raise UserError(f"{folder} holds another sweep:{different}\nChoose another folder.")
    claims = [holder(present.claim_file(training)) or {} for training in present.trainings]
    is_training = any(claim.get("sweep") == str(folder) for claim in claims)
    if present.resources != resources and (is_training or jobs_of(present).at_work()):
        stop = f"nnunet_ext jobs stop {shlex.quote(str(folder))}"
        raise UserError(f"{folder} is at work with {present.resources.options()}. Stop it first: {stop}")
    return sweep


def submit(sweep: Sweep) -> str:
    """Have everything done that is not finished and that nobody is at work on; what was done, in a line or two.

    A UserError says if the trainings cannot be started, or another sweep is at work on one; then nothing is written.
    """
    present = states(sweep)
    left = [training for training in sweep.trainings if present[training.name] in (FAILED, STOPPED)]
    jobs = jobs_of(sweep)
    if left:
        jobs.check()
    for training in sweep.trainings:
        other = (holder(sweep.claim_file(training)) or {}).get("sweep", str(sweep.folder))
        if other != str(sweep.folder):
            raise UserError(f"{training.name} is being trained by the sweep {other}. Stop that, or wait for its end.")
    program = programs.find_executable("nnUNetv2_train")
    prepare(sweep.request)
    finished = list(present.values()).count(FINISHED)
    at_work = len(present) - finished - len(left)
    said = f"{len(present)} trainings: {finished} finished before, {at_work} waiting or running, {len(left)} submitted."
    sweep.write()
    if not left:
        return said
    before = {training: sweep.record(training) for training in left}
    try:
        for training, record in before.items():
            sweep.remember(training, Record(WAITING, record.attempts))
        return f"{said}\n{jobs.submit(left, program)}"
    except BaseException:  # Ctrl-C, too: what is known of them is why they failed before
        for training, record in before.items():
            if sweep.record(training).state == WAITING:
                sweep.remember(training, record)
        raise


def status_table(sweep: Sweep, present: Mapping[str, str]) -> tuple[list[list[str]], list[str]]:
    """How far the trainings are, by what `states` says: a header and a row of cells for each.

    And a line that says why, for each that has failed, or stopped after it had been submitted.
    """
    jobs = jobs_of(sweep)
    rows = [["trainer", "configuration", "fold", "seed", "state", "epoch", "Dice", "best", "log"]]
    reasons = []
    for training in sweep.trainings:
        state, log, record = present[training.name], sweep.log(training), sweep.record(training)
        progress = read_progress(log)
        epoch = "-"
        if progress.epoch is not None:
            epoch = f"{progress.epoch}/{planned_epochs(sweep.fold_folder(training)) or '?'}"
            epoch += " validating" if progress.has_trained and state == RUNNING else ""
        dice = ["-" if value is None else f"{value:.3f}" for value in (progress.last_dice, progress.best_dice)]
        seed = "-" if training.seed is None else str(training.seed)
        log_name = str(log.relative_to(sweep.folder)) if log.is_file() else "-"
        rows.append([training.trainer, training.configuration, str(training.fold), seed, state, epoch, *dice, log_name])
        if state == STOPPED and record.state == WAITING:
            reasons.append(f"{training.name}: stopped before it began; {_last_line_of(jobs.log_before(training))}")
        elif state == FAILED or (state == STOPPED and record.attempts):
            # a record of running, of which nobody runs any more, was left by a process that was killed
            why = record.reason or "its job was killed"
            has_log = log.is_file()
            more = f"last line of its log: {progress.last_line}" if has_log else f"see {jobs.log_before(training)}"
            reasons.append(f"{training.name}: {state}, {why}; {more}")
    return rows, reasons


def _last_line_of(file: Path) -> str:
    last = last_line(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else ""
    return f"last line of {file}: {last}"
