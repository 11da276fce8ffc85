"""``nnunet_ext evaluate`` on trained models: its Dice is nnU-Net's, and what is there is kept."""

from __future__ import annotations

import csv
import functools
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.evaluation.evaluate_predictions import evaluate_folder_entry_point
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor, predict_entry_point_modelfolder
from nnunetv2.training.logging.nnunet_logger import MetaLogger

from nnunet_ext import machine
from nnunet_ext.checkpoints.trained_model import find_trained_model
from nnunet_ext.cli import main
from nnunet_ext.evaluation import parallel
from nnunet_ext.evaluation.lesions import DetectionCounts, count_lesions
from nnunet_ext.evaluation.metrics import metrics_of
from nnunet_ext.evaluation.model_evaluation import load_predictor
from nnunet_ext.evaluation.operating_points import known_thresholds
from nnunet_ext.evaluation.scores_table import read_scores
from nnunet_ext.evaluation.surface import surface_dice, surface_distances
from support.nnunet_runs import call_entry_point, train
from support.tiny_data import IGNORE, KINDS, dataset_name

TRAINER = "nnUNetTrainerConfigurable"
ON_LABELS, ON_IGNORE = "901:val", "902:all"


@pytest.fixture(scope="module")
def models(workspace: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models of one epoch: folds 0 and 1 on labels, fold 0 on regions."""
    folder = tmp_path_factory.mktemp("results")
    patch = pytest.MonkeyPatch()
    patch.setenv("nnUNet_results", str(folder))
    patch.setenv("nnUNet_n_proc_DA", "0")
    patch.setattr(MetaLogger, "plot_progress_png", lambda self, output_folder: None)
    for kind, fold in (("labels", 0), ("labels", 1), ("regions", 0)):
        train(TRAINER, kind=kind, fold=fold)
    patch.undo()
    return {kind: folder / dataset_name(kind) / f"{TRAINER}__nnUNetPlans__3d_tiny" for kind in ("labels", "regions")}


@pytest.fixture(autouse=True)
def few_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "available_cores", lambda: 2)


def evaluate(model: Path, out: Path, *arguments: str) -> int:
    return main(["evaluate", str(model), "-o", str(out), "--device", "cpu", *arguments])


def read(out: Path) -> Any:
    return json.loads((out / "evaluation.json").read_text())


def by_nnunet(workspace: Any, kind: str, predictions: Path, model: Path, target: Path) -> dict[str, Any]:
    """What nnUNetv2_evaluate_folder says about the predictions."""
    raw = workspace.raw / dataset_name(kind)
    arguments = [str(raw / "labelsTr"), str(predictions), "-djfile", str(raw / "dataset.json"), "-np", "1", "--chill"]
    arguments += ["-pfile", str(model / "plans.json"), "-o", str(target)]
    call_entry_point(evaluate_folder_entry_point, arguments)
    return json.loads(target.read_text())


def check_against_nnunet(entry: dict[str, Any], summary: dict[str, Any], keys: dict[str, str]) -> None:
    assert entry["foreground_mean"] == pytest.approx(summary["foreground_mean"]["Dice"])
    for label, key in keys.items():
        assert entry["labels"][label]["dice_mean"] == pytest.approx(summary["mean"][key]["Dice"])
        counts = [case["metrics"][key] for case in summary["metric_per_case"]]  # of cases of one voxel size
        both = sum(case["TP"] for case in counts)
        wrong = sum(case["FP"] + case["FN"] for case in counts)
        assert entry["labels"][label]["aggregated_dice"] == pytest.approx(2 * both / (2 * both + wrong))
    assert len(summary["metric_per_case"]) == len(entry["dice"])
    for case in summary["metric_per_case"]:
        name = Path(case["prediction_file"]).name.removesuffix(".nii.gz")
        expected = {label: case["metrics"][key]["Dice"] for label, key in keys.items()}
        assert entry["dice"][name] == pytest.approx(expected)


def array(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_dice_on_two_datasets_is_that_of_nnunet_and_of_counting(workspace, models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_extTrainer", "")  # forgotten
    out = tmp_path / "o ü t"
    assert evaluate(models["labels"], out, "--on", ON_LABELS, "--on", ON_IGNORE) == 0
    entries = read(out)["datasets"]
    assert [(entry["dataset"], entry["cases"]) for entry in entries] == [
        ("Dataset901_Labels", "val"),
        ("Dataset902_Ignore", "all"),
    ]
    assert list(entries[0]["dice"]) == ["case_0"]
    assert len(entries[1]["dice"]) == 5
    for kind, entry in zip(("labels", "ignore"), entries):
        predictions = out / f"{entry['dataset']}_{entry['cases']}"
        summary = by_nnunet(workspace, kind, predictions, models["labels"], tmp_path / f"{kind}.json")
        check_against_nnunet(entry, summary, {"shell": "1", "core": "2"})

    reference = array(workspace.raw / "Dataset902_Ignore" / "labelsTr" / "case_3.nii.gz")
    prediction = array(out / "Dataset902_Ignore_all" / "case_3.nii.gz")[reference != IGNORE]
    reference = reference[reference != IGNORE]
    both = np.sum((reference == 1) & (prediction == 1))
    expected = 2 * both / (np.sum(reference == 1) + np.sum(prediction == 1))
    assert entries[1]["dice"]["case_3"]["shell"] == pytest.approx(expected)

    shown = capsys.readouterr().out
    assert "Searching" not in shown
    assert "[5/5] Dataset902_Ignore_all: case_4" in shown
    row = next(line for line in shown.splitlines() if line.startswith("mean"))
    low, high = entries[1]["intervals"]["foreground_mean"]
    one_case, five_cases = (f"{entry['foreground_mean']:.3f}" for entry in entries)
    assert row.split() == ["mean", one_case, five_cases, f"[{low:.3f},", f"{high:.3f}]"]


def test_regions_and_ignore_label_are_scored_as_nnunet_does(workspace, models, tmp_path):
    out = tmp_path / "out"
    assert evaluate(models["regions"], out, "--on", "903:all") == 0
    (entry,) = read(out)["datasets"]
    summary = by_nnunet(workspace, "regions", out / "Dataset903_Regions_all", models["regions"], tmp_path / "s.json")
    check_against_nnunet(entry, summary, {"whole": "(1, 2)", "core": "(2,)"})


def test_with_many_cores_the_predictions_are_the_same(models, tmp_path, monkeypatch):
    assert evaluate(models["labels"], tmp_path / "few", "--on", ON_IGNORE) == 0
    monkeypatch.setattr(machine, "available_cores", lambda: 16)
    assert evaluate(models["labels"], tmp_path / "many", "--on", ON_IGNORE) == 0
    assert read(tmp_path / "many") == read(tmp_path / "few")
    names = {path.name for path in (tmp_path / "many" / "Dataset902_Ignore_all").iterdir()}
    assert names == {f"case_{number}.nii.gz" for number in range(5)}
    assert not list((tmp_path / "many").glob("*.unfinished"))


@pytest.mark.parametrize("cores", [2, 16])
def test_an_image_that_cannot_be_predicted_is_named_and_has_no_score(
    workspace, models, tmp_path, monkeypatch, capsys, cores
):
    monkeypatch.setattr(machine, "available_cores", lambda: cores)
    shutil.copytree(workspace.raw / dataset_name("ignore"), tmp_path / "raw" / dataset_name("ignore"))
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    file = tmp_path / "raw" / dataset_name("ignore") / "imagesTr" / "case_1_0000.nii.gz"
    image = sitk.ReadImage(str(file), sitk.sitkFloat32)
    image[2, 2, 2] = math.nan
    sitk.WriteImage(image, str(file))
    model = Path(shutil.copytree(models["labels"], tmp_path / models["labels"].name))
    plans = (model / "plans.json").read_text()
    (model / "plans.json").write_text(plans.replace("SimpleITKIO", "NibabelIO"))  # the other takes NaN for 0
    for message in ("case_1_0000.nii.gz: some voxels are not finite", "case_1_0000.nii.gz is damaged"):
        assert evaluate(model, tmp_path / "out", "--on", ON_IGNORE, "--disable-tta", "--force") == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out" / "evaluation.json").exists()
        file.write_bytes(file.read_bytes()[:-100])


def test_several_folds_are_an_ensemble(models, tmp_path, capsys):
    for name, folds in {"zero": ["0"], "one": ["1"], "both": ["0", "1"]}.items():
        assert evaluate(models["labels"], tmp_path / name, "--on", "902:all", "--disable-tta", "-f", *folds) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("Predicted by")] == [
        "Predicted by fold 0 alone. Trained folds that took no part: 1.",
        "Predicted by fold 1 alone. Trained folds that took no part: 0.",
    ]
    assert read(tmp_path / "both")["folds"] == [0, 1]
    assert read(tmp_path / "both")["mirroring"] is False
    dice = [read(tmp_path / name)["datasets"][0]["dice"] for name in ("zero", "one", "both")]
    assert dice[2] not in dice[:2]


def test_an_interrupted_run_goes_on_and_takes_no_cut_off_file(models, tmp_path, monkeypatch):
    assert evaluate(models["labels"], tmp_path / "whole", "--on", ON_IGNORE) == 0
    predict = nnUNetPredictor.predict_from_files_sequential
    calls: list[str] = []

    @functools.wraps(predict)  # nnU-Net looks at the names of its own arguments
    def interrupted(self: nnUNetPredictor, images: Any, targets: Any, *more: Any) -> Any:
        calls.append(Path(targets[0]).name)
        if len(calls) == 3:
            Path(f"{targets[0]}.nii.gz").write_bytes(b"cut off")
            raise KeyboardInterrupt
        return predict(self, images, targets, *more)

    monkeypatch.setattr(nnUNetPredictor, "predict_from_files_sequential", interrupted)
    out = tmp_path / "out"
    assert evaluate(models["labels"], out, "--on", ON_IGNORE) == 130
    assert not (out / "evaluation.json").exists()
    assert evaluate(models["labels"], out, "--on", ON_IGNORE) == 0
    assert calls == ["case_0", "case_1", "case_2", "case_2", "case_3", "case_4"]
    assert read(out) == read(tmp_path / "whole")


def test_an_interrupted_run_with_force_leaves_what_was_there_and_goes_on(models, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", ("--disable-tta", "--bootstrap", "0")
    assert evaluate(models["labels"], out, "--on", ON_LABELS, *arguments) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    predict = nnUNetPredictor.predict_from_files_sequential
    calls: list[str] = []

    @functools.wraps(predict)
    def interrupted(self: nnUNetPredictor, images: Any, targets: Any, *more: Any) -> Any:
        calls.append(Path(targets[0]).name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, images, targets, *more)

    monkeypatch.setattr(nnUNetPredictor, "predict_from_files_sequential", interrupted)
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, *arguments, "--force") == 130
    assert {path: path.read_bytes() for path in before} == before
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, *arguments, "--force") == 0
    assert calls == ["case_0", "case_1", "case_2", "case_2", "case_3", "case_4"]
    assert evaluate(models["labels"], tmp_path / "new", "--on", ON_IGNORE, *arguments) == 0
    names = [sorted(str(path.relative_to(one)) for path in one.rglob("*")) for one in (out, tmp_path / "new")]
    assert names[0] == names[1]
    assert read(out) == read(tmp_path / "new")
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, *arguments) == 0, "the same, with what is there"
    assert len(calls) == 11


def test_another_request_needs_another_folder_or_force(models, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(models["labels"], out, "--on", ON_LABELS) == 0
    before = (out / "evaluation.json").read_bytes()
    assert evaluate(models["labels"], out, "--on", "901:val", "-f", "1") == 2
    message = capsys.readouterr().err
    assert "differs in: folds, " in message
    assert "--force" in message
    assert (out / "evaluation.json").read_bytes() == before
    assert evaluate(models["labels"], out, "--on", "901:val", "-f", "1", "--force") == 0
    assert list(read(out)["datasets"][0]["dice"]) == ["case_1"]


def test_a_folder_that_it_did_not_make_is_left_alone(models, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("precious")
    assert evaluate(models["labels"], tmp_path, "--on", ON_LABELS, "--force") == 2
    assert "did not make it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_data_are_only_read(workspace, models, tmp_path):
    def state() -> dict[Path, int]:
        folders = (workspace.raw, workspace.preprocessed, models["labels"])
        return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}

    before = state()
    assert evaluate(models["labels"], tmp_path / "out", "--on", ON_LABELS) == 0
    assert state() == before


@pytest.fixture
def dense(workspace: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the data in which labelsTr lacks the cores, and other folders have all labels and instances."""
    raw = tmp_path / "r ä w"
    folder = raw / "Dataset902_Ignore"
    shutil.copytree(workspace.raw / "Dataset902_Ignore", folder)
    shutil.copytree(folder / "labelsTr", folder / "labelsTr_dense")
    (folder / "instancesTr").mkdir()
    for file in (folder / "labelsTr_dense").iterdir():
        values = array(file)
        right_half = np.arange(values.shape[2]) >= values.shape[2] // 2
        # 301, 302 shell, 303, 304 core, left and right
        instances = np.where(np.isin(values, [1, 2]), 299 + 2 * values.astype(int) + right_half, 0)
        for target, content in (("instancesTr", instances), ("labelsTr", np.where(values == 2, 0, values))):
            image = sitk.GetImageFromArray(content.astype(np.uint16))
            sitk.WriteImage(image, str(folder / target / file.name))
    monkeypatch.setenv("nnUNet_raw", str(raw))
    return folder


def test_surface_and_lesions_of_dense_references_are_those_of_counting(models, dense, tmp_path, capsys):
    out = tmp_path / "out"
    assert evaluate(models["labels"], out, "--on", ON_IGNORE) == 0
    for file in (out / "Dataset902_Ignore_all").iterdir():  # predictions of which the scores are known
        moved = np.roll(array(dense / "labelsTr_dense" / file.name), 1, axis=0)
        right_half = np.arange(moved.shape[2]) >= moved.shape[2] // 2
        sitk.WriteImage(sitk.GetImageFromArray(np.where((moved == 2) & right_half, 1, moved)), str(file))
    asked = ["--labels", "labelsTr_dense", "--instances", "instancesTr", "--metrics", "dice", "surface", "lesions"]
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, *asked) == 0
    (entry,) = read(out)["datasets"]
    assert (entry["references"], entry["instances"], entry["overlap"]) == ("labelsTr_dense", "instancesTr", 0.1)
    cases = [f"case_{number}" for number in range(5)]
    assert list(entry["lesions"]) == list(entry["assd"]) == list(entry["hd95"]) == cases
    for case in cases:
        assert {"reference": 2, "found": 2, "recall": 1.0}.items() <= entry["lesions"][case]["shell"].items()
        core = {"reference": 2, "found": 1, "predicted": 1, "right": 1, "recall": 0.5, "precision": 1.0, "f1": 2 / 3}
        assert entry["lesions"][case]["core"] == pytest.approx(core)
        reference = array(dense / "labelsTr_dense" / f"{case}.nii.gz")
        prediction = array(out / "Dataset902_Ignore_all" / f"{case}.nii.gz")
        expected = surface_distances(reference == 2, (prediction == 2) & (reference != IGNORE), (1, 1, 1))
        assert entry["assd"][case]["core"] == pytest.approx(expected.assd)
        assert entry["hd95"][case]["core"] == pytest.approx(expected.hd95)
    core = entry["labels"]["core"]
    assert core["assd_mean"] == pytest.approx(np.mean([entry["assd"][case]["core"] for case in cases]))
    assert (core["cases_with_distance"], core["lesions"]["reference"], core["lesions"]["found"]) == (5, 10, 5)
    assert ["core:", "instance", "recall", "0.500", "[0.500,", "0.500]"] in [
        line.split() for line in capsys.readouterr().out.splitlines()
    ]


