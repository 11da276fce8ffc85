"""The networks that trainers build for a model's plans."""

import contextlib
import inspect
import io
from importlib import import_module
from typing import Any

from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_ext.checkpoints.allowed_code import check_named_code
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.errors import UserError, in_one_line
from nnunet_ext.registry import TRAINERS


def find_trainer(name: str) -> Any:
    """The trainer's class, ours or one that nnU-Net finds; a UserError if there is none or a module is broken."""
    if any(entry.name == name for entry in TRAINERS):
        return getattr(import_module("nnunet_ext.trainers"), name)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it tells where it looks
            return recursive_find_trainer_class_by_name(name)
    except (Exception, SystemExit) as error:
        reason = (
            f"There is no trainer {name!r}. This package has: {', '.join(entry.name for entry in TRAINERS)}; nnU-Net "
            "has nnUNetTrainer and its variants, and those in the folders that nnUNet_extTrainer names."
        )
        if not isinstance(error, RuntimeError) or name not in str(error):
            reason = f"nnU-Net's lookup of the trainer {name!r} failed in a module that is not this package's "
            reason += f"({in_one_line(error)}). `nnunet_ext doctor` names it."
        raise UserError(reason) from None


def input_channels(model: ModelDescription) -> int:
    """How many channels the network takes; a cascade's second stage takes more than the images have."""
    plans_manager = PlansManager(dict(model.plans))
    configuration_manager = plans_manager.get_configuration(model.configuration)
    return determine_num_input_channels(plans_manager, configuration_manager, model.dataset_json)


def build_network(trainer: Any, model: ModelDescription, *, deep_supervision: bool) -> nn.Module:
    """The network of a trainer's class, freshly initialised, on the CPU, with `deep_supervision` as it is trained.

    Raises:
        UserError: if the plans name code that is no part of a network, or their network cannot be built.
    """
    try:
        plans_manager = PlansManager(resolved_plans(trainer, model))
        configuration_manager = plans_manager.get_configuration(model.configuration)
        check_named_code(plans_manager, configuration_manager)
        heads = plans_manager.get_label_manager(model.dataset_json).num_segmentation_heads
        architecture = (plans_manager, configuration_manager)
        if "plans_manager" not in inspect.signature(trainer.build_network_architecture).parameters:
            # the signature before nnU-Net 2.8, which nnU-Net still accepts
            names = ("class_name", "init_kwargs", "init_kwargs_req_import")
            architecture = tuple(getattr(configuration_manager, f"network_arch_{name}") for name in names)
        return trainer.build_network_architecture(*architecture, input_channels(model), heads, deep_supervision)
    except (UserError, NotImplementedError):
        raise
    except Exception as error:  # whatever nnU-Net and torch raise for arguments from a file
        raise UserError(
            f"{trainer.__name__} cannot build the network of configuration {model.configuration!r}: "
            f"{in_one_line(error)}. Compare its architecture in the plans with one that nnU-Net has planned."
        ) from error


def resolved_plans(trainer: Any, model: ModelDescription) -> dict[str, Any]:
    """The model's plans, with what the trainer writes into them of dataset.json when it is built."""
    plans = dict(model.plans)
    if hasattr(trainer, "resolved_plans"):
        return trainer.resolved_plans(plans, model.configuration, model.dataset_json)
    return plans
