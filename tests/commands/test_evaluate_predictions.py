"""``nnunet_ext evaluate --predictions``: predictions of any origin are scored like those of a model."""

from __future__ import annotations

import html
import json
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import tifffile
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.evaluation.evaluate_predictions import evaluate_folder_entry_point
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.postprocessing.remove_connected_components import (
    load_postprocess_save,
    remove_all_but_largest_component_from_segmentation,
)

from nnunet_ext.cli import main
from nnunet_ext.evaluation.scores_table import read_scores
from nnunet_ext.report.sources import read_results_folder
from support.golden_cases import ORGANS, PATIENTS, write_golden_cases
from support.nnunet_runs import call_entry_point

CASES = [f"organs_{number}" for number in range(8)]


@pytest.fixture
def folders(tmp_path):
    """Predictions, and a dataset with two folders of references and maps of instances."""
    write_golden_cases(tmp_path)
    predictions = tmp_path / "prêt à porter"
    shutil.copytree(tmp_path / "stock_1" / "Dataset001_Organs_all", predictions)
    return predictions, tmp_path / "nnUNet_raw" / "Dataset001_Organs"


def evaluate(out, predictions, *arguments):
    return main(["evaluate", "--predictions", str(predictions), "-o", str(out), *map(str, arguments)])


def read(out):
    return json.loads((out / "evaluation.json").read_text())


def test_dice_is_that_of_nnunetv2_evaluate_folder(folders, tmp_path):
    predictions, dataset = folders
    assert evaluate(tmp_path / "out", predictions, "--labels", dataset / "labelsTr") == 0
    plans = tmp_path / "plans.json"
    plans.write_text(json.dumps({"image_reader_writer": "SimpleITKIO"}))
    arguments = [str(dataset / "labelsTr"), str(predictions), "-djfile", str(dataset / "dataset.json")]
    call_entry_point(
        evaluate_folder_entry_point,
        [*arguments, "-pfile", str(plans), "-o", str(tmp_path / "summary.json"), "-np", "1"],
    )
    summary = json.loads((tmp_path / "summary.json").read_text())
    (entry,) = read(tmp_path / "out")["datasets"]
    assert (entry["dataset"], entry["cases"], entry["references"]) == ("Dataset001_Organs", "predicted", "labelsTr")
    for place, label in enumerate(("organ", "lesion", "absent"), start=1):
        found = [entry["dice"][case][label] for case in CASES]
        expected = [case["metrics"][str(place)]["Dice"] for case in summary["metric_per_case"]]
        assert [np.nan if value is None else value for value in found] == pytest.approx(expected, nan_ok=True)
    # nnU-Net's own mean is NaN, as no case has the label absent
    assert entry["foreground_mean"] == pytest.approx(np.nanmean([one["Dice"] for one in summary["mean"].values()]))


@pytest.mark.parametrize(("one_piece", "labels"), [("foreground", [[1, 2]]), ("labels", [1, 2])])
def test_islands_are_left_out_as_by_the_postprocessing_of_nnunet(folders, tmp_path, capsys, one_piece, labels):
    predictions, dataset = folders
    file = predictions / f"{CASES[0]}.nii.gz"
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    array[-1, -1, -2:], array[0, 0, :1] = 1, 2
    changed = sitk.GetImageFromArray(array)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))
    shutil.copytree(predictions, tmp_path / "processed")
    for copy in (tmp_path / "processed").glob("*.nii.gz"):
        arguments = [str(copy), str(copy), SimpleITKIO(), [remove_all_but_largest_component_from_segmentation] * 2]
        load_postprocess_save(*arguments, [{"labels_or_regions": one} for one in labels])
    asked = ["--labels", dataset / "labelsTr", "--metrics", "surface", "--bootstrap", "0"]
    assert evaluate(tmp_path / "out", predictions, *asked, "--largest-component", one_piece) == 0
    assert "scored is the largest connected component of" in capsys.readouterr().out
    assert evaluate(tmp_path / "expected", tmp_path / "processed", *asked) == 0
    assert evaluate(tmp_path / "usual", predictions, *asked) == 0
    scores, expected, usual = (
        read_scores(tmp_path / out / "scores.csv").drop(columns="run") for out in ("out", "expected", "usual")
    )
    pd.testing.assert_frame_equal(scores, expected)
    assert not scores.equals(usual)
    assert read(tmp_path / "out")["datasets"][0]["largest_component"] == one_piece
    shutil.copytree(predictions, tmp_path / "by its file")
    functions = load_pickle(str(tmp_path / "out" / "postprocessing.pkl"))
    for copy in (tmp_path / "by its file").glob("*.nii.gz"):
        load_postprocess_save(str(copy), str(copy), SimpleITKIO(), *functions)
        found = [sitk.ReadImage(str(one)) for one in (copy, tmp_path / "processed" / copy.name)]
        np.testing.assert_array_equal(*map(sitk.GetArrayFromImage, found))
    assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "page.html"), "--bootstrap", "0"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "Pictures show all components." in page
    assert f"--largest-component {one_piece}" in page
    assert evaluate(tmp_path / "out", predictions, *asked) == 0
    assert not list((tmp_path / "out").glob("postprocessing.*")), "those of other scores"