def test_other_metrics_on_the_same_folder_predict_nothing_again(models, dense, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert evaluate(models["labels"], out, "--on", ON_IGNORE) == 0
    before = read(out)["datasets"][0]
    monkeypatch.setattr(nnUNetPredictor, "predict_from_files_sequential", lambda *arguments: pytest.fail("predicted"))
    more = ["--metrics", "surface", "lesions", "--overlap", "0.5", "--labels", "labelsTr_dense"]
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, *more) == 0
    after = read(out)["datasets"][0]
    assert after["dice"].keys() == before["dice"].keys()
    assert after["dice"]["case_0"]["core"] != before["dice"]["case_0"]["core"]  # labelsTr has none
    assert (after["instances"], after["overlap"]) == ("components", 0.5)
    scores = read_scores(out / "scores.csv")
    assert set(scores["metric"]) == {metric.name for metric in metrics_of(["surface", "lesions"]) if metric.compute}
    assert set(scores["references"]) == {"labelsTr_dense"}


def test_cases_without_complete_labels_are_left_out_on_request(models, dense, tmp_path, capsys):
    total = len(list((dense / "labelsTr").iterdir()))
    for file in (dense / "labelsTr_dense").iterdir():
        if file.name != "case_2.nii.gz":
            file.unlink()
    asked = ["--on", ON_IGNORE, "--labels", "labelsTr", "labelsTr_dense"]
    assert evaluate(models["labels"], tmp_path / "out", *asked) == 2
    assert "Add --partial" in capsys.readouterr().err
    assert evaluate(models["labels"], tmp_path / "out", *asked, "--partial") == 0
    assert f"Left out of {ON_IGNORE.replace('902', dense.name)}: {total - 1} of {total}" in capsys.readouterr().out
    assert read(tmp_path / "out")["partial"]
    assert [list(entry["dice"]) for entry in read(tmp_path / "out")["datasets"]] == [["case_2"]] * 2
    assert [file.name for file in (tmp_path / "out").glob("*/*.nii.gz")] == ["case_2.nii.gz"]
    # the same again, when one more case has complete labels
    shutil.copy(dense / "labelsTr" / "case_1.nii.gz", dense / "labelsTr_dense")
    assert evaluate(models["labels"], tmp_path / "out", *asked, "--partial") == 0
    assert [list(entry["dice"]) for entry in read(tmp_path / "out")["datasets"]] == [["case_1", "case_2"]] * 2


