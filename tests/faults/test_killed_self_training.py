"""Real self-trainings: on cases with missing labels, and killed or interrupted, then repeated, with the same result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_ext.claims import holder
from nnunet_ext.cli import main
from support.sweeps import eventually
from support.tiny_data import ANNOTATED, dataset_name

pytestmark = [
    pytest.mark.full,
    pytest.mark.usefixtures("quick_programs"),
    pytest.mark.skipif(os.name == "nt", reason="Windows has no file locks and signals as self-training needs them"),
]

TRAINER, CONFIGURATION = "nnUNetTrainerConfigurable", "3d_tiny_three_epochs"
IGNORED = 3  # the value behind all labels
MODEL = f"{TRAINER}__nnUNetPlans__{CONFIGURATION}"


@pytest.fixture
def unlabelled(workspace, results, tmp_path) -> str:
    """Two cases without labels."""
    scans = tmp_path / "scans"
    scans.mkdir()
    for case in range(2):
        image = sitk.ReadImage(str(workspace.raw / dataset_name("labels") / "imagesTr" / f"case_{case}_0000.nii.gz"))
        sitk.WriteImage(image * 1.5, str(scans / f"scan_{case}_0000.nii.gz"))
    assert main(["unlabelled", str(scans), "-o", "Dataset908_Scans", "--channels", "MRI"]) == 0
    return "908"


def command(unlabelled: str, number: int, out: Path) -> list[str]:
    line = f"self-train -d {unlabelled} --with 901 -c {CONFIGURATION} -tr {TRAINER} --id {number} --threshold 0.35"
    return [*line.split(), *["--rounds", "1", "--device", "cpu", "--disable-tta", "--bootstrap", "0", "-o"], str(out)]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """The command in a session of its own."""
    program = "import sys; from nnunet_ext.cli import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", program, *arguments], start_new_session=True)


def trained(results: Path, dataset: str) -> dict[str, torch.Tensor]:
    file = results / dataset / MODEL / "fold_0" / "checkpoint_final.pth"
    return torch.load(file, weights_only=False)["network_weights"]


def test_a_killed_self_training_ends_as_if_nothing_had_happened(workspace, unlabelled, results, tmp_path, monkeypatch):
    undisturbed = tmp_path / "undisturbed"
    assert main(command(unlabelled, 701, undisturbed)) == 0
    elsewhere, folder = tmp_path / "other results", tmp_path / "killed"
    elsewhere.mkdir()
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    datasets = (dataset_name("labels"), "Dataset711_LabelsRound1")
    for dataset, number in zip(datasets, (signal.SIGKILL, signal.SIGINT)):
        latest = elsewhere / dataset / MODEL / "fold_0" / "checkpoint_latest.pth"
        process = start(*command(unlabelled, 711, folder))
        eventually(lambda latest=latest: latest.is_file(), f"{dataset} has a checkpoint", seconds=600)
        process.send_signal(number)
        assert process.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 130)
        claim = elsewhere / dataset / ".nnunet_ext_jobs" / f"{MODEL}__fold_0.claim"
        assert number == signal.SIGKILL or holder(claim) is None, "the training has ended with it"
    assert main(command(unlabelled, 711, folder)) == 0
    for ours, theirs in zip(datasets, (dataset_name("labels"), "Dataset701_LabelsRound1")):
        weights = trained(results, theirs)
        assert all(torch.equal(value, weights[key]) for key, value in trained(elsewhere, ours).items())
    states = [json.loads((one / "self_training.json").read_text()) for one in (undisturbed, folder)]
    scores = [[(one["dice"], one["difference"], one["labelling"]) for one in state["rounds"]] for state in states]
    assert scores[0] == scores[1]
    assert [one["number"] for one in states[0]["rounds"]] == [0, 1]
    assert (folder / "report.html").is_file()


def test_missing_labels_are_completed_and_learned(workspace, results, tmp_path, capsys):
    """Of these cases one was annotated for the shell, one for the core and one for nothing."""
    partial, folder = workspace.raw / dataset_name("partial"), workspace.raw / "Dataset909_Sites"
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (folder / part).mkdir(parents=True)
        for case in ANNOTATED:
            shutil.copy(partial / part / f"{case}{ending}", folder / part / f"site_{case}{ending}")
    description = json.loads((partial / "dataset.json").read_text())
    lists = {f"site_{case}": names for case, names in ANNOTATED.items()}
    about = {"annotated_labels": lists, "default": ["shell", "core"]}
    changed = {**description, "numTraining": len(ANNOTATED), "nnunet_ext": about}
    (folder / "dataset.json").write_text(json.dumps(changed))

    assert main(command("909", 721, tmp_path / "run")) == 0
    assert "site_case_3" in (tmp_path / "run" / "report.html").read_text(), "the one without labels is least certain"
    made = workspace.raw / "Dataset721_LabelsRound1"
    completed = set()
    for case, names in ANNOTATED.items():
        before, after = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(one / "labelsTr" / f"site_{case}.nii.gz")))
            for one in (folder, made)
        )
        assert (after[before > 0] == before[before > 0]).all(), "what somebody annotated stays"
        added = set(np.unique(after[before == 0])) - {IGNORED}
        assert added <= {0, *(description["labels"][name] for name in {"shell", "core"} - set(names))}
        completed |= added - {0}
    assert completed, "a label was found that nobody had annotated"
    assert trained(results, made.name)
