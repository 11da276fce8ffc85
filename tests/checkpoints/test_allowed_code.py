"""Plans name classes of networks and functions of resampling, and no other code is imported or run."""

import copy
import json
import sys

import pytest
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.checkpoints.allowed_code import check_named_code
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.networks import build_network, find_trainer
from nnunet_ext.errors import UserError

TINY = "3d_tiny"


@pytest.fixture
def plans(workspace):
    return json.loads((workspace.preprocessed / "Dataset901_Labels" / "nnUNetPlans.json").read_text())


def check(plans, configuration=TINY):
    manager = PlansManager(plans)
    check_named_code(manager, manager.get_configuration(configuration))


def changed(plans, **arguments):
    """The plans with other arguments of the network."""
    plans = copy.deepcopy(plans)
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            configuration["architecture"]["arch_kwargs"].update(arguments)
    return plans


def renamed(plans, name):
    """The plans with another class of the network."""
    plans = copy.deepcopy(plans)
    for configuration in plans["configurations"].values():
        if "architecture" in configuration:
            configuration["architecture"]["network_class_name"] = name
    return plans


@pytest.mark.parametrize("plans_name", ["nnUNetPlans", "nnUNetResEncUNetMPlans"])
def test_what_nnunet_plans_is_allowed(workspace, plans_name):
    plans = json.loads((workspace.preprocessed / "Dataset901_Labels" / f"{plans_name}.json").read_text())
    for configuration in plans["configurations"]:
        check(plans, configuration)


@pytest.mark.parametrize("name", ["torch.nn.GELU", "torch.nn.modules.activation.ReLU", None])
def test_other_modules_of_torch_are_allowed(plans, name):
    check(changed(plans, nonlin=name))


@pytest.mark.parametrize(
    "name",
    [
        "subprocess.Popen",
        "os.system",
        "builtins.eval",
        "torch.hub.load",
        "torch.nn.modules.module.torch.hub.load",  # reached through a module that is allowed
        "torch.nn.functional.relu",  # a function
        "torch.nn.init.os",
        "torch.nn",
        "torch.nnx.ReLU",
        "torch.nn..ReLU",
        "nnunet_ext.files.write_text",
        "dynamic_network_architectures.architectures.unet.np.load",
        "",
        7,
        ["subprocess.Popen"],
    ],
)
def test_any_other_name_is_refused(plans, name):
    with pytest.raises(UserError, match="nnUNetPlans of Dataset901_Labels have nonlin"):
        check(changed(plans, nonlin=name))
    if isinstance(name, str):
        with pytest.raises(UserError, match="have network_class_name"):
            check(renamed(plans, name))


def test_a_module_is_not_imported_to_look_at_it(plans, tmp_path, monkeypatch):
    (tmp_path / "payload_of_plans.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError):
        check(changed(plans, nonlin="payload_of_plans.anything"))
    assert "payload_of_plans" not in sys.modules


def test_a_network_that_moved_within_its_package_is_still_found(plans):
    """nnU-Net looks for a class of this name in the package's architectures."""
    moved = renamed(plans, "dynamic_network_architectures.architectures.elsewhere.PlainConvUNet")
    check(moved)


def test_arguments_that_resampling_does_not_take_are_named(plans):
    plans = copy.deepcopy(plans)
    for configuration in plans["configurations"].values():
        if "resampling_fn_data" in configuration:
            configuration["resampling_fn_data_kwargs"] = {"is_seg": False, "ordr": 3}
    with pytest.raises(UserError, match="resampling_fn_data_kwargs ordr, which resample_data_or_seg_to_shape does not"):
        check(plans)


@pytest.mark.parametrize("name", ["os", "torch", "subprocess.Popen", "no_such_function", 3])
def test_resampling_is_nnunets(plans, name):
    plans = copy.deepcopy(plans)
    for configuration in plans["configurations"].values():
        if "resampling_fn_data" in configuration:
            configuration["resampling_fn_data"] = name
    with pytest.raises(UserError, match="have resampling_fn_data"):
        check(plans)


@pytest.mark.parametrize(
    ("trainer", "dataset"),
    [
        ("nnUNetTrainer", "Dataset901_Labels"),
        ("nnUNetTrainerTDNet", "Dataset901_Labels"),
        ("nnUNetTrainerDualEncoder", "Dataset904_Prior"),
    ],
)
def test_no_network_is_built_of_such_plans(workspace, tmp_path, trainer, dataset):
    target = tmp_path / "ran"
    plans = json.loads((workspace.preprocessed / dataset / "nnUNetPlans.json").read_text())
    plans = changed(plans, nonlin="subprocess.Popen", nonlin_kwargs={"args": ["touch", str(target)]})
    dataset_json = json.loads((workspace.raw / dataset / "dataset.json").read_text())
    with pytest.raises(UserError, match="nonlin"):
        build_network(find_trainer(trainer), ModelDescription(plans, TINY, dataset_json), deep_supervision=False)
    assert not target.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"n_stages": 10**6},
        {"features_per_stage": "many"},
        {"features_per_stage": [10**9] * 3},
        {"kernel_sizes": None},
        {"strides": []},
        {"no_such": 1},
        {"conv_op": None},
    ],
)
def test_a_network_that_cannot_be_built_is_a_message(workspace, change):
    plans = json.loads((workspace.preprocessed / "Dataset901_Labels" / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((workspace.raw / "Dataset901_Labels" / "dataset.json").read_text())
    with pytest.raises(UserError, match=rf"nnUNetTrainer cannot build the network of configuration '{TINY}'"):
        build_network(
            find_trainer("nnUNetTrainer"),
            ModelDescription(changed(plans, **change), TINY, dataset_json),
            deep_supervision=False,
        )


def test_a_configuration_without_an_architecture_is_a_message(workspace):
    plans = json.loads((workspace.preprocessed / "Dataset901_Labels" / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((workspace.raw / "Dataset901_Labels" / "dataset.json").read_text())
    for configuration in plans["configurations"].values():
        configuration.pop("architecture", None)
    with pytest.raises(UserError, match="cannot build the network"):
        build_network(
            find_trainer("nnUNetTrainer"), ModelDescription(plans, TINY, dataset_json), deep_supervision=False
        )