def test_the_largest_component_needs_one_set_of_labels(folders, tmp_path, capsys):
    predictions, dataset = folders
    (predictions / "dataset.json").unlink(missing_ok=True)
    other = tmp_path / "other"
    shutil.copytree(dataset / "labelsTr", other / "labelsTr")
    description = json.loads((dataset / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps({**description, "labels": {"background": 0, "organ": 1}}))
    asked = ["--labels", dataset / "labelsTr", other / "labelsTr", "--bootstrap", "0"]
    assert evaluate(tmp_path / "out", predictions, *asked) == 0
    assert evaluate(tmp_path / "out", predictions, *asked, "--largest-component", "labels") == 2
    assert "Add --dataset-json FILE" in capsys.readouterr().err
    # the same labels in another order are the same
    turned = dict(reversed(description["labels"].items()))
    (other / "dataset.json").write_text(json.dumps({**description, "labels": turned}))
    assert evaluate(tmp_path / "turned", predictions, *asked, "--largest-component", "labels") == 0


def test_every_metric_interval_and_reference_works_as_for_a_model(folders, tmp_path, capsys):
    predictions, dataset = folders
    patients = tmp_path / "patients.json"
    patients.write_text(json.dumps(PATIENTS))
    labels = ["--labels", dataset / "labelsTr", dataset / "labelsTr_sparse"]
    metrics = ["--metrics", "surface", "nsd", "lesions", "--tolerance", "1", "--overlap", "0.2"]
    more = [*metrics, "--patients", patients, "--bootstrap", "50"]
    assert evaluate(tmp_path / "out", predictions, *labels, *more) == 0
    full, sparse = read(tmp_path / "out")["datasets"]
    assert (full["number_of_patients"], sparse["references"]) == (4, "labelsTr_sparse")
    assert set(full["labels"]["organ"]["intervals"]) >= {"dice_mean", "nsd_mean", "hd95_mean", "lesions_f1"}
    assert "Dataset001_Organs_predicted (labelsTr)" in capsys.readouterr().out
    scores = read_scores(tmp_path / "out" / "scores.csv")
    assert set(scores["run"]) == {predictions.name}
    assert set(scores["patient"]) == {"P0", "P1", "P2", "P3"}
    sheet = pd.read_csv(tmp_path / "out" / "evaluation.csv")
    assert len(sheet) == len(scores[["references", "case"]].drop_duplicates())
    dice = [by_label["organ"] for one in (full, sparse) for by_label in one["dice"].values()]
    assert sheet["organ dice"].tolist() == dice

    instances = ["--instances", dataset / "instancesTr"]
    assert evaluate(tmp_path / "out", predictions, *labels[:2], "--metrics", "lesions", *instances) == 0
    (entry,) = read(tmp_path / "out")["datasets"]
    assert entry["instances"] == "instancesTr"
    assert evaluate(tmp_path / "out", tmp_path / "stock_0" / "Dataset001_Organs_all", *labels[:2]) == 2
    assert "differs in: predictions" in capsys.readouterr().err


def test_the_summary_alone_is_on_stdout_for_machines(folders, tmp_path, capsys):
    predictions, dataset = folders
    assert evaluate(tmp_path / "out", predictions, "--labels", dataset / "labelsTr", "--json") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == read(tmp_path / "out")
    assert "aggregated Dice" in printed.err


def test_cases_of_one_folder_alone_are_named_and_left_out_if_asked(folders, tmp_path, capsys):
    predictions, dataset = folders
    (predictions / "._organs_0.nii.gz").write_bytes(b"of macOS")
    (predictions / "organs_3.nii.gz").rename(predictions / "other.nii.gz")
    labels = ["--labels", dataset / "labelsTr"]
    assert evaluate(tmp_path / "out", predictions, *labels) == 2
    message = capsys.readouterr().err
    assert "1 of 8 cases in" in message
    assert "other." in message
    assert "organs_3." in message
    assert "--partial" in message
    assert not (tmp_path / "out").exists()
    assert evaluate(tmp_path / "out", predictions, *labels, "--partial") == 0
    assert list(read(tmp_path / "out")["datasets"][0]["dice"]) == [case for case in CASES if case != "organs_3"]
    assert "have no prediction in" in capsys.readouterr().out


def test_several_folders_of_labels_are_scored_on_the_cases_of_all(folders, tmp_path, capsys):
    predictions, dataset = folders
    shutil.copytree(dataset / "labelsTr", dataset / "labels_dense")
    for case in CASES[1:]:
        next((dataset / "labels_dense").glob(f"{case}.*")).unlink()
    labels = ["--labels", dataset / "labelsTr", dataset / "labels_dense"]
    assert evaluate(tmp_path / "out", predictions, *labels, "--partial") == 0
    assert [list(one["dice"]) for one in read(tmp_path / "out")["datasets"]] == [[CASES[0]]] * 2
    next((dataset / "labelsTr").glob(f"{CASES[0]}.*")).unlink()
    assert evaluate(tmp_path / "apart", predictions, *labels, "--partial") == 2
    assert "No case has a label in each of" in capsys.readouterr().err


def test_labels_are_those_of_the_dataset_json_that_is_given_or_found(folders, tmp_path, capsys):
    predictions, dataset = folders
    # a model of other labels wrote the predictions: what both have is scored
    (predictions / "dataset.json").write_text(json.dumps({"labels": {"organ": 1, "x": 7}, "file_ending": ".nii.gz"}))
    assert evaluate(tmp_path / "both", predictions, "--labels", dataset / "labelsTr") == 0
    (entry,) = read(tmp_path / "both")["datasets"]
    assert list(entry["labels"]) == ["organ"]
    assert entry["not_scored"] == {"only_in_model": ["x"], "only_in_dataset": ["lesion", "absent"]}
    given = tmp_path / "given.json"
    given.write_text(json.dumps({**ORGANS, "labels": {"lesion": 2, "ignore": 4}}))
    assert evaluate(tmp_path / "given", predictions, "--labels", dataset / "labelsTr", "--dataset-json", given) == 0
    assert list(read(tmp_path / "given")["datasets"][0]["labels"]) == ["lesion"]
    (predictions / "dataset.json").unlink()
    (dataset / "dataset.json").unlink()
    capsys.readouterr()
    assert evaluate(tmp_path / "none", predictions, "--labels", dataset / "labelsTr") == 2
    assert "--dataset-json FILE" in capsys.readouterr().err


def test_a_prediction_of_another_size_is_refused_by_name(folders, tmp_path, capsys):
    predictions, dataset = folders
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((5, 14, 15), np.uint8)), str(predictions / "organs_2.nii.gz"))
    assert evaluate(tmp_path / "out", predictions, "--labels", dataset / "labelsTr") == 2
    assert "organs_2.nii.gz has 5 x 14 x 16 voxels, but" in capsys.readouterr().err