def test_several_folders_of_references_are_scored_against_one_set_of_predictions(
    models, dense, tmp_path, monkeypatch, capsys
):
    (dense / "labelsTr_dense").rename(dense / "labelsTr dänse")
    folders = ["labelsTr", "labelsTr dänse"]
    metrics = ["--metrics", "nsd", "--tolerance", "core=1.5", "0"]
    assert evaluate(models["labels"], tmp_path / "both", "--on", ON_IGNORE, "--labels", *folders, *metrics) == 0
    shown = capsys.readouterr().out
    assert shown.count("case_4") == 1  # predicted once
    assert "Dataset902_Ignore_all (labelsTr)  Dataset902_Ignore_all (labelsTr dänse)" in shown
    assert "core: NSD at 1.5 mm" in shown
    assert "shell: NSD at 0 mm" in shown
    both = read(tmp_path / "both")["datasets"]
    assert [entry["references"] for entry in both] == folders
    assert both[0]["dice"] != both[1]["dice"]

    monkeypatch.setattr(nnUNetPredictor, "predict_from_files_sequential", lambda *arguments: pytest.fail("predicted"))
    for folder, entry in zip(folders, both):
        assert evaluate(models["labels"], tmp_path / "both", "--on", ON_IGNORE, "--labels", folder, *metrics) == 0
        assert read(tmp_path / "both")["datasets"] == [entry]

    assert both[1]["tolerances"] == {"shell": 0.0, "core": 1.5}
    reference = array(dense / "labelsTr dänse" / "case_2.nii.gz")
    prediction = np.where(reference == IGNORE, 0, array(tmp_path / "both" / "Dataset902_Ignore_all" / "case_2.nii.gz"))
    for label, value, tolerance in (("shell", 1, 0.0), ("core", 2, 1.5)):
        expected = surface_dice(reference == value, prediction == value, (1, 1, 1), tolerance=tolerance)
        assert both[1]["nsd"]["case_2"][label] == pytest.approx(expected)
        assert {"nsd_mean"} < both[1]["labels"][label]["intervals"].keys()


