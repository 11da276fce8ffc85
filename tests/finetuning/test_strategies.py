import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_ext.finetuning import strategies
from nnunet_ext.finetuning.entries import Rows
from nnunet_ext.finetuning.roles import Role, parameter_roles
from nnunet_ext.finetuning.strategies import Freedom, freeze


def unet(*, dims: int, residual: bool = False, deep_supervision: bool = True, kernel_sizes=3) -> nn.Module:
    convolution = {2: nn.Conv2d, 3: nn.Conv3d}[dims]
    norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[dims]
    arguments = {
        "input_channels": 2,
        "n_stages": 3,
        "features_per_stage": [4, 8, 16],
        "conv_op": convolution,
        "kernel_sizes": kernel_sizes,
        "strides": [1, 2, 2],
        "num_classes": 3,
        "n_conv_per_stage_decoder": [1, 1],
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"affine": True},
        "nonlin": nn.LeakyReLU,
        "deep_supervision": deep_supervision,
    }
    if residual:
        return ResidualEncoderUNet(n_blocks_per_stage=[1, 1, 1], **arguments)
    return PlainConvUNet(n_conv_per_stage=[1, 1, 1], **arguments)


NETWORKS = [(dims, residual) for dims in (2, 3) for residual in (False, True)]


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_roles_agree_with_the_names_that_nnunet_gives(dims, residual):
    roles = parameter_roles(unet(dims=dims, residual=residual))
    for name, role in roles.items():
        if ".seg_layers." in name:
            expected = Role.HEAD
        elif ".norm." in name:
            expected = Role.NORMALIZATION_BIAS if name.endswith("bias") else Role.NORMALIZATION
        elif name.endswith("bias"):
            expected = Role.BIAS
        else:
            expected = Role.TRANSPOSED_CONVOLUTION if ".transpconvs." in name else Role.CONVOLUTION
        assert role is expected, name
    assert set(roles.values()) == {*Role} - {Role.LINEAR, Role.OTHER}


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_what_each_strategy_lets_move(dims, residual):
    network = unet(dims=dims, residual=residual)
    names = [name for name, _ in network.named_parameters()]
    expected = {
        strategies.full: set(names),
        strategies.head_only: {n for n in names if ".seg_layers." in n},
        strategies.decoder_only: {n for n in names if n.startswith("decoder.")},
        strategies.bias_only: {n for n in names if n.endswith(".bias") or ".seg_layers." in n},
        strategies.norm_only: {n for n in names if ".norm." in n or ".seg_layers." in n},
    }
    for strategy, free in expected.items():
        freedoms = strategy(network)
        assert list(freedoms) == names
        assert {n for n in names if freedoms[n] is Freedom.FREE} == free
        assert Freedom.SELECTED not in freedoms.values()
        freeze(network, freedoms)
        assert {n for n, parameter in network.named_parameters() if parameter.requires_grad} == free


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_dgst_selects_in_kernels_and_frees_the_rest(dims, residual):
    freedoms = strategies.dgst(unet(dims=dims, residual=residual))
    for name, freedom in freedoms.items():
        is_kernel = name.endswith(".weight") and ".norm." not in name and ".seg_layers." not in name
        assert freedom is (Freedom.SELECTED if is_kernel else Freedom.FREE), name


def test_sparsity_of_the_stock_network():
    with torch.device("meta"):
        network = PlainConvUNet(
            1, 6, [32, 64, 128, 256, 320, 320], nn.Conv3d, 3, [1, 2, 2, 2, 2, 2], 2, 2, 2, conv_bias=True,
            norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=True,
        )  # fmt: skip
    freedoms = strategies.dgst(network)
    rows = [Rows.of(m).count for m in {*network.modules()} if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d))]
    heads = 5 * 2
    # two convolutions a stage, 1120 channels down and 800 up, and a transposed one for each of the 800
    assert sum(rows) - heads == 2 * 1120 + 2 * 800 + 800 == 4640
    # the published count of 4,928 takes a transposed convolution's rows by its 1,088 inputs
    assert sum(rows) - heads - 800 + 1088 == 4928
    selected = sum(p.numel() for n, p in network.named_parameters() if freedoms[n] is Freedom.SELECTED)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 31.2
    assert round(100 * 4640 / selected, 3) == 0.015


class Tokens(nn.Module):
    """A network with parameters of every other kind: linear layers, a norm of its own and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4))
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 4)
        self.decoder = nn.Module()
        self.decoder.seg_layers = nn.ModuleList([nn.Linear(4, 2)])


def test_embeddings_are_frozen_and_linear_layers_selected():
    freedoms = strategies.dgst(Tokens())
    assert freedoms["position"] is Freedom.FROZEN
    assert freedoms["linear.weight"] is Freedom.SELECTED
    assert freedoms["norm.weight"] is freedoms["norm.bias"] is freedoms["linear.bias"] is Freedom.FREE
    assert freedoms["decoder.seg_layers.0.weight"] is Freedom.FREE


def test_a_network_without_heads_is_refused():
    with pytest.raises(ValueError, match="Sequential has no segmentation heads"):
        strategies.full(nn.Sequential(nn.Conv2d(1, 2, 3)))


def test_every_decoder_counts():
    network = nn.Module()
    network.first, network.second = (unet(dims=2, residual=False).decoder for _ in range(2))
    freedoms = strategies.decoder_only(network)
    moving = {name for name, freedom in freedoms.items() if freedom is Freedom.FREE}
    assert moving == {name for name in freedoms if ".encoder." not in name}
    assert {name.split(".")[0] for name in moving} == {"first", "second"}