def test_an_error_with_force_leaves_the_evaluation_of_before(folders, tmp_path, capsys):
    predictions, dataset = folders
    out, arguments = tmp_path / "out", ["--labels", dataset / "labelsTr", "--bootstrap", "0"]
    assert evaluate(out, predictions, *arguments) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    file = predictions / f"{CASES[3]}.nii.gz"
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    assert evaluate(out, predictions, *arguments, "--force") == 2
    assert file.name in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    file.write_bytes(content)
    (out / "note.txt").write_text("of the former evaluation")
    assert evaluate(out, predictions, *arguments, "--force") == 0
    assert f"Wrote {out / 'evaluation.json'}" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_command_in_a_report_gives_the_same_scores(folders, tmp_path):
    """Cases that one folder lacks, a dataset.json of its own, maps of instances, another overlap."""
    predictions, dataset = folders
    (predictions / "organs_3.nii.gz").unlink()
    given = tmp_path / "given é.json"
    (dataset / "dataset.json").rename(given)
    more = ["--partial", "--dataset-json", given, "--metrics", "lesions", "--overlap", "0.5"]
    more += ["--instances", dataset / "instancesTr"]
    assert evaluate(tmp_path / "out", predictions, "--labels", dataset / "labelsTr", *more) == 0
    assert main(["report", str(tmp_path / "out"), "-o", str(tmp_path / "report.html"), "--bootstrap", "20"]) == 0
    (command,) = read_results_folder(tmp_path / "out").commands
    assert command in html.unescape((tmp_path / "report.html").read_text(encoding="utf-8"))
    program, *arguments = shlex.split(command)
    assert (program, arguments[-1]) == ("nnunet_ext", "OUT")
    assert main([*arguments[:-1], str(tmp_path / "again")]) == 0
    assert read(tmp_path / "again") == read(tmp_path / "out")


