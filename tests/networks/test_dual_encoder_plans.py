from types import SimpleNamespace

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_ext.networks.dual_encoder import AddedContext, ConcatenatedContext
from nnunet_ext.networks.dual_encoder_plans import dual_encoder_unet

CHANNELS = {"current": [0], "prior_image": [2], "prior_labels": [1, 3]}


def configuration(schemes=4, features=(4, 6)):
    """What is read of nnU-Net's configuration manager."""
    return SimpleNamespace(
        normalization_schemes=["ZScoreNormalization"] * schemes,
        network_arch_class_name="dynamic_network_architectures.architectures.unet.PlainConvUNet",
        network_arch_init_kwargs={
            "n_stages": len(features),
            "features_per_stage": list(features),
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3]] * len(features),
            "strides": [[1, 1], [2, 2]],
            "n_conv_per_stage": [1] * len(features),
            "n_conv_per_stage_decoder": [1] * (len(features) - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        },
        network_arch_init_kwargs_req_import=["conv_op", "norm_op", "nonlin"],
    )


def build(manager=None, *, inputs=4, outputs=5, deep_supervision=False, **settings):
    settings = {"fusion": "add", "fuse_skips": False, "context_width": 1.0, "channels": CHANNELS, **settings}
    return dual_encoder_unet(manager or configuration(), inputs, outputs, deep_supervision, settings=settings)


def first_inputs(encoder):
    return next(part.in_channels for part in encoder.modules() if isinstance(part, nn.Conv2d))


def test_each_encoder_sees_its_channels_and_the_prior_ones_labels_last():
    network = build()
    assert (network.current, network.prior) == ((0,), (2, 1, 3))
    assert first_inputs(network.encoder) == 1
    assert first_inputs(network.context_encoder) == 3


def test_what_a_cascades_first_stage_has_found_is_seen_beside_the_current_scan():
    network = build(inputs=6)
    assert (network.current, network.prior) == ((0, 4, 5), (2, 1, 3))
    assert first_inputs(network.encoder) == 3
    assert network(torch.zeros(1, 6, 8, 8)).shape == (1, 5, 8, 8)


def test_heads_are_as_many_as_asked_for_at_all_resolutions_or_the_full_one():
    manager = configuration(features=(4, 6, 8))
    manager.network_arch_init_kwargs["strides"] = [[1, 1], [2, 2], [2, 2]]
    heads = build(manager, deep_supervision=True)(torch.zeros(1, 4, 8, 8))
    assert [tuple(head.shape) for head in heads] == [(1, 5, 8, 8), (1, 5, 4, 4)]
    assert build(manager)(torch.zeros(1, 4, 8, 8)).shape == (1, 5, 8, 8)


@pytest.mark.parametrize(("width", "features"), [(1.0, (4, 6)), (0.5, (2, 3)), (0.1, (1, 1)), (0.4, (2, 2))])
def test_width_counts_for_the_context_encoder_alone_which_keeps_a_feature_at_least(width, features):
    manager = configuration()
    network = build(manager, context_width=width)
    assert tuple(network.encoder.output_channels) == (4, 6)
    assert tuple(network.context_encoder.output_channels) == features
    assert manager.network_arch_init_kwargs["features_per_stage"] == [4, 6], "the plans stay as they are"


def test_fusion_and_fused_skips_are_the_settings():
    assert [type(one) for one in build(fusion="concat").fusions] == [ConcatenatedContext]
    assert [type(one) for one in build(fuse_skips=True).fusions] == [AddedContext] * 2


def test_early_fusion_is_the_plans_network_on_all_channels_and_a_cascades():
    network = build(inputs=6, fusion="early")
    assert type(network) is PlainConvUNet
    assert first_inputs(network.encoder) == 6
    assert network(torch.zeros(1, 6, 8, 8)).shape == (1, 5, 8, 8)
