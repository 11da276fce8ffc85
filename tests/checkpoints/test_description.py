"""What rows of heads and input channels stand for, checked against nnU-Net's own managers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.checkpoints.description import (
    HeadRows,
    ModelDescription,
    architecture_differences,
    like_commands,
)
from nnunet_ext.errors import UserError
from support.models import checkpoint_of, description, network_of


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        ({"background": 0, "shell": 1, "core": 2}, HeadRows(("background", "shell", "core"), "softmax")),
        # ordered by value, not as listed; the ignore label has no row
        ({"ignore": 3, "core": 2, "background": 0, "shell": 1}, HeadRows(("background", "shell", "core"), "softmax")),
        # a list of one is a label
        ({"background": 0, "shell": [1], "core": [2]}, HeadRows(("background", "shell", "core"), "softmax")),
        # as listed; background and the ignore label have no row
        ({"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, HeadRows(("whole", "core"), "sigmoid")),
        ({"background": 0, "core": 2, "whole": [2, 1]}, HeadRows(("core", "whole"), "sigmoid")),
    ],
)
def test_rows_of_heads(labels, rows):
    model = description(labels=labels)
    assert model.head_rows() == rows
    manager = PlansManager(dict(model.plans)).get_label_manager(model.dataset_json)
    assert len(rows.names) == manager.num_segmentation_heads
    of_rows = manager.all_regions if manager.has_regions else manager.all_labels
    for name, value in zip(rows.names, of_rows, strict=True):
        assert set(labels[name] if isinstance(labels[name], list) else [labels[name]]) == set(
            value if isinstance(value, tuple) else [value]
        )


@pytest.mark.parametrize("labels", [None, {"background": 0, "whole": [1, 2], "core": [2]}])
@pytest.mark.parametrize("cascade", [False, True])
def test_as_many_input_channels_as_nnunet_has(labels, cascade):
    model = description(channels=("T1", "T2"), labels=labels, cascade=cascade)
    expected = determine_num_input_channels(PlansManager(dict(model.plans)), model.configuration, model.dataset_json)
    assert len(model.input_channels()) == expected
    assert model.input_channels()[:2] == ("T1", "T2")


def test_channels_of_a_cascade_name_their_labels():
    assert description(cascade=True).input_channels() == (
        "T1",
        "shell of the previous stage",
        "core of the previous stage",
    )


def test_labels_of_a_prior_scan_are_told_from_images():
    model = description(channels=("MRI", "prior MRI", "noNorm", "noNorm"))
    roles = {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}
    of_pairs = replace(model, dataset_json={**model.dataset_json, "nnunet_ext": {"longitudinal": roles}})
    assert of_pairs.input_channels() == ("MRI", "prior MRI", *(f"label {n} of the prior scan" for n in (1, 2)))
    assert model.input_channels() == ("MRI", "prior MRI", "noNorm", "noNorm"), "images that were normalised before"
    configuration = {
        **model.plans["configurations"][model.configuration],
        "nnunet_ext": {"dual_encoder": {"channels": roles}},
    }
    plans = {**model.plans, "configurations": {**model.plans["configurations"], model.configuration: configuration}}
    assert replace(model, plans=plans).input_channels() == of_pairs.input_channels(), "by the setting"


def test_channels_are_ordered_by_number():
    model = description()
    names = {str(number): f"c{number}" for number in reversed(range(11))}
    model = ModelDescription(model.plans, model.configuration, {**model.dataset_json, "channel_names": names})
    assert model.input_channels() == tuple(f"c{number}" for number in range(11))


def test_inherited_architecture_is_compared():
    source = description(features_per_stage=(4, 8, 12))
    assert architecture_differences(source, description()) == {}
    target = description(family="resenc", features_per_stage=[4, 8, 16])
    assert architecture_differences(source, target) == {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet -> "
        "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "features_per_stage": "[4, 8, 12] -> [4, 8, 16]",
        "n_conv_per_stage": "[2, 2, 2] -> None",
        "n_blocks_per_stage": "None -> [2, 2, 2]",
    }


def test_commands_that_give_the_sources_architecture():
    target = replace(description(dataset="Dataset017_Target"), configuration="run2")
    plan, preprocess = like_commands(description(), target, "a model.pth")
    assert plan == "nnunet_ext plan --like 'a model.pth' -d 17 -p nnUNetPlans"
    assert preprocess == "nnUNetv2_preprocess -d 17 -plans_name nnUNetPlans -c 3d_fullres_like"


def test_description_of_a_checkpoint():
    model = description()
    checkpoint = checkpoint_of(model, network_of(model))
    assert ModelDescription.of(checkpoint) == model
    for broken in (
        {**checkpoint, "init_args": None},
        {**checkpoint, "init_args": {**checkpoint["init_args"], "plans": "nnUNetPlans.json"}},
        {**checkpoint, "init_args": {**checkpoint["init_args"], "plans": {"configurations": {}}}},
        {**checkpoint, "init_args": {**checkpoint["init_args"], "configuration": "3d_fullres"}},
        {"network_weights": {}},
    ):
        assert ModelDescription.of(broken) is None


def test_a_checkpoints_own_plans_and_dataset_json_are_checked():
    model = description()
    content = {"plans": dict(model.plans), "configuration": model.configuration, "dataset_json": model.dataset_json}
    assert ModelDescription.of({"init_args": content}) == model
    wrong = {name: dict(one) for name, one in content["plans"]["configurations"].items()}
    wrong["tiny"]["patch_size"] = "large"
    with pytest.raises(UserError, match=r"The checkpoint's plans .*\n  - configurations.tiny.patch_size: must be a l"):
        ModelDescription.of({"init_args": {**content, "plans": {**content["plans"], "configurations": wrong}}})
    with pytest.raises(UserError, match=r"The checkpoint's dataset.json .*\n  - labels: the values are names"):
        ModelDescription.of({"init_args": {**content, "dataset_json": {"labels": {"0": "a"}, "file_ending": ".b"}}})
