"""Low-rank adapters on convolutions, by the library ``peft``, with the state dict of the plain network.

The weight of an adapted layer is W + (alpha / r) · B·A with W frozen (arXiv 2106.09685); A has the layer's kernel and
r outputs, B is a convolution with a kernel of one. To whoever saves or loads, an adapted network looks like the plain
one: saving gives the sum, loading sets W and B = 0.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import Tensor, nn

from nnunet_ext.errors import UserError
from nnunet_ext.finetuning.roles import head_modules

ADAPTABLE = (nn.Conv2d, nn.Conv3d)
"""peft knows no adapter for transposed convolutions."""

ADAPTER = "default"


_NAMES_ALONE = ContextVar("names_alone", default=False)


@contextmanager
def names_alone() -> Iterator[None]:
    """Have state dicts hold the frozen weights without the sums, while only their names are read.

    nnU-Net asks for the state dict once for each tensor of a checkpoint that it loads.
    """
    token = _NAMES_ALONE.set(True)
    try:
        yield
    finally:
        _NAMES_ALONE.reset(token)


def add_adapters(network: nn.Module, *, rank: int, alpha: float, dropout: float) -> None:
    """Put an adapter on every convolution but the segmentation heads, in place; the output stays what it was.

    Args:
        network: neither compiled nor wrapped.
        rank: r, at least 1.
        alpha: the adapter's factor is alpha / r.
        dropout: probability that an input of the adapter is dropped in training.

    Raises:
        UserError: if peft is not installed.
        ValueError: if a convolution is of a kind for which peft's adapter is not its low-rank update: dilated, grouped
            or not padded with zeros.
    """
    heads = {module for head in head_modules(network) for module in head.modules()}
    modules = network.named_modules()
    targets = [(name, one) for name, one in modules if isinstance(one, ADAPTABLE) and one not in heads]
    for name, module in targets:
        if any(step != 1 for step in module.dilation) or module.groups != 1 or module.padding_mode != "zeros":
            raise ValueError(f"No low-rank adapter for {name}: it is dilated, grouped or not padded with zeros.")
    try:
        # here and not above: it takes seconds, and the libraries behind it upset nnU-Net's search for trainers
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        missing = f"nnUNetTrainerLoRA needs the library peft, which cannot be imported ({error})"
        raise UserError(f"{missing}. Install it: pip install -U peft") from None
    names = [name for name, _ in targets]
    config = LoraConfig(r=rank, lora_alpha=cast(int, alpha), lora_dropout=dropout, bias="none", target_modules=names)
    inject_adapter_in_model(config, network, adapter_name=ADAPTER)
    _follow_aliases(network)
    _save_as_plain(network)
    for layer in adapted_layers(network):
        layer.register_load_state_dict_pre_hook(_load_from_plain)
        layer.cast_input_dtype_enabled = False  # type: ignore[assignment]  # autocast does, and to half precision


def adapted_layers(network: nn.Module) -> Iterator[nn.Module]:
    """The layers that have an adapter, in the order of ``network.modules()``."""
    for module in network.modules():
        if isinstance(getattr(module, "base_layer", None), ADAPTABLE) and hasattr(module, "lora_A"):
            yield module


def plain_name(name: str) -> str:
    """What a parameter of an adapted network is called in the plain one: adapters have no name there."""
    return name.replace(".base_layer.", ".")


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return ".lora_" in name


def _follow_aliases(network: nn.Module) -> None:
    """Put the adapted layer wherever the network holds the plain one: nnU-Net's blocks hold a convolution twice."""
    adapted = {id(layer.base_layer): layer for layer in adapted_layers(network)}
    for module in list(network.modules()):
        for name, child in module.named_children():
            layer = adapted.get(id(child))
            if layer is not None and layer is not module:
                setattr(module, name, layer)


def low_rank_update(layer: Any) -> Tensor:
    """(alpha / r) · B·A of an adapted layer, in the shape of its weight.

    Not peft's own ``get_delta_weight``, which fails on a 3D convolution with a kernel of one (0.21).
    """
    down, up = layer.lora_A[ADAPTER].weight.detach(), layer.lora_B[ADAPTER].weight.detach()
    update = layer.scaling[ADAPTER] * up.flatten(1) @ down.flatten(1)
    return update.view(layer.base_layer.weight.shape)


def _save_as_plain(network: nn.Module) -> None:
    """Have the state dict of a network with adapters hold the plain network's weights.

    A layer has one tensor under all of its names there, as in the plain network: who reads a file tells the names of
    one weight by that, and a file holds it once.
    """
    sums: dict[nn.Module, Tensor] | None = None  # of the state dict in the making; None for that of a part

    def begin(*unused: Any) -> None:
        nonlocal sums
        sums = {}

    def end(*unused: Any) -> None:
        nonlocal sums
        sums = None

    def summed(layer: Any, weight: Tensor) -> Tensor:
        if _NAMES_ALONE.get():
            return weight
        if sums is None:
            return weight + low_rank_update(layer)
        if layer not in sums:
            sums[layer] = weight + low_rank_update(layer)
        return sums[layer]

    def save(layer: Any, state: MutableMapping[str, Any], prefix: str, metadata: Any) -> None:
        for key in [key for key in state if key.startswith(prefix)]:
            value = state.pop(key)
            if key == f"{prefix}base_layer.weight":
                state[f"{prefix}weight"] = summed(layer, value)
            elif key == f"{prefix}base_layer.bias":
                state[f"{prefix}bias"] = value

    network.register_state_dict_pre_hook(begin)
    for layer in adapted_layers(network):
        layer.register_state_dict_post_hook(save)
    network.register_state_dict_post_hook(end)


def _load_from_plain(layer: Any, state: MutableMapping[str, Any], prefix: str, *unused: Any) -> None:
    for part in ("weight", "bias"):
        if f"{prefix}{part}" in state:
            state[f"{prefix}base_layer.{part}"] = state.pop(f"{prefix}{part}")
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    state[f"{prefix}lora_A.{ADAPTER}.weight"] = down.detach()
    state[f"{prefix}lora_B.{ADAPTER}.weight"] = torch.zeros_like(up)


def raw_parameters(network: nn.Module) -> dict[str, Tensor]:
    """Copies of the frozen weights and the adapters apart, which the state dict does not tell apart."""
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


@torch.no_grad()
def load_raw_parameters(network: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Take back what `raw_parameters` gave."""
    for name, parameter in network.named_parameters():
        parameter.copy_(parameters[name])
