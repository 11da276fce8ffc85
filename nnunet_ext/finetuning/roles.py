"""What each parameter of a network is, told by the type of the module that owns it."""

from collections.abc import Iterator
from enum import Enum

from dynamic_network_architectures.building_blocks.patch_encode_decode import LayerNormNd
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED_CONVOLUTIONS = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NORMALIZATIONS = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, LayerNormNd)


class Role(str, Enum):
    """What a parameter is. Everything of a segmentation head is ``HEAD``; what no known layer owns (positional
    embeddings, class tokens) is ``OTHER``."""

    CONVOLUTION = "convolution"
    TRANSPOSED_CONVOLUTION = "transposed convolution"
    LINEAR = "linear"
    NORMALIZATION = "normalization"
    NORMALIZATION_BIAS = "normalization bias"
    BIAS = "bias"
    HEAD = "head"
    OTHER = "other"


KERNELS = frozenset({Role.CONVOLUTION, Role.TRANSPOSED_CONVOLUTION, Role.LINEAR})
"""The roles of weight tensors with one row for each output."""


def decoders(network: nn.Module) -> Iterator[tuple[nn.Module, nn.ModuleList]]:
    """The decoders of a network, each with its segmentation heads, which it holds in a list ``seg_layers``."""
    for module in network.modules():
        heads = getattr(module, "seg_layers", None)
        if isinstance(heads, nn.ModuleList):
            yield module, heads


def head_modules(network: nn.Module) -> list[nn.Module]:
    """The segmentation heads of every decoder and every resolution; a ValueError if none is recognised."""
    heads = [head for _, heads in decoders(network) for head in heads]
    if not heads:
        raise ValueError(
            f"{type(network).__name__} has no segmentation heads that could be recognised: modules in a list "
            "`seg_layers` of a decoder, as in nnU-Net's PlainConvUNet and ResidualEncoderUNet."
        )
    return heads


def parameter_roles(network: nn.Module) -> dict[str, Role]:
    """The role of each parameter of a network, neither compiled nor wrapped.

    Returns:
        Roles by name, in the order and with the names of ``network.named_parameters()``: a tensor that the network
        holds under several names is there once.

    Raises:
        ValueError: if the network has no segmentation heads that could be recognised.
    """
    roles: dict[int, Role] = {}
    for module in network.modules():
        roles |= {id(parameter): _role_in(module, name) for name, parameter in module.named_parameters(recurse=False)}
    roles |= {id(parameter): Role.HEAD for head in head_modules(network) for parameter in head.parameters()}
    return {name: roles[id(parameter)] for name, parameter in network.named_parameters()}


def _role_in(module: nn.Module, name: str) -> Role:
    """The role of a module's own parameter."""
    if isinstance(module, NORMALIZATIONS):
        return Role.NORMALIZATION_BIAS if name == "bias" else Role.NORMALIZATION
    kernels = {
        CONVOLUTIONS: Role.CONVOLUTION,
        TRANSPOSED_CONVOLUTIONS: Role.TRANSPOSED_CONVOLUTION,
        (nn.Linear,): Role.LINEAR,
    }
    role = next((role for types, role in kernels.items() if isinstance(module, types)), Role.OTHER)
    return Role.BIAS if name == "bias" and role is not Role.OTHER else role


def decoder_parameter_names(network: nn.Module) -> set[str]:
    """Names, as in ``network.named_parameters()``, of what belongs to a decoder, heads included.

    nnU-Net's decoders hold a reference to the encoder, which does not belong to them.
    """
    found = [decoder for decoder, _ in decoders(network)]
    encoders = [encoder for one in found if isinstance(encoder := getattr(one, "encoder", None), nn.Module)]
    of_decoders, of_encoders = ({id(p) for one in part for p in one.parameters()} for part in (found, encoders))
    return {name for name, parameter in network.named_parameters() if id(parameter) in of_decoders - of_encoders}
