"""Cases with the same images, and the images and labels that a model will be tested on."""

import json

import numpy as np
import pytest

from nnunet_ext.preprocessing.checks import check_dataset
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from support.raw_datasets import image_like, write_array, write_raw

SHAPE = (4, 10, 10)
LABELS = np.zeros(SHAPE, np.uint8)
LABELS[1, :2, :2] = 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = write_raw(tmp_path / "Dataset005_Some", dict.fromkeys("abc", LABELS))
    (folder / "imagesTs").mkdir()
    (folder / "labelsTs").mkdir()
    return folder


@pytest.fixture
def findings(folder):
    def check() -> dict[str, tuple[str, str]]:
        found = check_dataset(read_raw_dataset(folder.name), [])
        return {finding.title: (finding.severity, finding.detail) for finding in found}

    return check


def write_folds(folder, *folds):
    content = [{"train": list(train), "val": list(val)} for train, val in folds]
    (folder / "splits_final.json").write_text(json.dumps(content))


def add_test_case(folder, name, image=None, *, labels=None, ending="_0000.nii.gz"):
    write_array(image_like(LABELS, name) if image is None else image, folder / "imagesTs" / f"{name}{ending}")
    if labels is not None:
        write_array(labels, folder / "labelsTs" / f"{name}.nii.gz")


def test_cases_that_differ_are_fine_and_an_empty_folder_of_test_cases_is_not_told(findings):
    found = findings()
    assert found["same images"][0] == "ok"
    assert not [title for title in found if title.startswith("test")]


def test_the_same_images_twice_are_a_warning_until_folds_keep_them_together(folder, findings):
    write_array(image_like(LABELS, "a"), folder / "imagesTr" / "b_0000.nii.gz")
    severity, detail = findings()["same images"]
    assert severity == "warning"
    assert "cases of imagesTr have the same images: a = b. nnU-Net's own folds may part them." in detail
    write_folds(folder, (["a", "b"], ["c"]), (["c"], ["a", "b"]))
    assert findings()["same images"][0] == "ok"
    write_folds(folder, (["a", "b"], ["c"]), (["a", "c"], ["b"]))
    severity, detail = findings()["same images"]
    assert severity == "warning"
    assert "a = b. A fold trains on one and validates on the other." in detail


def test_what_one_channel_of_two_has_in_common_is_not_the_same(folder, findings):
    write_raw(folder, dict.fromkeys("abc", LABELS), channels=("T1", "T2"))
    write_array(image_like(LABELS, "a"), folder / "imagesTr" / "b_0000.nii.gz")
    assert findings()["same images"][0] == "ok"
    write_array(image_like(LABELS, "a"), folder / "imagesTr" / "b_0001.nii.gz")
    assert findings()["same images"][0] == "warning"


def test_blank_images_are_not_taken_for_copies(folder, findings):
    for case in "ab":
        write_array(np.full(SHAPE, 7, np.uint8), folder / "imagesTr" / f"{case}_0000.nii.gz")
    assert findings()["same images"][0] == "ok"


def test_a_test_case_that_was_trained_on_is_a_warning(folder, findings):
    add_test_case(folder, "x", image_like(LABELS, "c"))
    add_test_case(folder, "y")
    severity, detail = findings()["same images"]
    assert severity == "warning"
    assert "1 of 2 cases of imagesTs have the images of a case of imagesTr: x (c)." in detail


def test_test_cases_are_counted_with_their_labels(folder, findings):
    add_test_case(folder, "x", labels=LABELS)
    add_test_case(folder, "y")
    assert findings()["test"] == ("ok", "2 cases in imagesTs, 1 with labels in labelsTs; all fit.")


def test_test_cases_are_not_read_where_only_training_counts(folder):
    (folder / "imagesTs" / "broken_0000.nii.gz").write_bytes(b"no image")
    found = check_dataset(read_raw_dataset(folder.name), [], with_test=False)
    assert not [finding for finding in found if finding.title.startswith("test") or finding.severity == "problem"]


def test_test_cases_that_cannot_be_predicted_or_scored_are_a_problem(folder, findings):
    add_test_case(folder, "x", ending="_0001.nii.gz")
    add_test_case(folder, "x")
    (folder / "imagesTs" / "broken_0000.nii.gz").write_bytes(b"no image")
    add_test_case(folder, "y", labels=LABELS[:3])
    add_test_case(folder, "z", labels=7 * LABELS)
    found = findings()
    assert "test" not in found
    assert {found[title][0] for title in found if title.startswith("test")} == {"problem"}
    assert "wrong in 2 of 4 cases (broken, x)" in found["test images"][1]
    assert "image (4, 10, 10), labels (3, 10, 10) voxels" in found["test geometry"][1]
    assert "values that dataset.json does not list: 7" in found["test label values"][1]