def test_a_report_takes_the_folder(folders, tmp_path):
    predictions, dataset = folders
    for name, folder in (("a", predictions), ("b", tmp_path / "stock_0" / "Dataset001_Organs_all")):
        assert evaluate(tmp_path / name, folder, "--labels", dataset / "labelsTr", "--metrics", "surface") == 0
    page = tmp_path / "report.html"
    assert main(["report", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(page), "--bootstrap", "20"]) == 0
    text = page.read_text(encoding="utf-8")
    assert "The training behind predictions is not known" in text
    assert f"--predictions &#39;{predictions}&#39; --metrics dice surface --labels {dataset / 'labelsTr'}" in text
    assert "ASSD in mm" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["MODEL", "--labels", "labelsTr"], "exclude each other"),
        (["--labels", "labelsTr", "--thresholds"], "--thresholds: only for a model"),
        (["--labels", "labelsTr", "--on", "4", "-f", "1"], "--on, --folds: only for a model"),
        ([], "needs --labels"),
        (["--labels", "nowhere"], "nowhere does not exist"),
        (["--labels", ".", "--dataset-json", "nowhere.json"], "nowhere.json does not exist"),
    ],
)
def test_what_cannot_be_scored_is_said_before_anything_is_written(tmp_path, capsys, arguments, message):
    (tmp_path / "predictions").mkdir()
    assert evaluate(tmp_path / "out", tmp_path / "predictions", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [[], ["MODEL"], ["--labels", "labelsTr"]])
def test_neither_a_model_nor_predictions_is_refused(tmp_path, capsys, arguments):
    assert main(["evaluate", *arguments, "-o", str(tmp_path / "out")]) == 2
    assert "Give MODEL_FOLDER and --on DATASET, or --predictions FOLDER" in capsys.readouterr().err


def test_options_for_predictions_alone_are_refused_with_a_model(tmp_path, capsys):
    assert main(["evaluate", "MODEL", "--on", "4", "--dataset-json", "dataset.json", "-o", str(tmp_path / "out")]) == 2
    assert "only for --predictions" in capsys.readouterr().err


def test_tiff_predictions_without_their_spacing_have_that_of_the_references(tmp_path):
    labels = np.zeros((4, 6, 6), np.uint8)
    labels[1:3, 2:4, 2:4] = 1
    for folder, moved in (("labels", labels), ("predictions", np.roll(labels, 1, axis=0))):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / "case.tif", moved)
    (tmp_path / "labels" / "case.json").write_text('{"spacing": [5, 1, 1]}')
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".tif"}
    description["overwrite_image_reader_writer"] = "Tiff3DIO"
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    scored = evaluate(
        tmp_path / "out", tmp_path / "predictions", "--labels", tmp_path / "labels", "--metrics", "surface"
    )
    assert scored == 0
    assert read(tmp_path / "out")["datasets"][0]["hd95"]["case"]["organ"] == 5


def test_names_that_the_report_would_refuse_are_refused_before_scoring(folders, tmp_path, capsys):
    predictions, dataset = folders
    references = dataset / "labels\nTr"
    (dataset / "labelsTr").rename(references)
    assert evaluate(tmp_path / "out", predictions, "--labels", references) == 2
    assert "cannot be the name of a folder of references: it holds control characters. Rename it." in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_the_table_for_spreadsheets_holds_no_formula(folders, tmp_path):
    predictions, dataset = folders
    case = "=HYPERLINK(1)"
    for folder in (predictions, dataset / "labelsTr"):
        (folder / f"{CASES[0]}.nii.gz").rename(folder / f"{case}.nii.gz")
    assert evaluate(tmp_path / "out", predictions, "--labels", dataset / "labelsTr") == 0
    assert f"'{case}" in set(pd.read_csv(tmp_path / "out" / "evaluation.csv")["case"])
    assert case in set(read_scores(tmp_path / "out" / "scores.csv")["case"]), "which the report reads"