def operating_points(out: Path) -> dict[tuple[str, str, str, str, float], dict[str, str]]:
    """The rows of operating_points.csv by dataset, references, label, level and threshold."""
    with (out / "operating_points.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = ("dataset", "references", "label", "level")
    found = {(*(row[key] for key in keys), float(row["threshold"])): row for row in rows}
    assert len(found) == len(rows)
    return found


def counts(row: dict[str, str]) -> DetectionCounts:
    return DetectionCounts(*(int(row[name]) for name in ("reference", "found", "predicted", "right")))


def probabilities_by_nnunet(workspace: Any, model: Path, dataset: str, target: Path) -> dict[str, np.ndarray]:
    """What nnUNetv2_predict_from_modelfolder --save_probabilities writes of a dataset's training images."""
    arguments = ["-i", str(workspace.raw / dataset / "imagesTr"), "-o", str(target), "-m", str(model), "-f", "0"]
    arguments += ["-device", "cpu", "-npp", "1", "-nps", "1", "--save_probabilities"]
    call_entry_point(predict_entry_point_modelfolder, arguments)
    return {file.stem: np.load(file)["probabilities"] for file in target.glob("*.npz")}


@pytest.mark.parametrize(
    ("kind", "channels"), [("ignore", {"shell": (1, [1]), "core": (2, [2])}), ("regions", {"whole": (0, [1, 2])})]
)
def test_operating_points_are_those_of_nnunets_probabilities(workspace, models, tmp_path, capsys, kind, channels):
    model, dataset = models["regions" if kind == "regions" else "labels"], dataset_name(kind)
    asked = ["--on", f"{dataset}:all", "--metrics", "lesions", "--thresholds", "0.5", "0.3", "0.05", "0.3"]
    assert evaluate(model, tmp_path / "out", *asked) == 0
    shown = capsys.readouterr().out
    rows = operating_points(tmp_path / "out")
    probabilities = probabilities_by_nnunet(workspace, model, dataset, tmp_path / "nnunet")
    assert len(probabilities) == 5
    for label, (channel, values) in channels.items():
        for threshold in (0.05, 0.3, 0.5):
            voxels, lesions = np.zeros(3, int), np.zeros(4, int)
            for case, found in probabilities.items():
                reference = array(workspace.raw / dataset / "labelsTr" / f"{case}.nii.gz")
                ours, ignored = np.isin(reference, values), reference == IGNORE
                theirs = found[channel] >= threshold
                voxels += [np.sum(mask[~ignored]) for mask in (ours, theirs, ours & theirs)]
                lesions += count_lesions(ours, theirs, ignored=ignored)
            reference, predicted, both = voxels
            row = rows[dataset, "", label, "voxel", threshold]
            assert counts(row) == DetectionCounts(reference, both, predicted, both)
            assert float(row["recall"]) == pytest.approx(both / reference)
            assert row["precision"] == (str(both / predicted) if predicted else "")
            assert float(row["f1"]) == pytest.approx(2 * both / (reference + predicted))
            assert counts(rows[dataset, "", label, "lesion", threshold]) == tuple(lesions)
        assert f"{label}, lesions: nnU-Net's decision" in shown
    assert "Choose it on validation cases" in shown
    assert (tmp_path / "out" / "operating_points.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("kind", "channels"), [("ignore", {"shell": (1, [1]), "core": (2, [2])}), ("regions", {"whole": (0, [1, 2])})]
)
def test_every_metric_is_of_the_voxels_that_reach_the_threshold(workspace, models, tmp_path, capsys, kind, channels):
    model, dataset = models["regions" if kind == "regions" else "labels"], dataset_name(kind)
    asked = ["--on", f"{dataset}:all", "--metrics", "lesions"]
    assert evaluate(model, tmp_path / "out", *asked, "--threshold", "0.3") == 0
    assert "a label is every voxel whose probability is at least 0.3" in capsys.readouterr().out
    scores = pd.read_csv(tmp_path / "out" / "scores.csv").set_index(["case", "label", "metric"])
    probabilities = probabilities_by_nnunet(workspace, model, dataset, tmp_path / "nnunet")
    for label, (channel, values) in channels.items():
        for case, found in probabilities.items():
            reference = array(workspace.raw / dataset / "labelsTr" / f"{case}.nii.gz")
            known = reference != IGNORE
            ours, theirs = np.isin(reference, values) & known, (found[channel] >= 0.3) & known
            dice, voxels = scores.loc[case, label, "dice"], ours.sum() + theirs.sum()
            assert dice.denominator == (voxels > 0)
            if voxels:
                assert dice.numerator == pytest.approx(2 * np.sum(ours & theirs) / voxels, rel=1e-12)
            recall = scores.loc[case, label, "lesions_recall"]
            lesions = count_lesions(np.isin(reference, values), found[channel] >= 0.3, ignored=~known)
            assert (recall.numerator, recall.denominator) == (lesions[1], lesions[0])
    assert read(tmp_path / "out")["datasets"][0]["threshold"] == 0.3
    # nnU-Net's decision is scored by the same predictions
    assert evaluate(model, tmp_path / "out", *asked) == 0
    assert evaluate(model, tmp_path / "usual", *asked) == 0
    assert read(tmp_path / "out") == read(tmp_path / "usual")
    assert "threshold" not in read(tmp_path / "out")["datasets"][0]


def test_thresholds_change_no_prediction_and_no_score(models, tmp_path):
    assert evaluate(models["labels"], tmp_path / "without", "--on", ON_IGNORE) == 0
    assert not list((tmp_path / "without").glob("operating_points.*"))
    assert evaluate(models["labels"], tmp_path / "with", "--on", ON_IGNORE, "--thresholds") == 0
    assert read(tmp_path / "with") == read(tmp_path / "without")
    for file in (tmp_path / "without" / "Dataset902_Ignore_all").iterdir():
        np.testing.assert_array_equal(array(file), array(tmp_path / "with" / "Dataset902_Ignore_all" / file.name))
    rows = operating_points(tmp_path / "with")
    assert len(rows) == 2 * 21
    assert not list((tmp_path / "with").glob("*.unfinished"))
    assert evaluate(models["labels"], tmp_path / "with", "--on", ON_IGNORE) == 0
    assert not list((tmp_path / "with").glob("operating_points.*"))  # those of other scores


def test_only_thresholds_that_are_not_known_are_predicted_for(models, dense, tmp_path, monkeypatch):
    out, ask = tmp_path / "out", ["--on", ON_IGNORE, "--bootstrap", "0", "--thresholds"]
    assert evaluate(models["labels"], out, "--on", ON_IGNORE) == 0
    predictions = {file: file.stat().st_mtime_ns for file in (out / "Dataset902_Ignore_all").iterdir()}
    predict, calls = nnUNetPredictor.predict_from_files_sequential, []

    def counted(self: nnUNetPredictor, images: Any, *more: Any, **options: Any) -> Any:
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, images, *more, **options)

    monkeypatch.setattr(nnUNetPredictor, "predict_from_files_sequential", counted)
    assert evaluate(models["labels"], out, *ask, "0.2", "0.6") == 130
    assert not (out / "operating_points.csv").exists()
    assert evaluate(models["labels"], out, *ask, "0.2", "0.6") == 0  # three are left
    assert len(calls) == 6
    assert {file: file.stat().st_mtime_ns for file in (out / "Dataset902_Ignore_all").iterdir()} == predictions
    first = operating_points(out)

    more = ["--metrics", "lesions", "--overlap", "0.5", "--labels", "labelsTr", "labelsTr_dense"]
    assert evaluate(models["labels"], out, *ask, "0.6", *more) == 0
    assert len(calls) == 6
    rows = operating_points(out)
    assert len(rows) == 2 * 2 * 2

    def voxels(rows: dict[Any, dict[str, str]], label: str, references: str = "") -> DetectionCounts:
        return counts(rows["Dataset902_Ignore", references, label, "voxel", 0.6])

    assert voxels(rows, "shell", "labelsTr") == voxels(first, "shell")
    assert voxels(rows, "core", "labelsTr").reference == 0
    assert voxels(rows, "core", "labelsTr_dense").reference > 0

    assert evaluate(models["labels"], out, *ask, "0.4", "0.6") == 0
    assert len(calls) == 11
    assert voxels(operating_points(out), "shell") == voxels(first, "shell")
    known = {known_thresholds(file, ["shell", "core"]) for file in (out / "Dataset902_Ignore_all_thresholds").iterdir()}
    assert known == {(0.2, 0.4, 0.6)}


