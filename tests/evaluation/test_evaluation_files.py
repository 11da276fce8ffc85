"""Files, table and remarks hold every score that was asked for, and say where there is none."""

from __future__ import annotations

import csv
import json

import pytest

from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.evaluation_files import remarks, results_table, write_results
from nnunet_ext.evaluation.model_evaluation import Model, match_labels
from nnunet_ext.evaluation.scoring import Metrics, Result, score
from support.rows_of_voxels import MILLIMETRES, write_cases

DICE_COLUMNS = ["dataset", "cases", "case", "label", "dice"]
RATES = ["reference", "found", "predicted", "right", "recall", "precision", "f1"]


@pytest.fixture
def result(tmp_path):
    return score(*write_cases(tmp_path), tmp_path / "predictions")


@pytest.fixture
def full(tmp_path):
    return score(*write_cases(tmp_path), tmp_path / "predictions", Metrics(surface=True, lesions=True, overlap=0.6))


@pytest.fixture
def model(tmp_path):
    return Model(tmp_path / "Dataset002_Other" / "T__P__C", (0, "all"), "checkpoint_best.pth", {})


def written(folder, model, results):
    """What is in evaluation.json and in evaluation.csv."""
    write_results(folder, model, results, mirroring=True)
    content = json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    with (folder / "evaluation.csv").open(newline="") as file:
        return content, list(csv.DictReader(file))


def test_files_hold_every_number_and_null_where_there_is_none(result, model, tmp_path):
    content, rows = written(tmp_path, model, [result])
    assert content["model"] == "T__P__C"
    assert content["trained_on"] == "Dataset002_Other"
    assert content["folds"] == [0, "all"]
    assert content["checkpoint"] == "checkpoint_best.pth"
    assert set(content["versions"]) == {"nnunet_ext", "nnunetv2"}
    assert "neither reference nor prediction" in content["rule"]
    (entry,) = content["datasets"]
    assert entry["dice"]["b"] == {"shell": pytest.approx(2 / 3), "core": None, "fin": None}
    assert entry["labels"]["core"] == {
        "dice_mean": pytest.approx(2 / 3),
        "cases_with_dice": 1,
        "cases_without_dice": 1,
    }
    assert entry["labels"]["fin"]["dice_mean"] is None
    assert entry["not_scored"] == {"only_in_model": ["more"], "only_in_dataset": []}
    assert len(rows) == 6
    assert list(rows[0]) == DICE_COLUMNS
    by_key = {(row["case"], row["label"]): row["dice"] for row in rows}
    assert float(by_key["a", "shell"]) == pytest.approx(4 / 5)
    assert by_key["b", "core"] == ""


def test_dice_alone_leaves_the_other_metrics_out(result, model, tmp_path):
    content, _ = written(tmp_path, model, [result])
    assert "ASSD" not in content["rule"]
    assert "instance" not in content["rule"]
    (entry,) = content["datasets"]
    assert list(entry) == [
        "dataset",
        "cases",
        "number_of_cases",
        "foreground_mean",
        "labels",
        "not_scored",
        "dice",
    ]


