"""summary.json: labels, metrics, and paths of another system."""

from pathlib import PurePosixPath, PureWindowsPath

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.formats.summary import Summary, path_of
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
    ],
)
def test_others_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        read(**changes)


def test_paths_of_windows_are_read_anywhere():
    assert path_of("C:\\data\\case 1.nii.gz") == PureWindowsPath("C:/data/case 1.nii.gz")
    assert path_of("C:\\data\\case 1.nii.gz").name == "case 1.nii.gz"
    assert path_of("/data/a.nii.gz") == PurePosixPath("/data/a.nii.gz")
