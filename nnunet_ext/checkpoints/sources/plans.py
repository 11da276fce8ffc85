"""Plans of every age and origin, in the form of nnU-Net 2.8."""

import warnings
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager

from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import checked_dataset_json
from nnunet_ext.formats.plans import checked_plans


def present_plans(content: Any, *, where: object) -> dict[str, Any]:
    """Plans whose configurations all have an architecture: nnU-Net 2.0 to 2.1 wrote its parts instead.

    Raises:
        UserError: naming the file, the configuration and the key that is missing or wrong.
    """
    plans = checked_plans(content, where=where)
    return {
        **plans,
        "configurations": {name: _present(name, one, where) for name, one in plans["configurations"].items()},
    }


def _present(name: str, configuration: Mapping[str, Any], where: object) -> dict[str, Any]:
    present = dict(configuration)
    if present.get("architecture") is None and "inherits_from" not in present:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                present = ConfigurationManager(deepcopy(present)).configuration
        except (KeyError, RuntimeError, TypeError, AttributeError) as error:
            raise UserError(
                f"{where}: configuration {name!r} has neither an architecture (nnU-Net from 2.2) nor all of the keys "
                f"that nnU-Net 2.0 and 2.1 wrote in its place ({error})."
            ) from None
    architecture = present.get("architecture")
    if architecture is not None:
        if not isinstance(architecture.get("network_class_name"), str):
            raise UserError(f"{where}: configuration {name!r} does not name the class of its network.")
        # nnU-Net names a module that is not there any more, and then looks for the class
        class_name = architecture["network_class_name"].replace(".residual_unet.", ".unet.")
        present["architecture"] = {**architecture, "network_class_name": class_name}
    return present


def present_dataset_json(content: Any, *, where: object) -> dict[str, Any]:
    """The dataset.json of a model. Its file ending, which only datasets need, may be missing."""
    if not isinstance(content, Mapping) or "file_ending" in content:
        return checked_dataset_json(content, where=where)
    checked = checked_dataset_json({**content, "file_ending": ".nii.gz"}, where=where)
    return {key: value for key, value in checked.items() if key != "file_ending"}


def described_plans(
    *,
    dataset_name: str,
    plans_name: str,
    configuration: str,
    architecture: Mapping[str, Any],
    channels: Mapping[str, str],
    labels: Mapping[str, Any],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """The ``init_args`` of a model that has no plans of nnU-Net of its own.

    Args:
        dataset_name: what it was trained on.
        plans_name: name of the plans.
        configuration: name of the configuration.
        architecture: as in plans.
        channels: as ``channel_names`` of dataset.json.
        labels: as in dataset.json.
        more: what else is known of the configuration, such as patch_size and spacing.
    """
    plans = {
        "dataset_name": dataset_name,
        "plans_name": plans_name,
        "label_manager": "LabelManager",
        "configurations": {configuration: {**more, "architecture": dict(architecture)}},
    }
    dataset_json = {"channel_names": dict(channels), "labels": dict(labels)}
    return {"plans": plans, "configuration": configuration, "dataset_json": dataset_json}
