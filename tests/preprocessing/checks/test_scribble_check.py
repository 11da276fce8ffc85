"""The check of scribble datasets: ignore label, strokes of each label by case and fold, agreement with dense labels."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.findings import Finding
from nnunet_ext.preprocessing.checks import check_dataset
from nnunet_ext.preprocessing.checks.scribbles import IgnoreLabelCheck, ScribbleCheck, percent
from nnunet_ext.preprocessing.raw.raw_dataset import read_label_map, read_raw_dataset
from nnunet_ext.registry import technique_of
from nnunet_ext.techniques.base import BASE
from support.raw_datasets import write_array, write_raw

NAMES = {"background": 0, "RV": 1, "LV": 2, "ignore": 3}
TRAINERS = ("nnUNetTrainerTDNet", "nnUNetTrainerDMPLS", "nnUNetTrainerPartialCE")
DENSE = np.zeros((4, 10, 10), np.uint8)
DENSE[:, :3], DENSE[:, 5:8] = 1, 2
IGNORED = np.full_like(DENSE, 3)


def strokes(**lengths: int) -> np.ndarray:
    """Strokes on the second slice of so many voxels (10 at most), where `DENSE` has the same label."""
    labels = IGNORED.copy()
    for name, length in lengths.items():
        value = NAMES[name]
        labels[1, {0: 4, 1: 1, 2: 6}[value], :length] = value
    return labels


GOOD = strokes(background=8, RV=4, LV=8)  # 20 of 400 voxels


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return tmp_path / "Dataset005_Strokes ä"


def check(folder: Path, kind: type[ScribbleCheck] = ScribbleCheck) -> dict[str, Finding]:
    """What is found, by title."""
    dataset = read_raw_dataset(folder.name)
    found = kind(dataset)
    for case, files in dataset.cases.items():
        found.look_at(case, read_label_map(found.reader, files.label)[0])
    findings = list(found.findings())
    assert len({finding.title for finding in findings}) == len(findings)
    return {finding.title: finding for finding in findings}


def write_dense(folder: Path, **cases: np.ndarray) -> None:
    for case, labels in cases.items():
        write_array(labels, folder / "labelsTr_dense" / f"{case}.nii.gz")


@pytest.mark.parametrize("kind", [ScribbleCheck, IgnoreLabelCheck])
def test_good_dataset_is_described_by_hand(folder, kind):
    write_raw(folder, {"a": GOOD, "b": strokes(background=10, RV=2, LV=4), "c": GOOD}, names=NAMES)
    found = check(folder, kind)
    assert {finding.severity for finding in found.values()} == {"ok"}
    assert found["ignore"].detail == "each case has voxels of it (3)."
    assert found["scribbles"].detail == "each of 3 cases has some."
    assert found["annotated"].detail == "4, 5, 5 % of the voxels of a case (minimum, median, maximum)."
    assert found["background"].detail == (
        "in 3 of 3 cases; 8, 8, 10 voxels in a case that has any (minimum, median, maximum)."
    )
    assert found["annotation of 1"].detail == (
        "RV: in 3 of 3 cases; 2, 4, 4 voxels in a case that has any (minimum, median, maximum)."
    )
    assert "LV: in 3 of 3 cases; 4, 8, 8 voxels" in found["annotation of 2"].detail
    assert "agreement" not in found


@pytest.mark.parametrize("trainer", TRAINERS)
def test_trainers_of_scribbles_have_this_check(folder, trainer):
    write_raw(folder, {"a": GOOD}, names=NAMES)
    findings = check_dataset(read_raw_dataset(folder.name), technique_of(trainer)[0].checks)
    assert {finding.severity for finding in findings} == {"ok"}
    assert "annotated" in {finding.title for finding in findings}


def test_missing_ignore_label_is_a_problem_with_the_value_to_write(folder):
    write_raw(folder, {"a": np.where(GOOD == 3, 0, GOOD)}, names={"background": 0, "RV": 1, "LV": 2})
    found = check(folder)
    assert list(found) == ["ignore"]
    assert found["ignore"].severity == "problem"
    assert "every voxel that nobody annotated would be taken for background" in found["ignore"].detail
    assert 'Add "ignore": 3 to its labels' in found["ignore"].detail


def test_ignore_label_that_no_case_uses_is_a_warning(folder):
    write_raw(folder, {"a": DENSE, "b": DENSE}, names=NAMES)
    found = check(folder)
    assert found["ignore"].severity == "warning"
    assert found["ignore"].detail.startswith("no case has voxels of it (3):")
    assert "stock nnU-Net" in found["ignore"].detail
    assert "100, 100, 100 %" in found["annotated"].detail


def test_cases_that_do_not_use_the_ignore_label_are_named(folder):
    write_raw(folder, {"a": GOOD, "b": DENSE, "c": GOOD}, names=NAMES)
    found = check(folder)["ignore"]
    assert found.severity == "warning"
    assert found.detail.startswith("1 of 3 cases have no voxel of it (3) (b):")
    assert "write 3 wherever nobody annotated" in found.detail


def test_cases_without_any_scribble_are_named_and_counted(folder):
    write_raw(folder, {"a": GOOD, **{f"empty{number}": IGNORED for number in range(7)}}, names=NAMES)
    found = check(folder)["scribbles"]
    assert found.severity == "warning"
    assert found.detail.startswith("7 of 8 cases have none: empty0, empty1, empty2, empty3, empty4 and 2 more.")


def test_dataset_without_any_scribble_is_one_problem(folder):
    write_raw(folder, {"a": IGNORED, "b": IGNORED}, names=NAMES)
    found = check(folder)
    assert list(found) == ["scribbles"]
    assert found["scribbles"].severity == "problem"
    assert "all voxels of all 2 cases are ignore (3)" in found["scribbles"].detail


def test_cases_without_background_are_named(folder):
    write_raw(folder, {"a": GOOD, "b": strokes(RV=3, LV=1)}, names=NAMES)
    found = check(folder)["background"]
    assert found.severity == "warning"
    assert found.detail.startswith("1 of 2 cases have no scribble of it (0): b.")


def test_no_background_anywhere_is_a_problem(folder):
    write_raw(folder, {"a": strokes(RV=3, LV=1), "b": strokes(RV=3, LV=1)}, names=NAMES)
    found = check(folder)["background"]
    assert found.severity == "problem"
    assert "no case has a scribble of it (0)" in found.detail
    assert "save them as 0" in found.detail


def test_label_without_a_stroke_is_a_problem_only_if_no_case_has_one(folder):
    write_raw(folder, {"a": strokes(background=2, RV=3), "b": strokes(background=2)}, names=NAMES)
    found = check(folder)
    assert found["annotation of 1"].severity == "ok"
    assert found["annotation of 1"].detail.startswith("RV: in 1 of 2 cases; 3, 3, 3 voxels")
    assert found["annotation of 1"].detail.endswith("None in b.")
    assert found["annotation of 2"].severity == "problem"
    assert found["annotation of 2"].detail.startswith("LV: no case has a scribble of it")


def test_label_that_dense_labels_have_and_scribbles_have_not_is_a_warning(folder):
    write_raw(folder, {case: strokes(background=2, RV=3) for case in "ab"} | {"c": GOOD}, names=NAMES)
    write_dense(folder, a=DENSE, b=np.where(DENSE == 2, 0, DENSE), c=DENSE)
    found = check(folder)["annotation of 2"]
    assert found.severity == "warning"
    assert found.detail.endswith("None in a, b. labelsTr_dense has it in 1 of these: a.")


def test_fold_whose_training_cases_lack_a_label_is_a_problem(folder):
    write_raw(folder, {"a": GOOD, "b": strokes(background=2, RV=3), "c": strokes(RV=3)}, names=NAMES)
    folds = [{"train": ["a", "c"], "val": ["b"]}, {"train": ["c"], "val": ["a", "b"]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    found = check(folder)["folds"]
    assert found.severity == "problem"
    assert found.detail.startswith(
        "fold 1 has no training case with a scribble of background (0), LV (2): c. Draw some, or move"
    )


def test_label_that_no_case_has_is_not_told_again_for_each_fold(folder):
    write_raw(folder, {case: strokes(background=2, RV=3) for case in "ab"}, names=NAMES)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    assert "folds" not in check(folder)


def test_agreement_with_dense_labels_is_of_annotated_voxels(folder):
    write_raw(folder, {"a": GOOD, "b": GOOD}, names=NAMES)
    write_dense(folder, a=DENSE, b=DENSE)
    found = check(folder)["agreement"]
    assert (found.severity, found.detail) == ("ok", "100 % of the annotated voxels have the label of labelsTr_dense.")


def test_cases_that_disagree_by_more_than_one_percent_are_named_worst_first(folder):
    almost = DENSE.copy()
    almost[0, 0, 0] = 3  # dense labels may leave voxels out as well: no disagreement, even where DENSE annotates all
    write_raw(folder, {"a": GOOD, "b": GOOD, "c": DENSE, "d": DENSE}, names=NAMES)
    one, five, within = DENSE.copy(), DENSE.copy(), DENSE.copy()
    one[1, 1, 0] = 0
    five[1, 6, :5] = 0
    within[0, 0, :4] = 2  # 4 of 400 are 1 %, which is not more
    write_dense(folder, a=one, b=five, c=almost, d=within)
    found = check(folder)["agreement"]
    assert found.severity == "warning"
    # 10 of 20 + 20 + 399 + 400
    assert found.detail.startswith(
        "98.8 % of the annotated voxels have the label of labelsTr_dense; more than 1 % differ in 2 of 4 cases: "
        "b (25 % differ), a (5 % differ)."
    )


def test_cases_that_cannot_be_compared_are_named_with_the_reason(folder):
    write_raw(folder, dict.fromkeys("abc", GOOD), names=NAMES)
    write_dense(folder, a=DENSE[:3], c=DENSE)
    found = check(folder)
    assert found["dense labels"].severity == "warning"
    assert "2 of 3 cases cannot be compared with labelsTr_dense (a, b)" in found["dense labels"].detail
    assert "a: scribbles (4, 10, 10), dense labels (3, 10, 10) voxels" in found["dense labels"].detail
    assert found["agreement"].severity == "ok"


def test_regions_are_a_problem_with_the_reason(folder):
    names = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    write_raw(folder, {"a": GOOD}, names=names, regions_class_order=[1, 2])
    found = check(folder)
    assert list(found) == ["regions"]
    assert found["regions"].severity == "problem"
    assert "has regions (whole)" in found["regions"].detail
    assert "softmax" in found["regions"].detail
    assert check(folder, IgnoreLabelCheck) == {}


def test_stock_training_is_told_nothing_without_an_ignore_label(folder):
    write_raw(folder, {"a": DENSE}, names={"background": 0, "RV": 1, "LV": 2})
    assert check(folder, IgnoreLabelCheck) == {}
    findings = check_dataset(read_raw_dataset(folder.name), BASE.checks)
    assert {finding.severity for finding in findings} == {"ok"}


def test_flat_images_are_checked(folder):
    write_raw(folder, {"a": GOOD[1]}, names=NAMES, ending=".png")
    found = check(folder)
    assert {finding.severity for finding in found.values()} == {"ok"}
    assert found["annotated"].detail.startswith("20, 20, 20 %")


def test_only_all_are_a_hundred_percent():
    assert [percent(share) for share in (1.0, 0.99999, 0.57, 0.015)] == ["100 %", "99.99 %", "57 %", "1.5 %"]
