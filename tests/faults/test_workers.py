"""A killed ``nnUNetv2_train`` leaves its data loading workers behind, in which batchgenerators waits for ever."""

import os
import signal
import subprocess

import pytest

from nnunet_ext.claims import holder
from nnunet_ext.cli import main
from nnunet_ext.jobs.local import LocalJobs
from nnunet_ext.jobs.sweep import FAILED, Sweep
from nnunet_ext.plans.plans_file import add_configurations
from nnunet_ext.programs import group_exists
from support.sweeps import eventually
from support.tiny_data import dataset_name

pytestmark = pytest.mark.full


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_ends_the_workers_of_a_training_that_was_killed(
    number, workspace, results, tmp_path, monkeypatch, quick_programs
):
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    plans = workspace.preprocessed / dataset_name("labels") / "nnUNetPlans.json"
    endless = {"inherits_from": "3d_tiny", "nnunet_ext": {"num_epochs": 100_000}}
    add_configurations(plans, {"3d_tiny_endless": endless}, command="")
    command = ["jobs", "start", "-d", "901", "-c", "3d_tiny_endless", "-tr", "nnUNetTrainerConfigurable", "-f", "0"]
    assert main([*command, "--device", "cpu", "-o", str(tmp_path / "sweep")]) == 0
    sweep = Sweep.read(tmp_path / "sweep")
    (training,) = sweep.trainings
    try:
        eventually(lambda: sweep.log(training).is_file() and "Epoch 1" in sweep.log(training).read_text(), "it trains")
        group = (holder(sweep.claim_file(training)) or {})["group"]
        members = subprocess.run(["pgrep", "-g", str(group)], capture_output=True, text=True, check=True)
        assert len(members.stdout.split()) > 2, "the training has workers"
        os.kill(group, number)  # and it alone
        eventually(lambda: not LocalJobs(sweep).is_alive(), "the sweep has ended")
        assert not group_exists(group)
        assert sweep.record(training).state == FAILED
    finally:
        main(["jobs", "stop", str(sweep.folder)])
