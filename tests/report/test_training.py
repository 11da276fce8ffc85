"""What is read of a checkpoint, and the commands that are derived of it."""

from __future__ import annotations

import pytest
import torch

from nnunet_ext.errors import UserError
from nnunet_ext.report.training import read_training, training_commands
from support.made_results import PLANS, write_checkpoint


def test_settings_are_inherited_and_flattened(tmp_path):
    settings = read_training(write_checkpoint(tmp_path / "fold_3", configuration="3d_fullres_quick").parent).settings
    assert settings["Patch size"] == "12 × 16 × 16"
    assert settings["Batch size"] == "4"
    assert settings["mixup.alpha"] == "0.4"
    assert settings["Seconds per epoch (median)"] == "2.5"
    assert settings["Weights of the network"] == "15"
    assert settings["Fold"] == "3"


def test_licence_of_what_a_training_started_from_is_shown(tmp_path):
    file = write_checkpoint(tmp_path / "fold_0")
    content = torch.load(file, weights_only=False)
    content["nnunet_ext"]["source"] = {"file": "start.pth", "licence": "CC BY 4.0"}
    torch.save(content, file)
    settings = read_training(file.parent).settings
    assert settings["Started from: file"] == "start.pth"
    assert settings["Started from: licence"] == "CC BY 4.0"


def test_curves_have_a_number_for_each_epoch(tmp_path):
    training = read_training(write_checkpoint(tmp_path / "fold_0", terms={"loss/mixup": [1.0, 0.5]}).parent)
    assert training.curves["loss/mixup"] == [1.0, 0.5]
    assert "dice_per_class_or_region" not in training.curves
    assert training.version == "0.0.7"
    assert training.is_finished


def test_last_checkpoint_of_an_unfinished_training_is_read(tmp_path):
    write_checkpoint(tmp_path / "fold_0", name="checkpoint_best.pth")
    write_checkpoint(tmp_path / "fold_0", name="checkpoint_latest.pth")
    training = read_training(tmp_path / "fold_0")
    assert training.checkpoint.name == "checkpoint_latest.pth"
    assert not training.is_finished


def test_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="checkpoint_final.pth"):
        read_training(tmp_path / "fold_0")


def test_commands_name_what_differs_from_the_defaults():
    commands = training_commands(
        {**PLANS, "plans_name": "nnUNetPlansSource"}, trainer="nnUNetTrainerDGST", configuration="3d_short", fold="all"
    )
    assert commands == (
        "nnunet_ext configure -d 900 -p nnUNetPlansSource -c 3d_fullres --name 3d_short num_epochs=10 mixup.alpha=0.4",
        "nnUNetv2_train 900 3d_short all -tr nnUNetTrainerDGST -p nnUNetPlansSource",
    )


def test_ancestors_are_configured_first():
    plans = {
        **PLANS,
        "configurations": {
            **PLANS["configurations"],
            "leaf": {"inherits_from": "3d_short", "nnunet_ext": {"optimizer": "adamw", "seed": None}},
        },
    }
    first, second, third = training_commands(plans, trainer="nnUNetTrainer", configuration="leaf", fold="0")
    assert "--name 3d_short" in first
    assert second == "nnunet_ext configure -d 900 -c 3d_short --name leaf optimizer=adamw seed=null"
    assert third == "nnUNetv2_train 900 leaf 0"


def test_configurations_that_configure_cannot_write_are_a_comment():
    comment, _ = training_commands(PLANS, trainer="nnUNetTrainer", configuration="3d_fullres_quick", fold="0")
    assert comment.startswith("# configuration 3d_fullres_quick")


def changed_checkpoint(folder, change):
    file = write_checkpoint(folder)
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, file)
    return folder


@pytest.mark.parametrize("changes", [{"inherits_from": None}, {}])
def test_a_configuration_without_architecture_or_parent_is_read(tmp_path, changes):
    """The report shows sizes alone, which other programs' plans have too."""

    def change(content):
        short = {**changes, "patch_size": [8, 8, 8], "nnunet_ext": {}}
        content["init_args"]["plans"]["configurations"]["3d_short"] = short

    training = read_training(changed_checkpoint(tmp_path / "fold_0", change))
    assert training.settings["Patch size"] == "8 × 8 × 8"
    assert training.settings["Batch size"] == "–"
    assert training.commands[0].startswith("# configuration 3d_short: take it from plans.json")


def test_a_configuration_that_inherits_from_null_is_no_command(tmp_path):
    def change(content):
        content["init_args"]["plans"]["configurations"]["3d_short"]["inherits_from"] = None

    training = read_training(changed_checkpoint(tmp_path / "fold_0", change))
    assert training.commands[0].startswith("# configuration 3d_short: take it from plans.json")


def test_a_number_that_is_too_large_is_named(tmp_path):
    folder = changed_checkpoint(tmp_path / "fold_0", lambda content: content["logging"].update(lrs=[10**400]))
    with pytest.raises(
        UserError, match=r"checkpoint_final\.pth: the curve 'lrs' has a number that is too large\. Name"
    ):
        read_training(folder)


def test_settings_that_are_no_json_are_shown_as_text(tmp_path):
    def change(content):
        short = content["init_args"]["plans"]["configurations"]["3d_short"]
        short["nnunet_ext"] = {"seed": torch.tensor(3)}

    assert "seed=" in read_training(changed_checkpoint(tmp_path / "fold_0", change)).commands[0]