def test_several_sets_of_cases_have_their_own_operating_points(models, tmp_path):
    asked = ["--on", ON_LABELS, "--on", ON_IGNORE, "--thresholds", "0.5"]
    assert evaluate(models["labels"], tmp_path / "out", *asked) == 0
    rows = operating_points(tmp_path / "out")
    assert {key[0] for key in rows} == {"Dataset901_Labels", "Dataset902_Ignore"}
    assert len(rows) == 4


def test_the_files_do_not_depend_on_the_number_of_workers(models, tmp_path, monkeypatch):
    out, names = tmp_path / "out", ["evaluation.json", "evaluation.csv", "scores.csv"]
    names += ["operating_points.csv", "operating_points.png"]
    metrics = ["--metrics", "surface", "nsd", "lesions", "--tolerance", "1", "--thresholds", "0.3", "0.5"]
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, *metrics, "--workers", "1") == 0
    before = [(out / name).read_bytes() for name in names]
    monkeypatch.setattr(parallel, "SECONDS_ALONE", 0)
    used = []
    in_processes = parallel._in_processes
    monkeypatch.setattr(
        parallel, "_in_processes", lambda *items, workers: used.append(workers) or in_processes(*items, workers=workers)
    )
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, *metrics) == 0  # this fixture has two cores
    assert used == [2]
    assert [(out / name).read_bytes() for name in names] == before


