"""The architecture of a U-Net of nnU-Net, told from the names and shapes of its weights."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from nnunet_ext.formats.plans import dimensions

UNET = "dynamic_network_architectures.architectures.unet"
PLAIN, RESIDUAL = f"{UNET}.PlainConvUNet", f"{UNET}.ResidualEncoderUNet"
IMPORTED = ["conv_op", "norm_op", "dropout_op", "nonlin"]
"""The arguments of a network that name classes."""


def unet_architecture(
    class_name: str,
    *,
    kernel_sizes: Sequence[Sequence[int]],
    strides: Sequence[Sequence[int]],
    features: Sequence[int],
    blocks: Sequence[int],
    decoder_convs: Sequence[int],
    conv_bias: bool = True,
) -> dict[str, Any]:
    """A U-Net of nnU-Net as plans describe it, with instance normalisation and leaky ReLU.

    Args:
        class_name: `PLAIN` or `RESIDUAL`.
        kernel_sizes: of each stage, for each dimension.
        strides: of each stage, for each dimension.
        features: of each stage.
        blocks: convolutions of each stage of the encoder, residual blocks in a residual one.
        decoder_convs: convolutions of each stage of the decoder, one stage fewer.
        conv_bias: whether convolutions have a bias.
    """
    dims = len(kernel_sizes[0])
    return {
        "network_class_name": class_name,
        "arch_kwargs": {
            "n_stages": len(features),
            "features_per_stage": list(features),
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [list(size) for size in kernel_sizes],
            "strides": [list(stride) for stride in strides],
            "n_conv_per_stage" if class_name == PLAIN else "n_blocks_per_stage": list(blocks),
            "n_conv_per_stage_decoder": list(decoder_convs),
            "conv_bias": conv_bias,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": list(IMPORTED),
    }


def architecture_from_shapes(weights: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """The architecture of a plain or residual-encoder U-Net, None if the weights are of another network.

    Strides are those of the transposed convolutions of the decoder. Without a decoder they are assumed to be 2, with as
    many decoder convolutions as nnU-Net plans. What shapes do not tell is as nnU-Net plans it: instance normalisation,
    leaky ReLU.

    Args:
        weights: by name, under the names of nnU-Net's networks.
    """
    is_residual = any(re.match(r"encoder\.stages\.\d+\.blocks\.", key) for key in weights)
    convolution = r"blocks\.(\d+)\.conv1\.conv" if is_residual else r"0\.convs\.(\d+)\.conv"
    stages = numbered_weights(weights, rf"encoder\.stages\.(\d+)\.{convolution}\.weight")
    has_batch_norm = any(key.endswith(".running_mean") for key in weights)
    if not stages or sorted(stages) != list(range(len(stages))) or has_batch_norm:
        return None
    first = [one[min(one)] for _, one in sorted(stages.items())]
    dims = first[0].ndim - 2
    decoder = numbered_weights(weights, r"decoder\.stages\.(\d+)\.convs\.(\d+)\.conv\.weight")
    ups = numbered_weights(weights, r"decoder\.transpconvs\.(\d+)()\.weight")
    steps = [list(ups[level][0].shape[2:]) for level in sorted(ups, reverse=True)]
    has_decoder = len(steps) == len(first) - 1 == len(decoder)
    return unet_architecture(
        RESIDUAL if is_residual else PLAIN,
        kernel_sizes=[list(weight.shape[2:]) for weight in first],
        strides=[[1] * dims, *(steps if has_decoder else [[2] * dims] * (len(first) - 1))],
        features=[weight.shape[0] for weight in first],
        blocks=[len(one) for _, one in sorted(stages.items())],
        decoder_convs=[len(one) for _, one in sorted(decoder.items())]
        if has_decoder
        else [1 if is_residual else 2] * (len(first) - 1),
        conv_bias=any(re.match(rf"encoder\.stages\.0\.{convolution}\.bias", key) for key in weights),
    )


def contradictions(architecture: Mapping[str, Any], weights: Mapping[str, Tensor]) -> list[str]:
    """Where the encoder of some weights is not the one that an architecture describes; empty for another network."""
    found = architecture_from_shapes(weights)
    if found is None:
        return []
    said, seen = architecture["arch_kwargs"], found["arch_kwargs"]
    keys = ("n_stages", "features_per_stage", "kernel_sizes", "n_conv_per_stage", "n_blocks_per_stage")
    return [
        f"{key}: the plans say {as_lists(said[key])}, the weights {as_lists(seen[key])}"
        for key in keys
        if key in said and key in seen and _per_stage(said, key) != _per_stage(seen, key)
    ]


def numbered_weights(weights: Mapping[str, Tensor], pattern: str) -> dict[int, dict[int, Tensor]]:
    """The tensors whose names match, by the two numbers in them (an empty one is 0)."""
    result: dict[int, dict[int, Tensor]] = {}
    for key, tensor in weights.items():
        if match := re.fullmatch(pattern, key):
            result.setdefault(int(match[1]), {})[int(match[2] or 0)] = tensor
    return result


def as_lists(value: Any) -> Any:
    """A value with its tuples as lists, as JSON would give it back."""
    return [as_lists(one) for one in value] if isinstance(value, (list, tuple)) else value


def _per_stage(arguments: Mapping[str, Any], key: str) -> Any:
    """An argument with a value for each stage, and for each dimension where that counts."""
    value = as_lists(arguments[key])
    if key == "n_stages":
        return value
    stages = arguments["n_stages"]
    values = value if isinstance(value, list) else [value] * stages
    if key != "kernel_sizes":
        return values
    dims = dimensions(str(arguments["conv_op"]))
    return [one if isinstance(one, list) else [one] * dims for one in values]
