"""The U-Net with a second encoder, built by a configuration of nnU-Net's plans."""

from collections.abc import Mapping
from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_ext.networks.dual_encoder import DualEncoderUNet


def dual_encoder_unet(
    configuration_manager: Any,
    num_input_channels: int,
    num_output_channels: int,
    enable_deep_supervision: bool = True,
    *,
    settings: Mapping[str, Any],
) -> nn.Module:
    """The plans' U-Net for the channels of the current scan, with a second encoder for those of the prior one.

    With the fusion ``early`` it is the plans' U-Net for all channels, without a second encoder.

    Args:
        configuration_manager: nnU-Net's, of the configuration.
        num_input_channels: of the network; a cascade's are more than the images have.
        num_output_channels: of its heads.
        enable_deep_supervision: whether it gives all resolutions.
        settings: ``fusion``, ``fuse_skips``, ``context_width`` and ``channels``, which has ``current``, ``prior_image``
            and ``prior_labels``.
    """
    if settings["fusion"] == "early":
        return _unet(
            configuration_manager, num_input_channels, num_output_channels, deep_supervision=enable_deep_supervision
        )
    channels = settings["channels"]
    # a cascade puts what its first stage has found behind the images' channels
    previous_stage = range(len(configuration_manager.normalization_schemes), num_input_channels)
    current = [*channels["current"], *previous_stage]
    prior = [*channels["prior_image"], *channels["prior_labels"]]
    unet = _unet(configuration_manager, len(current), num_output_channels, deep_supervision=enable_deep_supervision)
    # of that only the encoder is taken, so the number of outputs does not matter
    context_unet = _unet(configuration_manager, len(prior), 1, width=settings["context_width"])
    return DualEncoderUNet(
        unet,
        context_unet.encoder,
        current=current,
        prior=prior,
        fusion=settings["fusion"],
        fuse_skips=settings["fuse_skips"],
    )


def _unet(
    configuration_manager: Any,
    input_channels: int,
    output_channels: int,
    *,
    width: float = 1.0,
    deep_supervision: bool = False,
) -> nn.Module:
    """A configuration's U-Net, with another number of features in all stages if asked."""
    kwargs = dict(configuration_manager.network_arch_init_kwargs)
    kwargs["features_per_stage"] = [max(1, round(width * size)) for size in kwargs["features_per_stage"]]
    return get_network_from_plans(
        configuration_manager.network_arch_class_name,
        kwargs,
        configuration_manager.network_arch_init_kwargs_req_import,
        input_channels,
        output_channels,
        deep_supervision=deep_supervision,
    )
