"""What a model was trained for, as its plans and dataset.json say: input channels, heads, architecture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.checkpoints.inputs import OF_PREVIOUS_STAGE, OF_PRIOR_SCAN
from nnunet_ext.checkpoints.shapes import as_lists
from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import (
    channel_names,
    checked_dataset_json,
    foreground_labels,
    read_dataset_json,
    values_of,
)
from nnunet_ext.formats.plans import checked_plans, require
from nnunet_ext.nnunet_folders import dataset_number, preprocessed_folder
from nnunet_ext.plans.channel_roles import check_roles, roles_in, roles_of_dataset
from nnunet_ext.plans.like import dimensions_of
from nnunet_ext.plans.plans_file import check_configuration, read_plans
from nnunet_ext.plans.settings import configured_settings, validated_section
from nnunet_ext.techniques.dual_encoder import DUAL_ENCODER

COMPLETE: Mapping[str, Any] = {"channel_names": {"0": "image"}, "labels": {}, "file_ending": ".nii.gz"}


@dataclass(frozen=True)
class HeadRows:
    """The label or region of each output channel, under ``softmax`` (labels) or ``sigmoid`` (regions)."""

    names: tuple[str, ...]
    activation: str


@dataclass(frozen=True)
class ModelDescription:
    """A model's plans, the configuration it uses of them (e.g. ``3d_fullres``), and its dataset.json."""

    plans: Mapping[str, Any]
    configuration: str
    dataset_json: Mapping[str, Any]

    @staticmethod
    def of(checkpoint: Mapping[str, Any]) -> ModelDescription | None:
        """The description in a checkpoint; None if it holds weights alone.

        Raises:
            UserError: if its plans or dataset.json are not as nnU-Net writes them.
        """
        arguments: Any = checkpoint.get("init_args")
        try:
            plans, name, dataset_json = (arguments[key] for key in ("plans", "configuration", "dataset_json"))
            described = {"dataset_name", "plans_name"} <= set(plans) and name in plans["configurations"]
        except (KeyError, TypeError):
            return None
        if not described or not isinstance(dataset_json, Mapping):
            return None
        plans = checked_plans(plans, where="The checkpoint's plans")
        # other programs leave out what no network needs
        checked_dataset_json({**COMPLETE, **dataset_json}, where="The checkpoint's dataset.json")
        return ModelDescription(plans, str(name), dataset_json)

    @property
    def name(self) -> str:
        """For messages, e.g. ``Dataset004_Hippocampus nnUNetPlans 3d_fullres``."""
        return f"{self.plans['dataset_name']} {self.plans['plans_name']} {self.configuration}"

    def architecture(self) -> Mapping[str, Any]:
        """``network_class_name`` and ``arch_kwargs`` of the configuration, inherited ones included."""
        where = f"Configuration {self.configuration!r} in the plans of {self.plans.get('dataset_name')}"
        try:
            found = PlansManager(dict(self.plans)).get_configuration(self.configuration).configuration
        except KeyError as error:  # of plans that nnU-Net takes for those of an older release
            raise UserError(f"{where} has no architecture, nor {error} of older plans. Name plans with one.") from None
        require(found, ["architecture"], where=where)
        require(found["architecture"], ("network_class_name", "arch_kwargs"), where=f"{where}: its architecture")
        return found["architecture"]

    def input_channels(self) -> tuple[str, ...]:
        """Name of every input channel of the network; a cascade's second stage has one more for each label.

        In dataset.json all labels of a prior scan have the name noNorm. Here they are numbered.
        """
        plans_manager = PlansManager(dict(self.plans))
        names = channel_names(self.dataset_json)
        for number, channel in enumerate(self._prior_labels(), start=1):
            names[channel] = f"label {number}{OF_PRIOR_SCAN}"
        if plans_manager.get_configuration(self.configuration).previous_stage_name is not None:
            labels = plans_manager.get_label_manager(self.dataset_json).foreground_labels
            names += [f"{self._label_name(label)}{OF_PREVIOUS_STAGE}" for label in labels]
        return tuple(names)

    def _prior_labels(self) -> Sequence[int]:
        """The channels with labels of a prior scan, by the setting or else by dataset.json."""
        roles = None
        with suppress(UserError):  # of another version's settings, or wrong ones, which a training names
            block, where = configured_settings(self.plans, self.configuration), f"configuration {self.configuration!r}"
            roles = validated_section(block, DUAL_ENCODER, where=where).channels
            if roles is not None:
                check_roles(roles, len(channel_names(self.dataset_json)), where=where)
                return roles.prior_labels
        return roles_of_dataset(self.dataset_json).prior_labels if roles_in(self.dataset_json) else ()

    def head_rows(self) -> HeadRows:
        """The label (by value) or region (in the order of dataset.json) of each channel; the ignore label has none."""
        manager = PlansManager(dict(self.plans)).get_label_manager(self.dataset_json)
        if not manager.has_regions:
            return HeadRows(tuple(self._label_name(label) for label in manager.all_labels), "softmax")
        names = tuple(foreground_labels(self.dataset_json))
        assert len(names) == manager.num_segmentation_heads
        return HeadRows(names, "sigmoid")

    def _label_name(self, label: int) -> str:
        labels = self.dataset_json["labels"]
        return next((name for name, value in labels.items() if values_of(value) == {label}), f"label {label}")


