"""A model of any trainer, exported, predicts the same where nnU-Net is installed and this package is not."""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from nnunet_ext.checkpoints.stock_export import TRAINER_FOLDER
from nnunet_ext.cli import main
from support.nnunet_runs import train
from support.tiny_data import dataset_name
from support.trainers_under_test import PRE_TRAINING, SEGMENTING, data_kind, trainer_class

pytestmark = pytest.mark.full

STANDALONE = [name for name in SEGMENTING if trainer_class(name).inference_module]
"""Trainers whose network plain nnU-Net cannot build."""

PREDICT = """
import importlib.util, json, os, sys, torch
assert importlib.util.find_spec("nnunet_ext") is None, "this package is installed here"
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
torch.set_num_threads(int(sys.argv[2]))
for job in json.load(open(sys.argv[1], encoding="utf-8")):
    os.environ["nnUNet_extTrainer"] = job["trainers"]
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(job["model"], use_folds=(0,))
    predictor.predict_from_files_sequential(job["source"], job["target"], save_probabilities=True)
"""


@pytest.fixture(scope="module")
def without_this_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that sees what is installed here, but not this package.

    It is installed as a link (pip's ``-e``), which only the environment it was made in follows.
    """
    folder = tmp_path_factory.mktemp("plain nnU-Net") / "venv"
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def exported(workspace: Any, without_this_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each trainer: the exported ``model``, and probabilities ``before`` the export and ``after``,
    from plain nnU-Net. All are predicted in one process, as to start one takes longer than to predict."""
    root = tmp_path_factory.mktemp("exported models")
    jobs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_results", str(root / "results"))
        patch.setenv("nnUNet_n_proc_DA", "0")
        patch.setattr(MetaLogger, "plot_progress_png", lambda self, output_folder: None)
        for name in SEGMENTING:
            kind = data_kind(name, "labels")
            trained = Path(train(name, kind=kind).output_folder).parent
            model, before, after = (root / name / part for part in ("model", "before", "after"))
            assert main(["export-stock", str(trained), "-o", str(model)]) == 0
            before.mkdir()
            after.mkdir()
            source = str(workspace.raw / dataset_name(kind) / "imagesTs")
            predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(str(trained), use_folds=(0,))
            predictor.predict_from_files_sequential(source, str(before), save_probabilities=True)
            trainers = str(model / TRAINER_FOLDER) if name in STANDALONE else ""
            jobs.append({"model": str(model), "source": source, "target": str(after), "trainers": trainers})
    file = root / "jobs.json"
    file.write_text(json.dumps(jobs), encoding="utf-8")
    command = [str(without_this_package), "-c", PREDICT, str(file), str(torch.get_num_threads())]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return root


def probabilities(folder: Path) -> np.ndarray:
    (file,) = folder.glob("*.npz")
    return np.load(file)["probabilities"]


@pytest.mark.capability("exported to plain nnU-Net")
@pytest.mark.parametrize("name", SEGMENTING)
def test_plain_nnunet_predicts_the_same(name, exported):
    before, after = (probabilities(exported / name / part) for part in ("before", "after"))
    assert np.ptp(before[0]) > 0
    np.testing.assert_array_equal(before, after)


@pytest.mark.capability("exported to plain nnU-Net")
@pytest.mark.parametrize("name", SEGMENTING)
def test_only_networks_that_nnunet_cannot_build_bring_a_trainer(name, exported):
    model = exported / name / "model"
    assert (model / TRAINER_FOLDER).is_dir() == (name in STANDALONE)
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=True)
    expected = "nnUNetTrainerDualEncoderInference" if name in STANDALONE else "nnUNetTrainer"
    assert checkpoint["trainer_name"] == expected


@pytest.mark.capability("exported to plain nnU-Net")
@pytest.mark.parametrize("name", PRE_TRAINING)
def test_a_pre_training_is_refused_with_what_to_do(name, results, capsys, tmp_path):
    model = Path(train(name).output_folder).parent
    assert main(["export-stock", str(model), "-o", str(tmp_path / "out")]) == 2
    assert "-pretrained_weights" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
