"""summary.json: labels, metrics, and paths of another system."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.formats.summary import Summary, of_known_labels, path_of
from nnunet_ext.formats.typed import validated

CASE = {"reference_file": "a/x.nii.gz", "prediction_file": "b/x.nii.gz", "metrics": {"1": {"Dice": 0.5}}}


def read(**changes):
    return validated(Summary, {"metric_per_case": [{**CASE, **changes}]}, where="f", what="a summary")


@pytest.mark.parametrize("key", ["1", "(1, 2)", "(1,)"])
def test_labels_and_regions_are_taken(key):
    assert read(metrics={key: {"Dice": float("nan"), "TP": 3}}).metric_per_case[0].metrics.keys() == {key}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference_file": 3}, r"metric_per_case\.0\.reference_file: must be text"),
        ({"metrics": []}, r"metrics: must be an object"),
        ({"metrics": {"liver": {"Dice": 1}}}, "'liver' was found"),
        ({"metrics": {"1": {"IoU": 1}}}, "label 1 has no Dice"),
        ({"metrics": {"1": {"Dice": "x"}}}, r"Dice"),
        ({"metrics": {"1": {"Dice": 1e308}}}, r"label 1 has the Dice 1e\+308; from 0 to 1, null or NaN is expected"),
        ({"metrics": {"1": {"Dice": 10**400}}}, r"Dice"),
        ({"metrics": {"1": {"Dice": float("inf")}}}, "label 1 has the Dice inf"),
        ({"metrics": {"(1, 2)": {"Dice": -0.1}}}, r"label \(1, 2\) has the Dice -0.1"),
    ],
)
def test_others_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        read(**changes)


def test_paths_of_windows_are_read_anywhere():
    assert path_of("C:\\data\\case 1.nii.gz") == PureWindowsPath("C:/data/case 1.nii.gz")
    assert path_of("C:\\data\\case 1.nii.gz").name == "case 1.nii.gz"
    assert path_of("/data/a.nii.gz") == PurePosixPath("/data/a.nii.gz")


@pytest.mark.parametrize(
    "folder", ["C:/nn/nnUNet_preprocessed", "c:/nn", "//server/share/nn", "\\\\server\\share/nn", "C:\\nn/preprocessed"]
)
def test_paths_of_windows_can_have_both_separators(folder):
    path = path_of(f"{folder}\\Dataset050\\gt_segmentations\\case_1.nii.gz")
    assert path == PureWindowsPath(f"{folder}/Dataset050/gt_segmentations/case_1.nii.gz")
    assert path.name == "case_1.nii.gz"


def test_a_relative_path_of_windows_has_both_separators_on_windows_alone(monkeypatch):
    assert path_of("./nn\\a.nii.gz").name == "nn\\a.nii.gz", "elsewhere a backslash can be part of a name"
    assert path_of("/data/C:/nn\\a.nii.gz").name == "nn\\a.nii.gz"
    monkeypatch.setattr("os.sep", "\\")
    assert path_of("./nn\\a.nii.gz").name == "a.nii.gz"


def test_a_case_is_found_whose_reference_has_both_separators():
    """As nnU-Net writes it where nnUNet_preprocessed was set with slashes on Windows."""
    reference = "C:/nn\\Dataset050\\gt_segmentations\\case_1.nii.gz"
    case = {**CASE, "reference_file": reference, "metrics": {1: {"Dice": 0.5}, 2: {"Dice": 0.0}}}
    asked = []
    summary = of_known_labels(
        {"metric_per_case": [case], "mean": {1: {}, 2: {}}, "foreground_mean": {}},
        lambda name: asked.append(name) or {1: True, 2: False},
    )
    assert asked == ["case_1.nii.gz"]
    assert summary["foreground_mean"] == {"Dice": 0.5}
