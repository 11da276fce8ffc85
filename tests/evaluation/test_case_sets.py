"""Which cases a model is scored on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import channel_names, labelled_cases, select_cases

NAME = "Dataset005_Two channels"


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw dataset with training cases a, b, c, test cases x, y of which x has a label, and a split."""
    raw, preprocessed = tmp_path / "nnUNet_raw", tmp_path / "nnUNet_preprocessed"
    folder = raw / NAME
    for part, cases in (("Tr", "abc"), ("Ts", "xy")):
        (folder / f"images{part}").mkdir(parents=True)
        (folder / f"labels{part}").mkdir()
        for case in cases:
            for channel in range(2):
                (folder / f"images{part}" / f"{case}_{channel:04d}.nii.gz").touch()
    for file in ("labelsTr/a", "labelsTr/b", "labelsTr/c", "labelsTs/x"):
        (folder / f"{file}.nii.gz").touch()
    description = {"channel_names": {"0": "CT", "1": "PET"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(description))
    (preprocessed / NAME).mkdir(parents=True)
    splits = [{"train": ["a"], "val": ["c", "b"]}, {"train": ["b", "c"], "val": ["a"]}]
    (preprocessed / NAME / "splits_final.json").write_text(json.dumps(splits))
    monkeypatch.setenv("nnUNet_raw", str(raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed))
    return folder


def test_all_cases_with_their_files(dataset):
    found = select_cases("5", "all", folds=[0, 1])
    assert found.name == f"{NAME}_all"
    assert list(found.cases) == ["a", "b", "c"]
    assert found.cases["b"].images == tuple(dataset / "imagesTr" / f"b_000{channel}.nii.gz" for channel in range(2))
    assert found.cases["b"].label == dataset / "labelsTr" / "b.nii.gz"


def test_validation_cases_are_those_of_the_fold(dataset):
    assert list(select_cases(NAME, "val", folds=[0]).cases) == ["b", "c"]
    assert list(select_cases(NAME, "val", folds=[1]).cases) == ["a"]


def test_default_is_test_if_each_image_has_a_label_else_validation(dataset):
    assert select_cases("5", None, folds=[0]).selection == "val"
    (dataset / "labelsTs" / "y.nii.gz").touch()
    found = select_cases("5", None, folds=[0])
    assert (found.selection, list(found.cases)) == ("test", ["x", "y"])
    assert found.cases["y"].label == dataset / "labelsTs" / "y.nii.gz"


def test_references_and_instances_come_from_the_named_folders(dataset):
    for folder in ("labels_dense", "instances"):
        (dataset / folder).mkdir()
        for case in "abc":
            (dataset / folder / f"{case}.nii.gz").touch()
    (dataset / "labelsTr" / "b.nii.gz").unlink()  # not needed then
    found = select_cases("5", None, folds=[0], references="labels_dense", instances="instances")
    assert (found.selection, list(found.cases)) == ("val", ["b", "c"])
    assert found.references == "labels_dense"
    assert found.cases["b"].label == dataset / "labels_dense" / "b.nii.gz"
    assert found.cases["b"].images[1] == dataset / "imagesTr" / "b_0001.nii.gz"
    assert found.instance_map("c") == dataset / "instances" / "c.nii.gz"
    (dataset / "linked").symlink_to(dataset / "labels_dense")
    for given in ("labels_dense/", "./labels_dense", str(dataset / "labels_dense"), "linked/"):  # by tab completion
        name = select_cases("5", None, folds=[0], references=given).references
        assert name == ("linked" if "linked" in given else "labels_dense")


def test_references_must_be_in_a_folder_of_the_dataset_itself(dataset, tmp_path):
    """Scores are told apart by its name, which the report would refuse after the prediction."""
    for place in (dataset / "dense" / "reader 1", tmp_path / "elsewhere"):
        place.mkdir(parents=True)
        for case in "abc":
            (place / f"{case}.nii.gz").touch()
    for given in ("dense/reader 1", str(tmp_path / "elsewhere")):
        with pytest.raises(UserError, match="cannot name the references of scores: it holds a path.* Move the label"):
            select_cases("5", "all", folds=[0], references=given)
    (dataset / "reader 1").symlink_to(dataset / "dense" / "reader 1")
    assert select_cases("5", "all", folds=[0], references="reader 1").references == "reader 1"
    assert select_cases("5", "all", folds=[0], instances="dense/reader 1").instances == dataset / "dense/reader 1"


def test_without_maps_of_instances_there_is_none(dataset):
    assert select_cases("5", "all", folds=[0]).instance_map("a") is None


def test_missing_folders_or_files_of_references_and_instances_are_named(dataset):
    with pytest.raises(UserError, match=r"has no folder dense\. It has: imagesTr, imagesTs, labelsTr, labelsTs\."):
        select_cases("5", "all", folds=[0], references="dense")
    with pytest.raises(UserError, match="has no folder instancesTr"):
        select_cases("5", "all", folds=[0], instances="instancesTr")
    (dataset / "dense").mkdir()
    (dataset / "dense" / "b.nii.gz").touch()
    with pytest.raises(UserError, match=r"2 of 3 cases .*dense/a\.nii\.gz does not exist"):
        select_cases("5", "all", folds=[0], references="dense")
    with pytest.raises(UserError, match=r"2 of 3 cases have no map of instances: .*dense/a\.nii\.gz does not exist"):
        select_cases("5", "all", folds=[0], instances="dense")


def test_cases_listed_in_dataset_json_are_found(dataset):
    description = json.loads((dataset / "dataset.json").read_text())
    images = ["imagesTr/a_0000.nii.gz", "imagesTs/x_0000.nii.gz"]
    description["dataset"] = {"odd": {"images": images, "label": "labelsTr/c.nii.gz"}}
    (dataset / "dataset.json").write_text(json.dumps(description))
    found = select_cases("5", "all", folds=[0])
    assert found.cases["odd"].images == tuple(dataset / image for image in images)
    assert found.description == description


@pytest.mark.parametrize(
    ("selection", "folds", "message"),
    [
        ("test", [0], "1 of 2 cases .*labelsTs/y.nii.gz does not exist.*--partial.*:val or .*:all"),
        ("val", [0, 1], "cannot score an ensemble of the folds 0 1"),
        ("val", ["all"], "cannot score fold all"),
        ("val", [2], "has no fold 2; it has 2 folds, numbered from 0"),
    ],
)
def test_cases_that_cannot_be_scored_are_refused(dataset, selection, folds, message):
    with pytest.raises(UserError, match=message):
        select_cases("5", selection, folds=folds)


def test_cases_that_lack_one_of_the_references_are_left_out_of_all(dataset):
    dense = dataset / "labels_dense"
    dense.mkdir()
    for case in "ab":
        (dense / f"{case}.nii.gz").touch()
    (dataset / "labelsTr" / "a.nii.gz").unlink()
    options = {"folds": [0], "partial": True}
    both = [select_cases("5", "all", references=folder, **options) for folder in ("labelsTr", "labels_dense")]
    kept, remarks = labelled_cases([*both, select_cases("5", "test", **options)])
    assert [list(one.cases) for one in kept] == [["b"], ["b"], ["x"]]
    assert [one.references for one in kept] == ["labelsTr", "labels_dense", None]
    assert remarks == [
        f"Left out of {NAME}:all: 2 of 3 cases without label in labelsTr and labels_dense: a, c.",
        f"Left out of {NAME}:test: 1 of 2 cases without label: y.",
    ]
    (dense / "b.nii.gz").unlink()
    with pytest.raises(
        UserError, match=r"No case of .*:all has a label to score against in labelsTr and labels_dense, e\.g\."
    ):
        labelled_cases([select_cases("5", "all", references=folder, **options) for folder in ("labelsTr", dense.name)])


def test_some_labelled_test_cases_are_enough_on_request(dataset):
    assert select_cases("5", None, folds=[0]).selection == "val"
    assert select_cases("5", None, folds=[0], partial=True).selection == "test"
    (dataset / "labelsTs" / "x.nii.gz").unlink()
    assert select_cases("5", None, folds=[0], partial=True).selection == "val"
    with pytest.raises(UserError, match=r"2 of 2 cases .*does not exist\. Choose other cases"):
        select_cases("5", "test", folds=[0])


def test_maps_of_instances_are_needed_for_what_is_scored(dataset):
    maps = dataset / "instancesTs"
    maps.mkdir()
    (maps / "x.nii.gz").touch()
    chosen = [select_cases("5", "test", folds=[0], instances="instancesTs", partial=True)]
    assert list(labelled_cases(chosen)[0][0].cases) == ["x"]
    (maps / "x.nii.gz").unlink()
    with pytest.raises(UserError, match="no map of instances"):
        labelled_cases(chosen)


def test_missing_parts_are_named(dataset):
    (dataset / "imagesTr" / "b_0001.nii.gz").unlink()
    with pytest.raises(UserError, match="2 channels by its dataset.json, but case b has 1 image"):
        select_cases("5", "all", folds=[0])
    (dataset / "imagesTs").rename(dataset / "elsewhere")
    with pytest.raises(UserError, match="no cases in imagesTs"):
        select_cases("5", "test", folds=[0])
    with pytest.raises(UserError, match=r"Dataset 6 is not in .*There is: Dataset005_Two channels\."):
        select_cases("6", None, folds=[0])


def test_a_split_with_unknown_or_no_cases_is_refused(dataset, tmp_path):
    file = tmp_path / "nnUNet_preprocessed" / NAME / "splits_final.json"
    file.write_text('[{"train": ["a"], "val": ["gone"]}]')
    with pytest.raises(UserError, match="names 1 validation cases .*gone"):
        select_cases("5", "val", folds=[0])
    file.write_text('[{"train": ["a"], "val": []}]')
    with pytest.raises(UserError, match="has no validation case"):
        select_cases("5", "val", folds=[0])


def test_channels_are_in_the_order_of_their_numbers():
    assert channel_names({"channel_names": {"10": "k", "2": "c", "0": "a"}}) == ["a", "c", "k"]
    assert channel_names({"modality": {"0": "CT"}}) == ["CT"]
