import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.programs import CommandFailed
from support import older_nnunet
from support.older_nnunet import (
    KINDS,
    PREDICT,
    Exported,
    Kind,
    Outcome,
    Release,
    compared,
    environment,
    is_good,
    reason,
    report,
    trainer_known,
    try_release,
)

PLAIN, DUAL = Kind("U-Net", "T", "labels"), Kind("dual encoder", "T", "prior", has_trainer_file=True)


def write_prediction(folder, foreground):
    """Probabilities of two classes in four voxels, and the label map that follows from them."""
    folder.mkdir(parents=True, exist_ok=True)
    probabilities = np.array([1 - np.array(foreground), foreground], dtype=np.float32)[:, None, None]
    labels = probabilities.argmax(0).astype(np.uint8)
    np.savez(folder / "case.npz", probabilities=probabilities)
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(folder / "case.nii.gz"))


@pytest.fixture
def model(tmp_path):
    """An exported model of a dual encoder with what it predicts, in a folder with a space in its name."""
    exported = Exported(DUAL, *(tmp_path / "a model" / name for name in ("model", "images", "expected")))
    write_prediction(exported.expected, [0.2, 0.4, 0.6, 0.8])
    trainers = exported.model / "nnUNet_extTrainer"
    trainers.mkdir(parents=True)
    (trainers / "__init__.py").touch()
    (trainers / "dual_encoder_inference.py").write_text("# the trainer\n")
    return exported


def write_environment(folder, version, body):
    """An environment in which python tells its versions, and nnU-Net's prediction is a script."""
    target = folder / f"nnunetv2-{version}"
    package = target / "nnunetv2"
    (package / "training" / "nnUNetTrainer").mkdir(parents=True)
    about = {"python": "3.11", **dict.fromkeys(older_nnunet.PACKAGES, f"{version}.1"), "folder": str(package)}
    (target / "bin").mkdir()
    for name, text in {"python": f"echo '{json.dumps(about)}'", PREDICT: body}.items():
        file = target / "bin" / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    (target / "installed.txt").write_text(f"nnunetv2=={version}.*  {sys.version}")
    return target


def test_equal_and_differing_label_maps(tmp_path):
    for name, foreground in {"a": [0.2, 0.4, 0.6, 0.8], "b": [0.2, 0.52, 0.6, 0.8]}.items():
        write_prediction(tmp_path / name, foreground)
    assert compared(tmp_path / "a", tmp_path / "a") == Outcome(voxels=4)
    found = compared(tmp_path / "a", tmp_path / "b")
    assert (found.voxels, found.differing, found.cell) == (4, 1, "25 % differ")
    assert found.difference == pytest.approx(0.12)
    assert not found.is_the_same


def test_a_missing_case_is_a_failure(tmp_path):
    write_prediction(tmp_path / "a", [0.2, 0.4, 0.6, 0.8])
    (tmp_path / "b").mkdir()
    assert compared(tmp_path / "a", tmp_path / "b").cell == "fails"


def test_differences_of_rounding_are_the_same():
    assert Outcome(voxels=100, differing=1, difference=0.001).is_the_same
    assert not Outcome(voxels=100, differing=1, difference=0.1).is_the_same
    assert not Outcome(failure="RuntimeError").is_the_same


@pytest.mark.parametrize("version", ["2.7", "2.8"])
def test_a_trainer_file_is_known_while_it_is_needed(version, model, tmp_path):
    package = tmp_path / "nnunetv2"
    folder = package / "training" / "nnUNetTrainer"
    folder.mkdir(parents=True)
    with trainer_known(model, version, package) as variables:
        copied = [file.name for file in folder.iterdir()]
    assert (copied, bool(variables)) == ((["dual_encoder_inference.py"], False) if version == "2.7" else ([], True))
    assert list(folder.iterdir()) == []


def test_networks_that_nnunet_cannot_build_need_2_7():
    assert [DUAL.runs_on(version) for version in ("2.5", "2.6", "2.7", "2.8", "2.10")] == [False, False, *[True] * 3]
    assert PLAIN.runs_on("2.5")


