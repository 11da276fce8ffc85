"""Labels in common, Dice of hand-made label maps, means without undefined cases, and what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import Case, CaseSet
from nnunet_ext.evaluation.model_evaluation import (
    Model,
    check_inputs,
    find_model,
    match_labels,
    remarks,
    request,
    results_table,
    score,
    write_results,
)

PLAIN = {"background": 0, "shell": 1, "core": 2}


def labels(**values):
    return {"labels": {"background": 0, **values}}


def test_labels_are_matched_by_name_and_the_others_are_listed():
    found = match_labels(labels(a=1, b=2, ignore=3), labels(c=2, a=1, ignore=5), name="D")
    assert found.keys == {"a": 1}
    assert found.only_model == ("b",)
    assert found.only_dataset == ("c",)
    assert found.ignore == 5


def test_regions_are_matched_whatever_the_order_of_their_values():
    found = match_labels(labels(whole=[1, 2], core=[2]), labels(whole=[2, 1], core=2), name="D")
    assert found.keys == {"whole": (1, 2), "core": 2}
    assert found.ignore is None


def test_one_name_for_different_values_is_an_error():
    with pytest.raises(UserError, match=r"'whole' has the value 1 \+ 2 in the model and 1 in D"):
        match_labels(labels(whole=[1, 2]), labels(whole=1), name="D")


def test_no_common_label_is_an_error_with_both_lists():
    with pytest.raises(UserError, match="model has a, b; D has c"):
        match_labels(labels(a=1, b=2), labels(c=1), name="D")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"0": "CT", "1": "CT"}}, r"takes 1 channels \(MRI\), but D has 2 \(CT, CT\)"),
        ({"channel_names": {"0": "CT"}}, r"takes 1 channels \(MRI\), but D has 1 \(CT\)"),
        ({"file_ending": ".nii.gz"}, r"ending in .nrrd, but those of D end in .nii.gz"),
    ],
)
def test_images_of_another_kind_are_refused(change, message):
    model = {"channel_names": {"0": "MRI"}, "file_ending": ".nrrd"}
    check_inputs(model, dict(model), name="D")
    with pytest.raises(UserError, match=message):
        check_inputs(model, {**model, **change}, name="D")


def write(file: Path, values: list[int]) -> Path:
    file.parent.mkdir(exist_ok=True)
    sitk.WriteImage(sitk.GetImageFromArray(np.array(values, np.uint8).reshape(1, 1, -1)), str(file))
    return file


@pytest.fixture
def result(tmp_path):
    """Two cases of one row of voxels; the value 9 is ignored, b has no core, and neither has fin."""
    references = {"a": [1, 1, 1, 2, 0, 9], "b": [1, 0, 0, 0, 0, 0]}
    predictions = {"a": [1, 1, 2, 2, 0, 1], "b": [1, 1, 0, 0, 0, 0]}
    cases = {name: Case((), write(tmp_path / "labels" / f"{name}.nii.gz", row)) for name, row in references.items()}
    for name, row in predictions.items():
        write(tmp_path / "predictions" / f"{name}.nii.gz", row)
    description = {"labels": {**PLAIN, "fin": 3, "ignore": 9}, "file_ending": ".nii.gz"}
    case_set = CaseSet("Dataset001_Hand", "all", description, cases)
    matched = match_labels(labels(shell=1, core=2, fin=3, more=4), description, name="D")
    return score(case_set, matched, tmp_path / "predictions")


def test_dice_is_what_counting_gives(result):
    # shell in a: 2 of 3 reference and 2 predicted voxels agree, the ignored voxel left out: 2·2/(3+2); b: 2·1/(1+2)
    assert result.dice["shell"].dice == pytest.approx({"a": 4 / 5, "b": 2 / 3})
    assert result.dice["core"].dice["a"] == pytest.approx(2 / 3)


def test_undefined_dice_stays_out_of_means_and_is_counted(result, tmp_path):
    assert result.dice["core"].mean == pytest.approx(2 / 3)
    assert result.foreground_mean == pytest.approx(((4 / 5 + 2 / 3) / 2 + 2 / 3) / 2)
    said = "\n".join(remarks(result))
    assert "1 of 2 cases have core in neither" in said
    assert "2 of 2 cases have fin in neither" in said
    assert "shell" not in said
    assert "not scored: more (only in the model)" in said


def test_files_hold_every_number_and_null_where_there_is_none(result, tmp_path):
    model = Model(tmp_path / "Dataset002_Other" / "T__P__C", (0, "all"), "checkpoint_best.pth", {})
    write_results(tmp_path, model, [result], mirroring=True)
    written = json.loads((tmp_path / "evaluation.json").read_text(), parse_constant=pytest.fail)  # NaN is no JSON
    assert written["model"] == "T__P__C"
    assert written["trained_on"] == "Dataset002_Other"
    assert written["folds"] == [0, "all"]
    assert written["checkpoint"] == "checkpoint_best.pth"
    assert set(written["versions"]) == {"nnunet_ext", "nnunetv2"}
    assert "neither reference nor prediction" in written["rule"]
    (entry,) = written["datasets"]
    assert entry["dice"]["b"] == {"shell": pytest.approx(2 / 3), "core": None, "fin": None}
    assert entry["labels"]["core"] == {
        "dice_mean": pytest.approx(2 / 3),
        "cases_with_dice": 1,
        "cases_without_dice": 1,
    }
    assert entry["labels"]["fin"]["dice_mean"] is None
    assert entry["not_scored"] == {"only_in_model": ["more"], "only_in_dataset": []}
    with (tmp_path / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[0].keys() == {"dataset", "cases", "case", "label", "dice"}
    by_key = {(row["case"], row["label"]): row["dice"] for row in rows}
    assert float(by_key["a", "shell"]) == pytest.approx(4 / 5)
    assert by_key["b", "core"] == ""


def test_table_has_datasets_side_by_side(result):
    other = match_labels(labels(shell=1), labels(shell=1), name="D")
    second = type(result)(
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


def test_a_folder_that_is_no_model_or_lacks_the_checkpoint_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no model folder of nnU-Net: it has no plans\.json"):
        find_model(tmp_path, [0], "checkpoint_final.pth")
    for file in ("plans.json", "dataset.json"):
        (tmp_path / file).write_text("{}")
    (tmp_path / "fold_1").mkdir()
    (tmp_path / "fold_1" / "checkpoint_best.pth").touch()
    with pytest.raises(UserError, match=r"has: fold_1/checkpoint_best\.pth"):
        find_model(tmp_path, [1], "checkpoint_final.pth")
    assert find_model(tmp_path, [1], "checkpoint_best.pth").checkpoints()[0].parent.name == "fold_1"


def test_a_model_that_was_trained_further_is_another_request(tmp_path, result):
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "c.pth").write_text("one")
    model = Model(tmp_path, (0,), "c.pth", {})
    before = request(model, [result.cases], mirroring=True)
    assert request(model, [result.cases], mirroring=True) == before
    assert json.loads(json.dumps(before)) == before
    (tmp_path / "fold_0" / "c.pth").write_text("more")
    assert request(model, [result.cases], mirroring=True) != before
