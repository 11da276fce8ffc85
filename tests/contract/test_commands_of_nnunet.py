"""Training with validation, ``--val``, ``--npz``, prediction, ensembling and sharing by nnU-Net's own commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.ensembling.ensemble import entry_point_ensemble_folders
from nnunetv2.evaluation.evaluate_predictions import evaluate_folder_entry_point
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, predict_entry_point
from nnunetv2.model_sharing.entry_points import export_pretrained_model_entry, install_from_zip_entry_point
from nnunetv2.run.run_training import run_training_entry
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from nnunet_ext.cli import main
from nnunet_ext.plans.plans_file import MEMORY
from support.nnunet_runs import build_trainer, call_entry_point, fork_pools, run_in_new_process, train
from support.tiny_data import KINDS, dataset_name
from support.trainers_under_test import SEGMENTING, data_kind, one_per_network

PLOT_PROGRESS = MetaLogger.plot_progress_png  # before the fixture `results` silences it


def predict_by_command(arguments: list[str]) -> None:
    call_entry_point(predict_entry_point, arguments)


def predict_alone(arguments: list[str]) -> None:
    """In a process of its own."""
    fork_pools()
    predict_by_command(arguments)


def predict_arguments(name: str, kind: str, source: Path, target: Path, *more: str) -> list[str]:
    return [
        *("-i", str(source), "-o", str(target), "-d", str(KINDS[kind]["id"]), "-c", "3d_tiny", "-tr", name),
        *("-device", "cpu", "-npp", "1", "-nps", "1", "--disable_progress_bar", *more),
    ]


def segmentation(folder: Path) -> np.ndarray:
    (file,) = folder.glob("*.nii.gz")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def check_dice_of_predictions(predictions: Path, dataset: Path, model: Path, out: Path) -> None:
    """``nnunet_ext evaluate --predictions`` gives the Dice of ``nnUNetv2_evaluate_folder``."""
    labels = out / "labels"
    labels.mkdir(parents=True)
    (prediction,) = predictions.glob("*.nii.gz")
    reference = sorted((dataset / "labelsTr").glob("*.nii.gz"))[0]  # of the same size; the test cases have no labels
    shutil.copy(reference, labels / prediction.name)
    description = predictions / "dataset.json"
    files = ["-djfile", str(description), "-pfile", str(model / "plans.json"), "-o", str(out / "summary.json")]
    call_entry_point(evaluate_folder_entry_point, [str(labels), str(predictions), *files, "-np", "1"])
    assert main(["evaluate", "--predictions", str(predictions), "--labels", str(labels), "-o", str(out / "ours")]) == 0
    summary = json.loads((out / "summary.json").read_text())
    (entry,) = json.loads((out / "ours" / "evaluation.json").read_text())["datasets"]
    assert entry["foreground_mean"] == pytest.approx(summary["foreground_mean"]["Dice"])
    means = [label["dice_mean"] for label in entry["labels"].values()]
    assert means == pytest.approx([scores["Dice"] for scores in summary["mean"].values()])


@pytest.fixture
def plans_as_they_were(workspace):
    """Put plans files back after a test that adds configurations to them."""
    files = {file: file.read_bytes() for file in workspace.preprocessed.glob("*/*Plans.json")}
    yield
    for file, content in files.items():
        file.write_bytes(content)
        file.with_name(MEMORY).unlink(missing_ok=True)


@pytest.mark.full
@pytest.mark.capability("nnU-Net's commands")
@pytest.mark.parametrize("name", SEGMENTING)
def test_train_validate_and_predict_by_command(name, workspace, results, tmp_path, monkeypatch):
    monkeypatch.setattr(MetaLogger, "plot_progress_png", PLOT_PROGRESS)
    kind = data_kind(name, "labels")
    train_arguments = [str(KINDS[kind]["id"]), "3d_tiny", "0", "-tr", name, "-device", "cpu", "--npz"]
    call_entry_point(run_training_entry, train_arguments)

    model = results / dataset_name(kind) / f"{name}__nnUNetPlans__3d_tiny"
    validation = model / "fold_0" / "validation"
    mean = json.loads((validation / "summary.json").read_text())["foreground_mean"]
    assert mean["n_pred"] > 0, "Dice must be of a prediction that is not all background"
    assert (validation / "case_0.npz").is_file()
    assert (model / "fold_0" / "progress.png").is_file()
    assert (model / "fold_0" / "checkpoint_final.pth").is_file()
    settings = json.loads((workspace.preprocessed / dataset_name(kind) / "nnUNetPlans.json").read_text())
    recorded = settings["configurations"]["3d_tiny"]["nnunet_ext"]
    debug = json.loads((model / "fold_0" / "debug.json").read_text())["settings"]
    assert all(f"{key}={value!r}" in debug for key, value in recorded.items() if not isinstance(value, dict))

    source = workspace.raw / dataset_name(kind) / "imagesTs"
    target = tmp_path / "predictions"
    arguments = predict_arguments(name, kind, source, target, "-f", "0")
    assert run_in_new_process(predict_alone, arguments) == 0

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), use_folds=(0,))
    (tmp_path / "here").mkdir()
    predictor.predict_from_files_sequential(str(source), str(tmp_path / "here"))
    np.testing.assert_array_equal(segmentation(target), segmentation(tmp_path / "here"))


@pytest.mark.full
@pytest.mark.capability("--val")
@pytest.mark.parametrize("name", one_per_network(SEGMENTING))
def test_validation_alone_repeats_the_validation(name, results):
    kind = data_kind(name, "labels")
    trainer = train(name, kind=kind)
    trainer.perform_actual_validation()
    summary = Path(trainer.output_folder) / "validation" / "summary.json"
    scores = json.loads(summary.read_text())
    shutil.rmtree(summary.parent)
    call_entry_point(
        run_training_entry, [str(KINDS[kind]["id"]), "3d_tiny", "0", "-tr", name, "-device", "cpu", "--val"]
    )
    assert json.loads(summary.read_text()) == scores


@pytest.mark.full
@pytest.mark.capability("five folds, ensembled and shared")
@pytest.mark.parametrize("name", one_per_network(SEGMENTING))
def test_five_folds_are_ensembled_exported_and_installed_elsewhere(name, workspace, results, tmp_path, monkeypatch):
    kind = data_kind(name, "labels")
    folds = ["0", "1", "2", "3", "4"]
    for fold in folds[:2]:
        trainer = train(name, kind=kind, fold=int(fold))
        validation = Path(trainer.output_folder) / "validation"
        validation.mkdir()
        # what the export asks for, and what only nnU-Net's final validation and its plot would have written
        (validation / "summary.json").write_text("{}")
        (validation.parent / "progress.png").touch()
    for fold in folds[2:]:  # copies serve as well
        shutil.copytree(validation.parent, validation.parent.with_name(f"fold_{fold}"))
    source = workspace.raw / dataset_name(kind) / "imagesTs"

    more = ("--disable_tta", "--save_probabilities")
    predict_by_command(predict_arguments(name, kind, source, tmp_path / "all", "-f", *folds, *more))
    predict_by_command(predict_arguments(name, kind, source, tmp_path / "one", "-f", "0", *more))
    probabilities = {run: np.load(next((tmp_path / run).glob("*.npz")))["probabilities"] for run in ("all", "one")}
    assert not np.array_equal(probabilities["all"], probabilities["one"])
    folders = [str(tmp_path / "all"), str(tmp_path / "one")]
    call_entry_point(entry_point_ensemble_folders, ["-i", *folders, "-o", str(tmp_path / "ensemble"), "-np", "1"])
    model = results / dataset_name(kind) / f"{name}__nnUNetPlans__3d_tiny"
    check_dice_of_predictions(tmp_path / "all", workspace.raw / dataset_name(kind), model, tmp_path / "scored")
    mean = (probabilities["all"] + probabilities["one"]) / 2
    agreement = np.mean(segmentation(tmp_path / "ensemble") == mean.argmax(0))
    assert agreement > 0.999  # probabilities are stored in half precision

    archive = tmp_path / "model.zip"
    export = ["-d", str(KINDS[kind]["id"]), "-o", str(archive), "-c", "3d_tiny", "-tr", name, "--not_strict"]
    call_entry_point(export_pretrained_model_entry, export)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("nnUNet_results", str(elsewhere))
    call_entry_point(install_from_zip_entry_point, [str(archive)])
    shutil.rmtree(results)
    predict_by_command(predict_arguments(name, kind, source, tmp_path / "installed", "-f", *folds, "--disable_tta"))
    np.testing.assert_array_equal(segmentation(tmp_path / "installed"), segmentation(tmp_path / "all"))


@pytest.mark.full
@pytest.mark.capability("cascade")
@pytest.mark.parametrize("name", one_per_network(SEGMENTING))
def test_cascade_that_was_configured_trains_resumes_and_predicts(
    name, workspace, results, tmp_path, plans_as_they_were
):
    kind = data_kind(name, "labels")
    settings = ["num_iterations_per_epoch=1", "num_epochs=2", "save_every=1", "seed=1"]
    dataset = str(KINDS[kind]["id"])
    assert main(["configure", "-d", dataset, "-c", "3d_cascade_tiny", "--name", "pair", *settings]) == 0
    lowres = train(name, "pair_lowres", kind=kind, fold="all")
    lowres.perform_actual_validation()
    cascade = train(name, "pair", kind=kind, fold=0)
    assert cascade.is_cascaded
    assert np.isfinite(cascade.logger.get_value("train_losses", step=None)).all()
    shutil.rmtree(cascade.output_folder)
    interrupted = build_trainer(name, "pair", kind=kind, fold=0)
    begin = interrupted.on_epoch_start

    def begin_one() -> None:
        if interrupted.current_epoch:
            raise KeyboardInterrupt
        begin()

    interrupted.on_epoch_start = begin_one
    with pytest.raises(KeyboardInterrupt):
        interrupted.run_training()
    resumed = train(name, "pair", kind=kind, fold=0, resume=True).network.state_dict()
    assert all(torch.equal(value, resumed[key]) for key, value in cascade.network.state_dict().items())

    images = len(cascade.dataset_json["channel_names"])
    with_labels = torch.randn(1, cascade.num_input_channels, *cascade.configuration_manager.patch_size)
    with_labels[:, images:] = (with_labels[:, images:] > 0).float()
    without = with_labels.clone()
    without[:, images:] = 0
    cascade.set_deep_supervision_enabled(False)
    with torch.no_grad():
        logits = [cascade.network.eval()(data) for data in (with_labels, without)]
    assert not torch.allclose(*logits), "the network must see what the stage before has predicted"

    source = workspace.raw / dataset_name(kind) / "imagesTs"
    first = predict_arguments(name, kind, source, tmp_path / "lowres", "-f", "all")
    first[first.index("3d_tiny")] = "pair_lowres"
    predict_by_command(first)
    second = predict_arguments(name, kind, source, tmp_path / "cascade", "-f", "0")
    second[second.index("3d_tiny")] = "pair"
    predict_by_command([*second, "-prev_stage_predictions", str(tmp_path / "lowres")])
    assert segmentation(tmp_path / "cascade").shape == segmentation(tmp_path / "lowres").shape
    model = Path(cascade.output_folder).parent
    check_dice_of_predictions(tmp_path / "cascade", workspace.raw / dataset_name(kind), model, tmp_path / "scored")
