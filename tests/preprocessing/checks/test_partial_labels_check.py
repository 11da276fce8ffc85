"""What is said of lists of annotated labels."""

from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.preprocessing.checks.partial_labels import PartialLabelsCheck, missing_labels
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset

LABELS = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
MAPS = {"a": [0, 1, 2, 3], "b": [0, 1], "c": [0, 2], "d": [0]}


@pytest.fixture
def findings(monkeypatch):
    def found(block, maps=MAPS, labels=LABELS, folds=()):
        monkeypatch.setattr("nnunet_ext.preprocessing.checks.partial_labels.known_folds", lambda dataset: list(folds))
        description = {"labels": labels, "file_ending": ".nii.gz", "nnunet_ext": block}
        cases = {case: Case((Path(f"{case}_0000.nii.gz"),), Path(f"{case}.nii.gz")) for case in maps}
        check = PartialLabelsCheck(RawDataset(Path("D"), description, cases))
        for case, values in maps.items():
            check.look_at(case, np.array([values]))
        return [(one.severity, one.title, one.detail) for one in check.findings()]

    return found


LISTS = {"annotated_labels": {"b": ["liver"], "c": ["spleen"], "d": []}, "default": ["liver", "spleen"]}


def test_counts_cases_labels_and_cases_that_teach_nothing(findings):
    assert findings(LISTS) == [
        ("ok", "cases", "1 dense, 0 scribbled, 2 partial, 1 unlabelled."),
        ("ok", "liver", "annotated in 2 of 4 cases; 2 of these have it."),
        ("ok", "spleen", "annotated in 2 of 4 cases; 2 of these have it."),
        ("warning", "annotation", "1 of 4 cases are annotated for nothing: d. They are left out of trainings."),
        ("ok", "contradictions", "no case has a label that it was not annotated for."),
    ]


def test_a_dataset_without_lists_is_told_how_to_write_them(findings):
    severity, title, detail = findings({})[0]
    assert (severity, title) == ("warning", "lists")
    assert '"annotated_labels"' in detail
    assert "stock nnU-Net gives the same" in detail


def test_an_unannotated_label_in_a_label_map_is_a_problem(findings):
    block = {"annotated_labels": {"a": ["spleen"]}, "default": ["liver", "spleen"]}
    (wrong,) = [one for one in findings(block) if one[1] == "contradictions"]
    assert wrong[0] == "problem"
    assert "1 of 4 cases" in wrong[2]
    assert "a (1)" in wrong[2]


def test_scribbled_cases_need_voxels_that_nobody_annotated(findings):
    found = findings({**LISTS, "scribbled": ["a", "b", "x"]})
    assert ("problem", "lists", "name cases that the dataset does not have: x.") in found
    assert ("ok", "cases", "0 dense, 2 scribbled, 1 partial, 1 unlabelled.") in found
    (wrong,) = [one for one in found if one[1] == "scribbled"]
    assert wrong[0] == "problem"
    assert wrong[2].startswith("1 cases of the list have no voxel of the ignore label: b.")


def test_a_value_of_an_annotated_region_is_no_contradiction(findings):
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    maps = {"a": [0, 1, 2], "b": [0, 2], "c": [0, 1]}
    block = {"annotated_labels": {"a": ["whole", "core"], "b": ["whole"], "c": ["core"]}}
    (wrong,) = [one for one in findings(block, maps, labels) if one[1] == "contradictions"]
    assert "1 of 3 cases" in wrong[2]
    assert "c (1)" in wrong[2]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"annotated_labels": {"a": ["lung"]}}, "names lung, but the labels are liver, spleen"),
        ({"annotated_labels": {"e": []}, "default": ["liver"]}, "name cases that the dataset does not have: e."),
        ({"annotated_labels": {"a": [], "b": []}}, "2 cases are in none: c, d."),
    ],
)
def test_unknown_names_and_cases_in_no_list_are_problems(findings, block, message):
    wrong = [detail for severity, title, detail in findings(block) if (severity, title) == ("problem", "lists")]
    assert len(wrong) == 1
    assert message in wrong[0]


def test_a_label_that_no_annotated_case_has_is_a_problem(findings):
    block = {"annotated_labels": {"a": ["liver"], "b": ["liver"], "c": [], "d": ["spleen"]}}
    assert ("problem", "spleen") in [one[:2] for one in findings(block)]


def test_folds_without_a_label_in_training_or_validation_are_told(findings):
    folds = [
        {"train": ["a", "b", "c"], "val": ["d"]},
        {"train": ["b", "d"], "val": ["a", "c"]},
        {"train": ["b", "c"], "val": ["a"]},
        {"train": ["a", "c", "d"], "val": ["b"]},
    ]
    found = {title: (severity, detail) for severity, title, detail in findings(LISTS, folds=folds)}
    assert found["fold 0"][0] == "problem"
    assert "liver 2, spleen 2. No validation case is annotated for anything. Draw other folds" in found["fold 0"][1]
    assert found["fold 1"][0] == "problem"
    assert "liver 1, spleen 0. None of them has spleen" in found["fold 1"][1]
    assert found["fold 2"][0] == "ok"
    assert found["fold 3"][0] == "warning"
    assert found["fold 3"][1].endswith("No validation case is annotated for spleen.")


def test_a_list_for_a_test_case_is_no_mistake(findings, tmp_path, monkeypatch):
    (tmp_path / "D" / "imagesTs").mkdir(parents=True)
    (tmp_path / "D" / "imagesTs" / "t_0000.nii.gz").touch()
    monkeypatch.chdir(tmp_path)
    block = {"annotated_labels": {"t": ["liver"]}, "default": ["liver", "spleen"]}
    assert not [one for one in findings(block) if one[0] == "problem"]


@pytest.mark.parametrize(
    ("block", "told"),
    [
        ({}, ""),
        ({"default": ["liver", "spleen"]}, ""),
        (LISTS, "3 of 4 cases were not annotated for every label: b, c, d."),
        ({"default": "liver"}, "default: must be a list"),
    ],
)
def test_other_trainers_are_told_that_labels_are_missing(block, told):
    description = {"labels": LABELS, "file_ending": ".nii.gz", "nnunet_ext": block}
    cases = {case: Case((Path(f"{case}_0000.nii.gz"),), Path(f"{case}.nii.gz")) for case in MAPS}
    found = list(missing_labels(RawDataset(Path("D"), description, cases)))
    assert [one.severity for one in found] == ["warning"] * bool(told)
    assert all(told in one.detail for one in found)