def test_interrupted_scoring_leaves_the_files_of_before(models, tmp_path, monkeypatch):
    out = tmp_path / "out"
    assert evaluate(models["labels"], out, "--on", ON_IGNORE) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def interrupted(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunet_ext.evaluation.scoring.CaseMaps", interrupted)
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, "--bootstrap", "7") == 130
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_patients_are_those_of_the_file(models, tmp_path):
    out, file = tmp_path / "out", tmp_path / "pairs ü.json"
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, "--bootstrap", "300") == 0
    alone = read(out)["datasets"][0]
    assert read(out)["bootstrap"]["resamples"] == 300
    assert alone["number_of_patients"] == 5
    patients = {"case_0": "A", "case_1": "A", "case_2": "B", "case_3": "B", "case_4": "C"}
    file.write_text(json.dumps({"cases": {case: {"patient": patient} for case, patient in patients.items()}}))
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, "--patients", str(file)) == 0
    entry = read(out)["datasets"][0]
    assert entry["number_of_patients"] == 3
    assert entry["intervals"] != alone["intervals"]
    assert entry["foreground_aggregated_dice"] == alone["foreground_aggregated_dice"]
    assert evaluate(models["labels"], out, "--on", ON_IGNORE, "--bootstrap", "0") == 0
    assert "intervals" not in read(out)["datasets"][0]