def planned_model(dataset: str, configuration: str, *, plans_name: str) -> ModelDescription:
    """What a training on a preprocessed dataset would be for; a UserError if there are no such plans."""
    file = preprocessed_folder(dataset) / f"{plans_name}.json"
    plans = read_plans(file)
    require(plans, ("dataset_name", "plans_name"), where=file)
    check_configuration(plans, configuration, file=file)
    return ModelDescription(plans, configuration, read_dataset_json(file.with_name("dataset.json")))


STRUCTURE = ("network_class_name", "n_stages", "n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder")
"""The keys of the architecture that decide how many tensors a network has."""


def architecture_differences(source: ModelDescription, target: ModelDescription) -> dict[str, str]:
    """What differs between two architectures, e.g. ``"6 -> 5"``, by the plans' key, e.g. ``n_stages``."""
    old, new = source.architecture(), target.architecture()
    differences = {}
    names = [str(architecture["network_class_name"]) for architecture in (old, new)]
    # the same class has moved between modules
    if names[0].rsplit(".", 1)[-1] != names[1].rsplit(".", 1)[-1]:
        differences["network_class_name"] = f"{names[0]} -> {names[1]}"
    old_kwargs, new_kwargs = old["arch_kwargs"], new["arch_kwargs"]
    for key in dict.fromkeys([*old_kwargs, *new_kwargs]):
        before, after = as_lists(old_kwargs.get(key)), as_lists(new_kwargs.get(key))
        if before != after:
            differences[str(key)] = f"{before} -> {after}"
    return differences


def configurations_with_architecture(source: ModelDescription, target: ModelDescription) -> list[str]:
    """The configurations of the target's plans that have the source's architecture."""
    names = target.plans["configurations"]
    return [name for name in names if not architecture_differences(source, replace(target, configuration=name))]


def like_commands(origin: ModelDescription, target: ModelDescription, source: str = "SOURCE") -> tuple[str, str]:
    """The commands that give a target a configuration with a source's architecture, and preprocess for it.

    `origin` is the source, and `source` its file.
    """
    destination, plans_name = str(target.plans["dataset_name"]), str(target.plans["plans_name"])
    options = ["-d", dataset_number(destination)]
    theirs = PlansManager(dict(origin.plans)).get_configuration(origin.configuration).configuration
    base = "2d" if dimensions_of(theirs) == 2 else "3d_fullres"
    plan = ["nnunet_ext", "plan", "--like", source, *options, "-p", plans_name]
    preprocess = ["nnUNetv2_preprocess", *options, "-plans_name", plans_name, "-c", f"{base}_like"]
    return shlex.join(plan), shlex.join(preprocess)