@pytest.mark.skipif(os.name == "nt", reason="the programs that stand in are scripts of a shell")
def test_a_release_predicts_in_its_own_environment(model, tmp_path):
    body = f'[ -z "$PYTHONPATH" ] || exit 1\ncp -r "{model.expected}" "$6"'
    write_environment(tmp_path, "2.8", body)
    release = try_release("2.8", [model], tmp_path, "")
    assert release == Release(
        "2.8", {"python": "3.11", **dict.fromkeys(older_nnunet.PACKAGES, "2.8.1")}, {DUAL.title: Outcome(voxels=4)}
    )
    assert is_good(release, [DUAL])


@pytest.mark.skipif(os.name == "nt", reason="the programs that stand in are scripts of a shell")
@pytest.mark.parametrize(("version", "is_fine"), [("2.6", True), ("2.7", False)])
def test_a_failure_is_told_with_its_exception(version, is_fine, model, tmp_path, capsys):
    write_environment(tmp_path, version, f"echo 'RuntimeError: {tmp_path}/x is not there'; exit 1")
    release = try_release(version, [model], tmp_path, "")
    assert release.outcomes[DUAL.title].failure == "RuntimeError: $WORK/x is not there"
    assert is_good(release, [DUAL]) is is_fine
    assert ("is not there" in capsys.readouterr().err) is not is_fine


def test_a_release_that_cannot_be_installed_is_told_and_left_out(monkeypatch, tmp_path, capsys):
    def no_pip(command, log):
        raise CommandFailed("No matching distribution found for nnunetv2==2.4.*")

    monkeypatch.setattr(older_nnunet.venv, "create", lambda folder, **options: write_environment(tmp_path, "2.4", ""))
    monkeypatch.setattr(older_nnunet, "run", no_pip)
    assert try_release("2.4", [], tmp_path, "torch") == Release("2.4")
    assert "2.4 could not be installed: No matching distribution" in capsys.readouterr().err
    assert not is_good(Release("2.4"), [])


def test_an_environment_is_made_again_for_another_torch(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(older_nnunet.venv, "create", lambda folder, **options: write_environment(tmp_path, "2.5", ""))
    monkeypatch.setattr(older_nnunet, "run", lambda command, log: asked.append(command[5:]))
    for torch in ("torch==2.6 'a b'", "torch==2.6 'a b'", "torch==2.7"):
        environment("2.5", tmp_path, torch)
    assert asked == [["torch==2.6", "a b"], ["nnunetv2==2.5.*"], ["torch==2.7"], ["nnunetv2==2.5.*"]]


def test_the_exception_is_named_without_folders_of_this_machine(tmp_path):
    log = tmp_path / "log"
    log.write_text(f"Traceback:\n  File x\nTypeError: no {tmp_path}/model\nmore\nRuntimeError: workers died\n")
    assert reason(log, tmp_path) == "TypeError: no $WORK/model"
    log.write_text("Killed\n")
    assert reason(log, tmp_path) == "no exception is in its output"


def test_table():
    about = {
        "python": "3.11",
        "nnunetv2": "2.5.2",
        "torch": "2.6",
        "dynamic_network_architectures": "0.3",
        "numpy": "2",
    }
    outcomes = {"U-Net": Outcome(voxels=400, differing=1, difference=0.002), "dual encoder": Outcome(failure="E: no")}
    lines = report([Release("2.5", about, outcomes), Release("2.6")], [PLAIN, DUAL])
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert ["2.5", "0.25 % differ", "fails"] in rows
    assert ["2.5", "0.002", "-"] in rows
    assert ["2.5.2", "3.11", "2.6", "0.3", "2"] in rows
    assert "Not installed: 2.6." in lines
    assert lines[-1] == "- 2.5, dual encoder: `E: no`"


def test_every_kind_has_a_title_of_its_own():
    assert len({kind.title for kind in KINDS}) == len(KINDS)
    assert not any(Path(kind.title).name != kind.title for kind in KINDS)