@pytest.mark.parametrize("mirroring", [False, True])
def test_predictions_are_mirrored_unless_it_is_asked_otherwise(models, mirroring):
    model = find_trained_model(models["labels"], [0])
    assert load_predictor(model, device="cpu", mirroring=mirroring).use_mirroring is mirroring


def test_a_case_without_a_patient_is_refused_before_anything_is_predicted(models, tmp_path, capsys):
    file = tmp_path / "patients.json"
    file.write_text('{"case_0": "A"}')
    assert evaluate(models["labels"], tmp_path / "out", "--on", ON_IGNORE, "--patients", str(file)) == 2
    assert "names no patient for 4 of 5 cases" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--on", "901", "--labels", "labelsTr_dense"], "has no folder labelsTr_dense. It has: imagesTr, "),
        (["--on", "901", "--metrics", "lesions", "--instances", "instancesTr"], "has no folder instancesTr"),
        (["--on", "901", "--labels", "labelsTr", "./labelsTr/"], "--labels names a folder twice"),
        (["--on", "901", "--on", "901:val", "--labels", "labelsTr"], "given twice: Dataset901_Labels_val (labelsTr),"),
        (["--on", "901", "--metrics", "nsd"], "NSD needs a tolerance"),
        (["--on", "901", "--tolerance", "1"], "--tolerance is for NSD alone"),
        (["--on", "901", "--metrics", "nsd", "--tolerance", "core=1"], "--tolerance has nothing for shell"),
        (["--on", "901", "--metrics", "nsd", "--tolerance", "cores=1", "2"], "scored are shell, core"),
        (["--on", "901", "--instances", "labelsTr"], "--instances is for the lesions alone"),
        (["--on", "901", "--overlap", "0.5"], "--overlap is for the lesions alone"),
        (["--on", "901", "--patients", "x.json", "--bootstrap", "0"], "--patients is for the intervals alone"),
        (["--on", "901", "--patients", "x.json"], "x.json does not exist"),
        (["--on", "903:all"], "takes 1 channel (MRI), but Dataset903_Regions has 3"),
        (["--on", "901:test"], "have no label to score against"),
        (["--on", "901:val", "-f", "0", "1"], "cannot score an ensemble"),
        (["--on", "901", "--on", "901:val"], "given twice"),
        (["--on", "999"], "Dataset 999 is not in"),
        (["--on", "901", "-f", "4"], "has: fold_0/checkpoint_"),
        (["--on", "901", "--checkpoint", "none.pth"], "none.pth does not exist"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is_written(models, tmp_path, capsys, arguments, message):
    assert evaluate(models["labels"], tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_second_stage_of_a_cascade_is_refused(models, tmp_path, capsys):
    model = tmp_path / "model"
    shutil.copytree(models["labels"], model)
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["3d_tiny"]["previous_stage"] = "3d_lowres"
    (model / "plans.json").write_text(json.dumps(plans))
    file = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    for name, weight in checkpoint["network_weights"].items():
        if weight.ndim == 5 and weight.shape[1] == 1:  # a cascade's network also takes one input for each label
            checkpoint["network_weights"][name] = weight.repeat(1, 3, 1, 1, 1)
    torch.save(checkpoint, file)
    assert evaluate(model, tmp_path / "out", "--on", ON_LABELS) == 2
    message = capsys.readouterr().err
    assert "cascade" in message
    assert "nnunet_ext evaluate --predictions FOLDER --labels FOLDER" in message


@pytest.mark.parametrize(
    "arguments",
    [["--on", "901:train"], ["--on", ":val"], ["--on", "901", "-f", "x"]]
    + [["--on", "901", "--metrics", "iou"], ["--on", "901", "--overlap", "0"], ["--on", "901", "--overlap", "much"]]
    + [["--on", "901", "--bootstrap", "-1"], ["--on", "901", "--workers", "0"]]
    + [["--on", "901", "--thresholds", "0.5", text] for text in ("0", "1", "nan", "-0.5", "much")]
    + [
        ["--on", "901", "--metrics", "nsd", "--tolerance", text] for text in ("-1", "core=-1", "core=much", "nan", "=1")
    ],
)
def test_wrong_usage_exits_with_two(tmp_path, arguments):
    with pytest.raises(SystemExit) as stop:
        evaluate(tmp_path, tmp_path / "out", *arguments)
    assert stop.value.code == 2


def test_the_kinds_of_data_are_those_that_this_module_counts_on():
    assert KINDS["labels"]["labels"].items() < KINDS["ignore"]["labels"].items()
