"""dataset.json as users write it, right and wrong."""

import json

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import channel_names, checked_dataset_json, read_dataset_json

GOOD = {
    "channel_names": {"0": "T1", "1": "FLAIR"},
    "labels": {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3},
    "regions_class_order": [1, 2],
    "numTraining": 3,
    "file_ending": ".nii.gz",
    "somebody's key": {"a": 1},
}


def test_what_is_right_stays_as_it_is():
    assert checked_dataset_json(GOOD, where="f") == GOOD


def test_the_keys_of_version_1_are_taken():
    old = {"modality": {"0": "MRI"}, "labels": {"background": "0", "liver": 1}, "file_ending": ".nii.gz"}
    assert checked_dataset_json(old, where="f")["labels"] == {"background": 0, "liver": 1}


def test_known_keys_that_are_null_are_as_if_they_were_not_there():
    null = {"nnunet_ext": None, "dataset": None, "overwrite_image_reader_writer": None, "modality": None}
    assert checked_dataset_json({**GOOD, **null, "mine": None}, where="f") == {**GOOD, "mine": None}
    old = {**GOOD, "channel_names": None, "modality": GOOD["channel_names"]}
    assert channel_names(checked_dataset_json(old, where="f")) == ["T1", "FLAIR"]


def test_numbers_as_names_of_channels_are_text():
    assert checked_dataset_json({**GOOD, "channel_names": {"0": 0, "1": 1}}, where="f")["channel_names"]["1"] == "1"


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"labels": ["background", "liver"]}, 'labels: a list was found.*"background": 0'),
        ({"labels": {"0": "background", "1": "liver"}}, "labels: the values are names"),
        ({"labels": {"liver": float("inf")}}, r"labels\.liver: must be a whole number; inf was found"),
        ({"labels": {"liver": 1.5}}, r"labels\.liver: must be a whole number; 1\.5 was found"),
        ({"labels": {"liver": True}}, r"labels\.liver: must be a whole number; True was found"),
        ({"labels": {"liver": -1}}, r"labels\.liver: must be at least 0; -1 was found"),
        ({"labels": {"liver": 10**9}}, r"labels\.liver: must be at most 65535"),
        ({"labels": {"liver": [1, "x"]}}, r"labels\.liver"),
        ({"labels": {"liver": None}}, r"labels\.liver"),
        ({"labels": 3}, "labels: must be an object"),
        ({"labels": {"liver": 1, "ignore": [2]}}, r"labels: ignore is \[2\], and must be one number"),
        ({"nnunet_ext": [1]}, r"nnunet_ext: must be an object \{…\}; \[1\] was found"),
        ({"nnunet_ext": 3}, r"nnunet_ext: must be an object \{…\}; 3 was found"),
        ({"channel_names": ["MRI"]}, 'channel_names: a list was found.*"0": "T1"'),
        ({"channel_names": {"MRI": 0}}, "channel_names: the keys are 'MRI'"),
        ({"channel_names": {"0": "a", "2": "b"}}, "channel_names: the keys are '0', '2'"),
        ({"channel_names": {}}, "channel_names: the keys are missing"),
        ({"channel_names": {"0": ["a"]}}, r"channel_names\.0: must be text"),
        ({"channel_names": None}, "has no channel_names"),
        ({"file_ending": 5}, "file_ending: must be text; 5 was found"),
        ({"file_ending": ""}, "file_ending: '' was found, but it must begin with a dot"),
        ({"file_ending": "nii.gz"}, "file_ending: 'nii.gz' was found, but it must begin with a dot"),
        ({"file_ending": "./../x"}, "file_ending"),
        ({"dataset": [1]}, r"dataset: must be an object"),
        ({"dataset": {"a": {"images": [], "label": "x"}}}, r"dataset\.a\.images: must not be empty"),
        ({"dataset": {"a": {"images": ["x"]}}}, r"dataset\.a\.label: is missing"),
        ({"dataset": {"../a": {"images": ["x"], "label": "y"}}}, r"'\.\./a' cannot be the name of a case"),
    ],
)
def test_what_is_wrong_is_named_with_what_was_expected(odd, message):
    with pytest.raises(UserError, match=message) as raised:
        checked_dataset_json({**GOOD, **odd}, where="D/dataset.json")
    assert "D/dataset.json" in str(raised.value)


@pytest.mark.parametrize("content", [[], None, 3, "text", True])
def test_anything_else_is_no_dataset_json(content):
    with pytest.raises(UserError, match="is an object with keys"):
        checked_dataset_json(content, where="f")


def test_missing_keys_are_all_named():
    with pytest.raises(UserError, match=r"(?s)labels: is missing.*file_ending: is missing"):
        checked_dataset_json({}, where="f")


def test_a_file_is_read(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(GOOD))
    assert read_dataset_json(tmp_path / "dataset.json") == GOOD
