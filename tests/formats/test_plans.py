"""Plans files, right and wrong."""

import copy
import json

import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.formats.plans import checked_plans, require

NETWORK = {"network_class_name": "a.B", "arch_kwargs": {"n_stages": 3}, "_kw_requires_import": ["conv_op"]}
GOOD = {
    "dataset_name": "Dataset001_A",
    "plans_name": "nnUNetPlans",
    "transpose_forward": [0, 1, 2],
    "configurations": {
        "3d_fullres": {"patch_size": [16, 16, 16], "spacing": [1.0, 2, 0.5], "batch_size": 2, "architecture": NETWORK},
        "short": {"inherits_from": "3d_fullres", "nnunet_ext": {"num_epochs": 3}},
    },
}


def changed(configuration, **content):
    plans = copy.deepcopy(GOOD)
    plans["configurations"][configuration].update(content)
    return plans


def test_what_is_right_stays_as_it_is():
    assert checked_plans(GOOD, where="f") == GOOD


def test_to_inherit_from_null_is_to_inherit_from_none():
    """nnU-Net would look for a configuration of that name."""
    assert checked_plans(changed("3d_fullres", inherits_from=None), where="f") == GOOD


def test_what_is_taken_for_granted_is_named_where_it_is_missing():
    require(GOOD, ("dataset_name", "configurations"), where="f")
    with pytest.raises(UserError, match="f has no image_reader_writer, label_manager, which nnU-Net always writes"):
        require({**GOOD, "label_manager": None}, ("image_reader_writer", "plans_name", "label_manager"), where="f")


@pytest.mark.parametrize("name", ["nnUNetPlans", "nnUNetResEncUNetMPlans"])
def test_what_nnunet_writes_is_right(workspace, name):
    content = json.loads((workspace.preprocessed / "Dataset901_Labels" / f"{name}.json").read_text())
    assert checked_plans(content, where="f") == content


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ([], "holds a list"),
        ({}, "configurations: is missing"),
        ({"configurations": []}, "configurations: must be an object"),
        ({"configurations": {"a": 3}}, r"configurations\.a"),
        ({**GOOD, "plans_name": 3}, "plans_name: must be text; 3 was found"),
        ({**GOOD, "transpose_forward": ["x"]}, "transpose_forward"),
        (changed("short", patch_size=[16]), r"configurations\.short\.patch_size"),
        (changed("short", patch_size=[16, 0, 16]), r"patch_size\.1: must be at least 1; 0 was found"),
        (changed("short", patch_size=[16, 1e9, 16]), r"patch_size\.1"),
        (changed("short", spacing=[1, float("nan"), 1]), r"spacing\.1"),
        (changed("short", spacing=[1, -1, 1]), r"spacing\.1: must be more than 0"),
        (changed("short", batch_size="2"), r"batch_size: must be a whole number; '2' was found"),
        (changed("short", nnunet_ext=[]), r"nnunet_ext: must be an object"),
        (changed("short", architecture={"arch_kwargs": []}), r"architecture\.arch_kwargs: must be an object"),
        (changed("short", inherits_from="none"), "'short' inherits from 'none', which is not there"),
        (changed("3d_fullres", inherits_from="short"), "inherit in a circle: 3d_fullres from short from 3d_fullres"),
    ],
)
def test_what_is_wrong_is_named(plans, message):
    with pytest.raises(UserError, match=message) as raised:
        checked_plans(plans, where="D/nnUNetPlans.json")
    assert "D/nnUNetPlans.json" in str(raised.value)
