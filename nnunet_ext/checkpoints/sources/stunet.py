"""STU-Net, pre-trained on TotalSegmentator: checkpoints of nnU-Net v1 (``base_ep4k.model``), or of v2 with plans."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_ext.checkpoints.heads import OUTPUTS, UNNAMED
from nnunet_ext.checkpoints.reading import without_prefixes
from nnunet_ext.checkpoints.shapes import numbered_weights
from nnunet_ext.checkpoints.sources.nnunet import described_by_nnunet, with_parts
from nnunet_ext.checkpoints.sources.plans import described_plans
from nnunet_ext.checkpoints.sources.source import Given, Source, has_decoder
from nnunet_ext.checkpoints.sources.wrapped import unnamed_channels, unnamed_labels, unwrapped
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import listed

NAMES = (
    (r"conv_blocks_context\.", "encoder.stages."),
    (r"conv_blocks_localization\.", "decoder.stages."),
    (r"upsample_layers\.(\d+)\.conv\.", r"decoder.upsampling.\1."),
    (r"seg_outputs\.", "decoder.seg_layers."),
)
"""Its names, and those of the network here, `NETWORK`."""

NETWORK = "nnunet_ext.networks.stunet.STUNet"
FIRST = "conv_blocks_context.0.0.conv1.weight"
PUBLISHED_OUTPUTS, PUBLISHED_CHANNELS = 105, {"0": "CT"}
PUBLISHED: Mapping[str, Any] = {
    "patch_size": [128, 128, 128],
    "spacing": [1.5, 1.5, 1.5],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "batch_size": 2,
}
"""The patch by its README; spacing and normalisation are nnU-Net's for TotalSegmentator's scans, its training data."""


class STUNetReader:
    """STU-Net in all of its sizes. The strides are not in the weights, which fit any."""

    name = "stunet"

    def recognises(self, given: Given) -> bool:
        return FIRST in _weights(given)

    def read(self, given: Given) -> Source:
        weights = {_renamed(key): tensor for key, tensor in _weights(given).items()}
        if "encoder.stages.0.0.conv1.weight" not in weights:
            raise UserError(f"{given.file} is not of STU-Net: it has no tensor {FIRST}.")
        checkpoint: dict[str, Any] = {"network_weights": weights, "trainer_name": "STUNetTrainer", KEY: {}}
        arguments = described_by_nnunet(given)
        if {"plans", "configuration", "dataset_json"} <= set(arguments):
            name = arguments["configuration"]
            own = PlansManager(arguments["plans"]).get_configuration(name).configuration
            architecture = _architecture(weights, own["architecture"]["arch_kwargs"]["strides"][1:])
            plans = {**arguments["plans"], "configurations": {name: {**own, "architecture": architecture}}}
            checkpoint["init_args"] = {**arguments, "plans": plans}
            remark = "The strides are those that its trainer takes from the plans."
        else:
            architecture = _architecture(weights, [])
            is_published = len(unnamed_labels(weights)) == PUBLISHED_OUTPUTS
            checkpoint["init_args"] = described_plans(
                dataset_name="Dataset101_TotalSegmentator",
                plans_name="STUNet",
                configuration="3d_fullres",
                architecture=architecture,
                channels=PUBLISHED_CHANNELS if is_published else unnamed_channels(weights),
                labels=unnamed_labels(weights),
                more=PUBLISHED if is_published else {},
            )
            checkpoint[KEY][OUTPUTS] = UNNAMED
            remark = (
                "The file has no plans. The weights do not tell the strides: 2 is assumed in each stage. Its labels "
            )
            remark += "have no names here."
        _check(architecture, weights, given)
        needed = "Its network is a class of this package, which has to be installed where it trains and predicts."
        citation = "Huang et al., STU-Net: Scalable and Transferable Medical Image Segmentation Models Empowered by "
        citation += "Large-Scale Supervised Pre-training, arXiv 2304.06716"
        licence = "see github.com/uni-medical/STU-Net"
        return with_parts(Source(checkpoint, self.name, (remark, needed), citation, licence), given)


def _weights(given: Given) -> dict[str, Tensor]:
    found = unwrapped(given.content) or {}
    return {without_prefixes(key): tensor for key, tensor in found.items()}


def _renamed(key: str) -> str:
    for theirs, ours in NAMES:
        key = re.sub(f"^{theirs}", ours, key)
    return key


def _architecture(weights: Mapping[str, Tensor], strides: Sequence[Any]) -> dict[str, Any]:
    """The network as plans describe it.

    Args:
        weights: by the names of its network here.
        strides: of all stages but the first. What is missing is 1, as in STU-Net's trainer, or 2 if there are none.
    """
    stages = numbered_weights(weights, r"encoder\.stages\.(\d+)\.(\d+)\.conv1\.weight")
    firsts = [stages[number][0] for number in sorted(stages) if 0 in stages[number]]
    more = len(firsts) - 1
    steps = [*map(list, strides), *[[1, 1, 1]] * more][:more] if strides else [[2, 2, 2]] * more
    return {
        "network_class_name": NETWORK,
        "arch_kwargs": {
            "n_stages": len(firsts),
            "features_per_stage": [weight.shape[0] for weight in firsts],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [list(weight.shape[2:]) for weight in firsts],
            "strides": [[1, 1, 1], *steps],
            "n_blocks_per_stage": [len(stages[number]) for number in sorted(stages)],
        },
        "_kw_requires_import": ["conv_op"],
    }


def _check(architecture: Mapping[str, Any], weights: Mapping[str, Tensor], given: Given) -> None:
    """Raise a UserError unless the weights are those of the network, or of its encoder."""
    channels, classes = len(unnamed_channels(weights)), len(unnamed_labels(weights))
    try:
        with torch.device("meta"):
            network = get_network_from_plans(*architecture.values(), channels, classes, allow_init=False)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{given.file} is not of STU-Net: {error}") from None
    parts = ("encoder.", "decoder.") if has_decoder(weights) else ("encoder.",)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items() if key.startswith(parts)}
    found = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    problems = [
        f"{key}: STU-Net has {shapes.get(key, 'no such tensor')}, the file {found.get(key, 'none')}"
        for key in dict.fromkeys([*shapes, *found])
        if shapes.get(key) != found.get(key)
    ]
    if problems:
        raise UserError(f"{given.file} is not of STU-Net's network:{listed(problems)}")
