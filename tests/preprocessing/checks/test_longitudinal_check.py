"""The check of datasets with a prior: roles, values of the prior's channels, cases without any, patients and folds."""

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.findings import Finding
from nnunet_ext.preprocessing.checks.longitudinal import LongitudinalCheck
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from support.raw_datasets import write_array, write_raw

LABELS = np.zeros((4, 6, 6), np.uint8)
LABELS[1, 2:4, 2:4] = 1
CHANNELS = ("MRI", "prior MRI", "noNorm")
ROLES = {"longitudinal": {"current": [0], "prior_image": [1], "prior_labels": [2]}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three good cases of three channels."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    place = tmp_path / "Dataset005_Some ä"
    write_raw(place, dict.fromkeys("abc", LABELS), channels=CHANNELS, nnunet_ext=ROLES)
    for case in "abc":
        write_channel(place, case, 2, LABELS)
    return place


def write_channel(folder: Path, case: str, channel: int, values: np.ndarray) -> None:
    write_array(values, folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")


def change(folder: Path, **content) -> None:
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **content}))


def check(folder: Path) -> dict[str, Finding]:
    """What is found, by title."""
    dataset = read_raw_dataset(folder.name)
    found = LongitudinalCheck(dataset)
    for case in dataset.cases:
        found.look_at(case, LABELS)
    findings = list(found.findings())
    assert len({finding.title for finding in findings}) == len(findings)
    return {finding.title: finding for finding in findings}


def test_good_dataset_has_no_problem(folder):
    found = check(folder)
    assert {finding.severity for finding in found.values()} == {"ok"}
    assert found["roles"].detail == "current 0; prior image 1; prior labels 2."
    assert found["prior"].detail == "each case has one."


def test_roles_that_nobody_gave_are_told(folder):
    change(folder, nnunet_ext={})
    found = check(folder)["roles"]
    assert found.severity == "warning"
    assert "current 0; prior image 1, 2." in found.detail


def test_roles_that_do_not_fit_are_a_problem(folder):
    change(folder, nnunet_ext={"longitudinal": {"current": [0], "prior_labels": [7]}})
    found = check(folder)
    assert list(found) == ["roles"]
    assert found["roles"].severity == "problem"
    assert "channel 7" in found["roles"].detail


@pytest.mark.parametrize("values", [LABELS * 2, LABELS.astype(np.float32) / 2])
def test_label_channels_that_are_not_binary_are_a_problem(folder, values):
    write_channel(folder, "b", 2, values)
    found = check(folder)["prior labels"]
    assert found.severity == "problem"
    assert "channel 2 of 1 of 3 cases (b; first in b) has other values than 0 and 1" in found.detail


def test_label_channels_that_nnunet_would_normalise_are_a_problem(folder):
    change(folder, channel_names={"0": "MRI", "1": "prior MRI", "2": "contour"})
    found = check(folder)["prior labels"]
    assert found.severity == "problem"
    assert "channel 2 of dataset.json must have the name noNorm" in found.detail


def test_cases_without_prior_are_counted(folder):
    for channel in (1, 2):
        write_channel(folder, "b", channel, LABELS * 0)
    found = check(folder)["prior"]
    assert (found.severity, found.detail) == ("ok", "1 of 3 cases have none: b.")
    for case in "ac":
        for channel in (1, 2):
            write_channel(folder, case, channel, LABELS * 0)
    assert check(folder)["prior"].severity == "problem"


def test_prior_image_of_one_value_is_a_warning_unless_it_is_missing(folder):
    write_channel(folder, "a", 1, LABELS * 0)
    assert "prior image" not in check(folder)
    write_channel(folder, "b", 1, LABELS * 0 + 9)
    found = check(folder)["prior image"]
    assert found.severity == "warning"
    assert "channel 1 of 1 of 3 cases (b; first in b) has one value everywhere" in found.detail


def write_patients(folder: Path, **patients: str) -> None:
    cases = {case: {"patient": patient} for case, patient in patients.items()}
    (folder / "pairs.json").write_text(json.dumps({"cases": cases}))


def test_patients_in_both_parts_of_a_fold_are_a_problem(folder):
    write_patients(folder, a="ann", b="ann", c="bob")
    found = check(folder)["patients"]
    assert found.severity == "warning"  # without folds, nnU-Net would part them
    assert found.fix.endswith(" --cross-validation --folds 2")
    splits = folder / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    assert check(folder)["patients"].severity == "ok"
    splits.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}, {"train": ["a", "c"], "val": ["b"]}]))
    found = check(folder)["patients"]
    assert found.severity == "problem"
    assert "fold 1 of" in found.detail
    assert found.detail.endswith("has patients in both parts: ann.")
    assert found.fix.endswith(" --cross-validation --folds 2 --force")
    write_patients(folder, a="ann", b="ann", c="ann")
    splits.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    assert check(folder)["patients"].fix == ""  # one patient cannot be divided


def test_unreadable_images_are_left_to_the_check_of_files(folder):
    (folder / "imagesTr" / "b_0001.nii.gz").write_bytes(b"no image")
    assert {finding.severity for finding in check(folder).values()} == {"ok"}