def test_distances_and_lesions_are_added_to_each_label_and_case(full, model, tmp_path):
    content, rows = written(tmp_path, model, [full])
    assert "cases_with_distance" in content["rule"]
    assert "F1 is 0 if only one side" in content["rule"]
    (entry,) = content["datasets"]
    shell = entry["labels"]["shell"]
    assert shell["assd_mean"] == pytest.approx(MILLIMETRES * (1 / 5 + 1 / 3) / 2)
    assert shell["hd95_mean"] == pytest.approx((0.9 + 0.95) / 2 * MILLIMETRES)
    assert shell["cases_with_distance"] == 2
    assert shell["lesions"] == {
        "reference": 2,
        "found": 2,
        "predicted": 2,
        "right": 1,
        "recall": 1.0,
        "precision": 0.5,
        "f1": pytest.approx(2 / 3),
    }
    fin = entry["labels"]["fin"]
    assert (fin["assd_mean"], fin["hd95_mean"], fin["cases_with_distance"]) == (None, None, 0)
    assert [fin["lesions"][name] for name in RATES] == [0, 0, 0, 0, None, None, None]
    assert entry["assd"]["b"] == {"shell": pytest.approx(MILLIMETRES / 3), "core": None, "fin": None}
    assert entry["hd95"]["b"] == {"shell": pytest.approx(0.95 * MILLIMETRES), "core": None, "fin": None}
    assert [entry["lesions"]["b"]["shell"][name] for name in RATES] == [1, 1, 1, 0, 1.0, 0.0, 0.0]
    assert entry["instances"] == "components"
    assert entry["overlap"] == 0.6

    assert list(rows[0]) == [*DICE_COLUMNS, "assd", "hd95", *(f"lesions_{name}" for name in RATES)]
    by_key = {(row["case"], row["label"]): row for row in rows}
    assert float(by_key["a", "shell"]["assd"]) == pytest.approx(MILLIMETRES / 5)
    assert by_key["a", "shell"]["lesions_right"] == "1"
    assert by_key["b", "core"]["hd95"] == by_key["b", "core"]["lesions_f1"] == ""
    assert by_key["b", "core"]["lesions_found"] == "0"


def test_other_references_and_instances_are_named(full, model, tmp_path):
    cases = full.cases
    other = CaseSet(cases.dataset, "all", cases.description, cases.cases, "labelsTr_dense", tmp_path / "instancesTr")
    content, _ = written(
        tmp_path, model, [Result(other, full.labels, full.dice, Metrics(lesions=True), {}, full.lesions)]
    )
    assert content["datasets"][0]["references"] == "labelsTr_dense"
    assert content["datasets"][0]["instances"] == "instancesTr"


def test_table_has_datasets_side_by_side(result):
    other = match_labels({"labels": {"shell": 1}}, {"labels": {"shell": 1}}, name="D")
    second = Result(
        CaseSet("Dataset002_B", "val", {}, {"c": result.cases.cases["a"]}), other, {"shell": result.dice["shell"]}
    )
    lines = [line.split() for line in results_table([result, second]).splitlines()]
    assert lines == [
        ["Dice", "Dataset001_Hand_all", "Dataset002_B_val"],
        ["cases", "2", "1"],
        ["shell", "0.733", "0.733"],
        ["core", "0.667", "-"],
        ["fin", "-", "-"],
        ["mean", "0.700", "0.733"],
    ]


def test_table_has_rows_for_the_other_metrics(full):
    lines = [line.rsplit(maxsplit=1) for line in results_table([full]).splitlines()]
    assert lines[5:] == [
        ["mean", "0.700"],
        ["shell: ASSD in mm", "0.533"],
        ["core: ASSD in mm", "0.667"],
        ["fin: ASSD in mm", "-"],
        ["shell: HD95 in mm", "1.850"],
        ["core: HD95 in mm", "1.900"],
        ["fin: HD95 in mm", "-"],
        ["shell: instance recall", "1.000"],
        ["core: instance recall", "1.000"],
        ["fin: instance recall", "-"],
        ["shell: instance precision", "0.500"],
        ["core: instance precision", "0.000"],
        ["fin: instance precision", "-"],
        ["shell: instance F1", "0.667"],
        ["core: instance F1", "0.000"],
        ["fin: instance F1", "-"],
    ]


def test_cases_without_a_score_are_told(result, full):
    said = "\n".join(remarks(result))
    assert "1 of 2 cases have core in neither" in said
    assert "2 of 2 cases have fin in neither" in said
    assert "shell" not in said
    assert "not scored: more (only in the model)" in said
    assert "ASSD" not in said
    assert "1 of 2 cases lack core in reference or prediction and do not count in its ASSD" in "\n".join(remarks(full))
