"""A sweep of real trainings that is killed half-way and resumed."""

from __future__ import annotations

import os

import pytest
import torch

from nnunet_ext.cli import main
from nnunet_ext.jobs.control import states
from nnunet_ext.jobs.local import LocalJobs
from nnunet_ext.jobs.sweep import Sweep
from support.sweeps import eventually, kill_jobs

TRAINERS = ["nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"]


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="Windows has no file locks and signals as sweeps need them")
def test_two_trainers_killed_half_way_and_resumed(results, tmp_path, quick_programs):
    folder = tmp_path / "sweep"
    command = ["jobs", "start", "-d", "901", "-c", "3d_tiny_three_epochs", "-tr", *TRAINERS, "-f", "0"]
    assert main([*command, "--device", "cpu", "-o", str(folder)]) == 0
    sweep = Sweep.read(folder)
    first, second = sweep.trainings
    try:
        checkpoint = sweep.fold_folder(second) / "checkpoint_latest.pth"
        eventually(checkpoint.is_file, "the second training has a checkpoint", seconds=200)
        kill_jobs(sweep, with_commands=True)
        assert list(states(sweep).values()) == ["finished", "stopped"]
        final = sweep.fold_folder(first) / "checkpoint_final.pth"
        written = final.stat().st_mtime_ns
        assert main(["jobs", "resume", str(folder)]) == 0
        eventually(lambda: not LocalJobs(sweep).is_alive(), "the sweep has ended", seconds=300)
    finally:
        main(["jobs", "stop", str(folder)])
    assert main(["jobs", "status", str(folder)]) == 0
    assert final.stat().st_mtime_ns == written, "a finished training is not run again"
    assert [sweep.record(training).attempts for training in sweep.trainings] == [1, 2]
    assert sweep.log(second).read_text().count(" --c\n") == 1
    for training in sweep.trainings:
        checkpoint = torch.load(sweep.fold_folder(training) / "checkpoint_final.pth", weights_only=False)
        assert len(checkpoint["logging"]["train_losses"]) == 3
        assert (sweep.fold_folder(training) / "validation" / "summary.json").is_file()
