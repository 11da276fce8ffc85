"""Small models as nnU-Net's plans describe them, and their checkpoints."""

from __future__ import annotations

from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_ext.checkpoints.description import ModelDescription

LABELS = {"background": 0, "shell": 1, "core": 2}

CLASSES = {
    "plain": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
    "resenc": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
}


def description(
    *,
    channels: tuple[str, ...] = ("T1",),
    labels: dict[str, Any] | None = None,
    family: str = "plain",
    dims: int = 3,
    dataset: str = "Dataset004_Source",
    cascade: bool = False,
    **architecture: Any,
) -> ModelDescription:
    """A model of three stages, whose configuration ``tiny`` inherits its architecture from ``base``.

    Args:
        channels: channel names.
        labels: as in dataset.json; regions get a `regions_class_order`.
        family: ``plain`` or ``resenc``.
        dims: 2 or 3.
        dataset: its name.
        cascade: whether it is a cascade's second stage.
        architecture: changes of arch_kwargs.
    """
    labels = LABELS if labels is None else labels
    kwargs = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 12],
        "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
        "kernel_sizes": [[3] * dims] * 3,
        "strides": [[1] * dims, [2] * dims, [2] * dims],
        "n_conv_per_stage" if family == "plain" else "n_blocks_per_stage": [2, 2, 2],
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
        **architecture,
    }
    base = {
        "patch_size": [16] * dims,
        "architecture": {
            "network_class_name": CLASSES[family],
            "arch_kwargs": kwargs,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    tiny = {"inherits_from": "base", **({"previous_stage": "base"} if cascade else {})}
    plans = {
        "dataset_name": dataset,
        "plans_name": "nnUNetPlans",
        "label_manager": "LabelManager",
        "configurations": {"base": base, "tiny": tiny},
    }
    dataset_json: dict[str, Any] = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": labels,
    }
    regions = [name for name, value in labels.items() if name not in ("background", "ignore")]
    if any(isinstance(value, list) for value in labels.values()):
        dataset_json["regions_class_order"] = list(range(1, len(regions) + 1))
    return ModelDescription(plans, "tiny", dataset_json)


def network_of(model: ModelDescription) -> nn.Module:
    """The network that nnU-Net builds for a model, with deep supervision."""
    plans_manager = PlansManager(dict(model.plans))
    configuration = plans_manager.get_configuration(model.configuration)
    return get_network_from_plans(
        configuration.network_arch_class_name,
        configuration.network_arch_init_kwargs,
        configuration.network_arch_init_kwargs_req_import,
        len(model.input_channels()),
        plans_manager.get_label_manager(model.dataset_json).num_segmentation_heads,
        allow_init=True,
        deep_supervision=True,
    )


def checkpoint_of(model: ModelDescription, network: nn.Module) -> dict[str, Any]:
    """What `read_checkpoint` gives for a trained model."""
    return {
        "network_weights": dict(network.state_dict()),
        "init_args": {
            "plans": model.plans,
            "configuration": model.configuration,
            "dataset_json": model.dataset_json,
        },
        "trainer_name": "nnUNetTrainer",
    }
