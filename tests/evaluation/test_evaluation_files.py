"""Files, table and remarks hold every score that was asked for, and say where there is none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nnunet_ext.checkpoints.trained_model import TrainedModel
from nnunet_ext.evaluation.evaluation_files import (
    origin_of_model,
    remark_on_folds,
    remarks,
    results_table,
    write_results,
)
from nnunet_ext.evaluation.scored_labels import match_labels
from nnunet_ext.evaluation.scores_table import read_scores
from nnunet_ext.evaluation.scoring import Options, score
from support.rows_of_voxels import MILLIMETRES, write_cases

VOXEL = MILLIMETRES * 3 * 4  # mm³, also of a volume of a single slice
TOLERANCES = {"shell": MILLIMETRES / 2, "core": MILLIMETRES, "fin": 0.0}
EVERYTHING = Options(("surface", "nsd", "lesions"), overlap=0.6, tolerances=TOLERANCES)
RATES = ["reference", "found", "predicted", "right", "recall", "precision", "f1"]


@pytest.fixture
def result(tmp_path):
    return score(*write_cases(tmp_path), tmp_path / "predictions")


@pytest.fixture
def full(tmp_path):
    return score(*write_cases(tmp_path), tmp_path / "predictions", EVERYTHING)


@pytest.fixture
def model(tmp_path):
    return TrainedModel(tmp_path / "Dataset002_Other" / "T__P__C", (0, "all"), "checkpoint_best.pth", {}, {})


def written(folder, model, results):
    """What is in evaluation.json, and the rows of scores.csv by case, label and metric."""
    write_results(folder, origin_of_model(model, mirroring=True), results)
    content = json.loads((folder / "evaluation.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    return content, read_scores(folder / "scores.csv").set_index(["case", "label", "metric"])


@pytest.mark.parametrize(
    ("used", "trained", "said"),
    [
        ([0], [0, 1, 2, "all"], ["Predicted by fold 0 alone. Trained folds that took no part: 1, 2, all."]),
        ([0, 2], [0, 1, 2], ["Predicted by folds 0, 2. Trained folds that took no part: 1."]),
        ([0, 1], [0, 1], []),
    ],
)
def test_folds_that_took_no_part_are_told(model, used, trained, said):
    for fold in [*trained, 9]:
        name = "checkpoint_best.pth" if fold == 9 else "checkpoint_final.pth"  # 9 is still training
        file = model.folder / f"fold_{fold}" / name
        file.parent.mkdir(parents=True)
        file.touch()
    assert remark_on_folds(replace(model, folds=tuple(used))) == said


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
        "aggregated_dice": pytest.approx(2 / 3),
    }
    # (2·2 + 2·1) / ((3 + 2) + (1 + 2)); fin has none and no part in the mean
    assert entry["labels"]["shell"]["aggregated_dice"] == pytest.approx(6 / 8)
    assert entry["foreground_aggregated_dice"] == pytest.approx((6 / 8 + 2 / 3) / 2)
    assert entry["labels"]["fin"]["dice_mean"] is None
    assert entry["labels"]["fin"]["aggregated_dice"] is None
    assert entry["volumes"]["a"]["shell"] == {"reference": 3 * VOXEL, "predicted": 2 * VOXEL, "both": 2 * VOXEL}
    assert entry["not_scored"] == {"only_in_model": ["more"], "only_in_dataset": []}
    assert len(rows) == 6 * 4
    assert set(rows["run"]) == {"T__P__C"}
    assert set(rows["dataset"]) == {"Dataset001_Hand_all"}
    parts = rows[["numerator", "denominator"]]
    assert list(parts.loc["a", "shell", "dice"]) == [pytest.approx(4 / 5), 1]
    assert list(parts.loc["b", "core", "dice"]) == [0, 0]
    above, below = parts.loc[:, "shell", "aggregated_dice"].sum()
    assert above / below == pytest.approx(6 / 8)
    assert list(parts.loc["a", "shell", "volume_predicted"]) == [2 * VOXEL, 1]


def test_dice_alone_leaves_the_other_metrics_out(result, model, tmp_path):
    content, _ = written(tmp_path, model, [result])
    assert "ASSD" not in content["rule"]
    assert "NSD" not in content["rule"]
    assert "instance" not in content["rule"]
    (entry,) = content["datasets"]
    assert list(entry) == [
        "dataset",
        "cases",
        "number_of_cases",
        "foreground_mean",
        "foreground_aggregated_dice",
        "labels",
        "not_scored",
        "dice",
        "volumes",
    ]


def test_without_intervals_nothing_speaks_of_them(result, model, tmp_path):
    content, _ = written(tmp_path, model, [result])
    assert "bootstrap" not in content
    assert "resample" not in content["rule"]
    assert "intervals" not in content["datasets"][0]
    assert "intervals" not in content["datasets"][0]["labels"]["shell"]
    assert "[" not in results_table([result])
    assert "intervals" not in "\n".join(remarks(result))


def test_intervals_are_added_to_every_figure(full, model, tmp_path):
    sure = replace(full, patients={"a": "P1", "b": "P2"}, resamples=500)
    content, rows = written(tmp_path, model, [sure])
    assert content["bootstrap"] == {"resamples": 500, "seed": 0, "level": 0.95}
    assert "percentile bootstrap intervals over patients" in content["rule"]
    (entry,) = content["datasets"]
    assert (entry["number_of_cases"], entry["number_of_patients"]) == (2, 2)
    # of two patients, each resample is one of them twice or both
    assert entry["labels"]["shell"]["intervals"] == {
        "dice_mean": pytest.approx([2 / 3, 4 / 5]),
        "aggregated_dice": pytest.approx([2 / 3, 4 / 5]),
        "assd_mean": pytest.approx([MILLIMETRES / 5, MILLIMETRES / 3]),
        "hd95_mean": pytest.approx([MILLIMETRES * 0.9, MILLIMETRES * 0.95]),
        "nsd_mean": pytest.approx([2 / 3, 4 / 5]),
        "lesions_recall": [1.0, 1.0],
        "lesions_precision": [0.0, 1.0],
        "lesions_f1": [0.0, 1.0],
    }
    assert set(entry["labels"]["core"]["intervals"].values()) == {None}  # in one patient alone
    assert set(entry["intervals"]) == {"foreground_mean", "foreground_aggregated_dice", "foreground_nsd"}
    assert rows["patient"].groupby("case").unique().map(list).to_dict() == {"a": ["P1"], "b": ["P2"]}
    shell = next(line for line in results_table([sure]).splitlines() if line.startswith("shell: aggregated Dice"))
    assert shell.endswith("0.750 [0.667, 0.800]")
    said = remarks(sure)
    assert "Dataset001_Hand_all: in brackets 95 % bootstrap intervals over 2 patients" in said
    assert "Dataset001_Hand_all: only one patient has core, so it has no interval" in said
    assert "fin, so" not in "".join(said)


def test_of_one_patient_there_are_no_intervals(result, model, tmp_path):
    single = replace(result, patients={"a": "P1", "b": "P1"}, resamples=500)
    content, _ = written(tmp_path, model, [single])
    (entry,) = content["datasets"]
    assert entry["number_of_patients"] == 1
    assert entry["intervals"] == {"foreground_mean": None, "foreground_aggregated_dice": None}
    assert "[" not in results_table([single])
    assert "all cases are of one patient, so there are no intervals" in remarks(single)[-1]


def test_distances_and_lesions_are_added_to_each_label_and_case(full, model, tmp_path):
    content, rows = written(tmp_path, model, [full])
    assert "cases_with_distance" in content["rule"]
    assert "F1 is 0 if only one side" in content["rule"]
    assert "NSD is 0 if a label is in reference or prediction alone" in content["rule"]
    (entry,) = content["datasets"]
    shell = entry["labels"]["shell"]
    assert shell["assd_mean"] == pytest.approx(MILLIMETRES * (1 / 5 + 1 / 3) / 2)
    assert shell["hd95_mean"] == pytest.approx((0.9 + 0.95) / 2 * MILLIMETRES)
    assert shell["cases_with_distance"] == 2
    # at half a voxel, 4 of 5 voxels in a and 2 of 3 in b have one of the other surface
    assert shell["nsd_mean"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert entry["tolerances"] == TOLERANCES
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
    assert fin["nsd_mean"] is None
    assert entry["nsd"]["a"] == {"shell": pytest.approx(4 / 5), "core": 1.0, "fin": None}
    assert entry["nsd"]["b"] == {"shell": pytest.approx(2 / 3), "core": None, "fin": None}
    assert [fin["lesions"][name] for name in RATES] == [0, 0, 0, 0, None, None, None]
    assert entry["assd"]["b"] == {"shell": pytest.approx(MILLIMETRES / 3), "core": None, "fin": None}
    assert entry["hd95"]["b"] == {"shell": pytest.approx(0.95 * MILLIMETRES), "core": None, "fin": None}
    assert [entry["lesions"]["b"]["shell"][name] for name in RATES] == [1, 1, 1, 0, 1.0, 0.0, 0.0]
    assert entry["instances"] == "components"
    assert entry["overlap"] == 0.6

    parts = rows[["numerator", "denominator"]]
    assert list(parts.loc["a", "shell", "assd"]) == [pytest.approx(MILLIMETRES / 5), 1]
    assert list(parts.loc["a", "shell", "nsd"]) == [pytest.approx(4 / 5), 1]
    assert list(parts.loc["a", "shell", "lesions_precision"]) == [1, 1]
    assert list(parts.loc["b", "core", "hd95"]) == list(parts.loc["b", "core", "lesions_recall"]) == [0, 0]


def test_other_references_and_instances_are_named(full, model, tmp_path):
    cases = replace(full.cases, references="labelsTr_dense", instances=tmp_path / "instancesTr")
    content, rows = written(tmp_path, model, [replace(full, cases=cases)])
    assert content["datasets"][0]["references"] == "labelsTr_dense"
    assert content["datasets"][0]["instances"] == "instancesTr"
    assert set(rows["references"]) == {"labelsTr_dense"}


def test_several_references_of_the_same_cases_are_told_apart(result, model, tmp_path):
    folders = ("labelsTr", "labelsTr_dense")
    several = [replace(result, cases=replace(result.cases, references=folder)) for folder in folders]
    content, rows = written(tmp_path, model, several)
    assert [entry["references"] for entry in content["datasets"]] == list(folders)
    assert list(rows["references"].unique()) == list(folders)
    heading = results_table(several).splitlines()[0]
    assert "Dataset001_Hand_all (labelsTr)  Dataset001_Hand_all (labelsTr_dense)" in heading
    assert all(line.startswith("Dataset001_Hand_all (labelsTr_dense): ") for line in remarks(several[1]))


def test_table_has_datasets_side_by_side(result):
    other = match_labels({"labels": {"shell": 1}}, {"labels": {"shell": 1}}, name="D")
    cases = replace(result.cases, dataset="Dataset002_B", selection="val", cases={"a": result.cases.cases["a"]})
    second = replace(result, cases=cases, labels=other)
    lines = [line.split() for line in results_table([result, second]).splitlines()]
    assert lines == [
        ["Dice", "Dataset001_Hand_all", "Dataset002_B_val"],
        ["cases", "2", "1"],
        ["shell", "0.733", "0.800"],
        ["core", "0.667", "-"],
        ["fin", "-", "-"],
        ["mean", "0.700", "0.800"],
        ["shell:", "aggregated", "Dice", "0.750", "0.800"],
        ["core:", "aggregated", "Dice", "0.667", "-"],
        ["fin:", "aggregated", "Dice", "-", "-"],
        ["mean:", "aggregated", "Dice", "0.708", "0.800"],
    ]


def test_table_has_rows_for_the_other_metrics(full):
    lines = [line.rsplit(maxsplit=1) for line in results_table([full]).splitlines()]
    assert lines[5] == ["mean", "0.700"]
    assert lines[9:15] == [
        ["mean: aggregated Dice", "0.708"],
        ["shell: NSD at 1 mm", "0.733"],
        ["core: NSD at 2 mm", "1.000"],
        ["fin: NSD at 0 mm", "-"],
        ["mean: NSD", "0.867"],
        ["shell: ASSD in mm", "0.533"],
    ]
    rest = dict(lines[15:])
    assert rest["core: HD95 in mm"] == "1.900"
    assert rest["shell: instance precision"] == "0.500"
    assert rest["core: instance F1"] == "0.000"
    assert rest["fin: instance recall"] == "-"


def test_cases_without_a_score_are_told(result, full):
    said = "\n".join(remarks(result))
    assert "1 of 2 cases have core in neither" in said
    assert "2 of 2 cases have fin in neither" in said
    assert "no case has fin: not in the mean of aggregated Dice" in said
    assert "shell" not in said
    assert "not scored: more (only in the model)" in said
    assert "ASSD" not in said
    assert "1 of 2 cases lack core in reference or prediction and do not count in its ASSD" in "\n".join(remarks(full))
