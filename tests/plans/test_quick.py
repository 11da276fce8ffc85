import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

from nnunet_ext.errors import UserError
from nnunet_ext.plans.quick import VOXELS_PER_PATCH, quick_configuration, quick_patch_size
from nnunet_ext.plans.settings import validated_settings


def resolved(patch_size, spacing, residual=False, **more):
    dims = len(patch_size)
    blocks = {"n_blocks_per_stage": [1, 3, 4, 6, 6, 6]} if residual else {"n_conv_per_stage": [2] * 6}
    name = "unet.ResidualEncoderUNet" if residual else "unet.PlainConvUNet"
    return {
        "patch_size": patch_size,
        "spacing": spacing,
        "batch_size": 2,
        "architecture": {
            "network_class_name": f"dynamic_network_architectures.architectures.{name}",
            "arch_kwargs": {
                "n_stages": 6,
                "features_per_stage": [32, 64, 128, 256, 320, 320],
                "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
                "kernel_sizes": [[3] * dims] * 6,
                "strides": [[1] * dims] + [[2] * dims] * 5,
                "n_conv_per_stage_decoder": [1 if residual else 2] * 5,
                "conv_bias": True,
                "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
                "norm_op_kwargs": {"eps": 1e-05, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
                **blocks,
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        **more,
    }


@given(
    sides=st.lists(st.integers(16, 320), min_size=2, max_size=3),
    spacing=st.lists(st.floats(0.3, 8), min_size=3, max_size=3),
)
def test_patch_fits_the_budget_and_never_grows_beyond_padding(sides, spacing):
    patch = quick_patch_size(sides, spacing[: len(sides)])
    if math.prod(sides) > VOXELS_PER_PATCH[len(sides)]:
        assert math.prod(patch) <= VOXELS_PER_PATCH[len(sides)]
    else:
        assert all(length >= side for length, side in zip(patch, sides, strict=True))
        assert math.prod(patch) <= 2 * math.prod(sides)


def test_patch_that_fits_already_is_kept():
    assert quick_patch_size([40, 56, 40], [1, 1, 1]) == (40, 56, 40)


def test_anisotropic_patch_keeps_its_thin_axis():
    patch = quick_patch_size([20, 256, 224], [5.0, 1.5, 1.5])
    assert patch[0] >= 8
    assert patch[1] > 2 * patch[0]
    assert math.prod(patch) <= VOXELS_PER_PATCH[3]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("patch_size", "spacing"), [([128, 128, 128], [1, 1, 1]), ([512, 448], [1, 1])])
def test_network_of_the_preset_runs_on_its_patch(patch_size, spacing, residual):
    base = resolved(patch_size, spacing, residual)
    quick = quick_configuration({"configurations": {"base": base}}, "base", base)
    architecture = quick["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        3,
        deep_supervision=False,
    )
    with torch.no_grad():
        output = network(torch.zeros(1, 1, *quick["patch_size"]))
    assert output.shape == (1, 3, *quick["patch_size"])
    assert sum(parameter.numel() for parameter in network.parameters()) < 2_000_000
    assert quick["inherits_from"] == "base"
    validated_settings(quick["nnunet_ext"], where="the preset")
    assert base["architecture"]["arch_kwargs"]["n_stages"] == 6, "the base must not change"


def test_a_cascade_is_refused_with_what_to_use_instead():
    base = resolved([64] * 3, [1] * 3, previous_stage="3d_lowres")
    plans = {"configurations": {"3d_lowres": {}, "3d_cascade_fullres": base}}
    with pytest.raises(UserError, match=r"second stage of a cascade.*Use it on 3d_lowres"):
        quick_configuration(plans, "3d_cascade_fullres", base)


def test_one_number_of_blocks_is_that_of_every_stage():
    base = resolved([64] * 3, [1] * 3)
    base["architecture"]["arch_kwargs"].update(n_conv_per_stage=1, n_conv_per_stage_decoder=3)
    kwargs = quick_configuration({"configurations": {"base": base}}, "base", base)["architecture"]["arch_kwargs"]
    assert kwargs["n_conv_per_stage"] == [1] * kwargs["n_stages"]
    assert kwargs["n_conv_per_stage_decoder"] == [2] * (kwargs["n_stages"] - 1)


@pytest.mark.parametrize("key", ["n_conv_per_stage", "n_conv_per_stage_decoder"])
def test_an_unknown_network_is_refused(key):
    """The second key is one that STU-Net does not have."""
    base = resolved([64] * 3, [1] * 3)
    del base["architecture"]["arch_kwargs"][key]
    with pytest.raises(UserError, match=r"knows PlainConvUNet and ResidualEncoderUNet"):
        quick_configuration({"configurations": {"base": base}}, "base", base)
