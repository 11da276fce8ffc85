"""The strategies of fine-tuning: for every parameter whether it moves freely, in selected entries, or not at all."""

from collections.abc import Callable
from enum import Enum

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from nnunet_ext.finetuning.roles import KERNELS, Role, decoder_parameter_names, parameter_roles


class Freedom(Enum):
    """How a parameter may move."""

    FREE = "all entries"
    SELECTED = "selected entries"
    FROZEN = "frozen"


Strategy = Callable[[nn.Module], dict[str, Freedom]]
"""From a network, neither compiled nor wrapped, to the freedom of each parameter by its name.

Raises ValueError if the network has no segmentation heads that could be recognised. Heads always move: a new task
begins with new ones.
"""


def full(network: nn.Module) -> dict[str, Freedom]:
    """Everything moves."""
    return dict.fromkeys(parameter_roles(network), Freedom.FREE)


def head_only(network: nn.Module) -> dict[str, Freedom]:
    """Segmentation heads move."""
    return _by_role(network, free={Role.HEAD})


def decoder_only(network: nn.Module) -> dict[str, Freedom]:
    """Decoders move, their heads included."""
    of_decoders = decoder_parameter_names(network)
    return {name: Freedom.FREE if name in of_decoders else Freedom.FROZEN for name in parameter_roles(network)}


def bias_only(network: nn.Module) -> dict[str, Freedom]:
    """Biases of every layer, and heads, move."""
    return _by_role(network, free={Role.BIAS, Role.NORMALIZATION_BIAS, Role.HEAD})


def norm_only(network: nn.Module) -> dict[str, Freedom]:
    """Normalisations, and heads, move."""
    return _by_role(network, free={Role.NORMALIZATION, Role.NORMALIZATION_BIAS, Role.HEAD})


def dgst(network: nn.Module) -> dict[str, Freedom]:
    """Kernels move in selected entries; normalisations, biases and heads move; embeddings and tokens do not.

    Source: arXiv 2503.00748.
    """
    free = {Role.NORMALIZATION, Role.NORMALIZATION_BIAS, Role.BIAS, Role.HEAD}
    return _by_role(network, free=free, selected=KERNELS)


def _by_role(network: nn.Module, *, free: set[Role], selected: frozenset[Role] = frozenset()) -> dict[str, Freedom]:
    freedoms = {
        role: Freedom.FREE if role in free else Freedom.SELECTED if role in selected else Freedom.FROZEN
        for role in Role
    }
    return {name: freedoms[role] for name, role in parameter_roles(network).items()}


def frozen_weights(network: nn.Module, freedoms: dict[str, Freedom]) -> set[str]:
    """The frozen parameters that have to come from the source.

    Normalisations and biases may be missing there: before they are trained they do nothing.
    """
    roles = parameter_roles(network)
    harmless = {Role.NORMALIZATION, Role.NORMALIZATION_BIAS, Role.BIAS}
    return {name for name, one in freedoms.items() if one is Freedom.FROZEN and roles[name] not in harmless}


def freeze(network: nn.Module, freedoms: dict[str, Freedom]) -> None:
    """Let autograd leave out the frozen parameters, so that they cost no gradient and no optimizer touches them."""
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(freedoms[name] is not Freedom.FROZEN)


def freeze_statistics(network: nn.Module) -> None:
    """Have normalisations whose weight is frozen use the statistics that they have, and not learn the batches'.

    ``network.train()`` lets them learn again. Of nnU-Net's own networks none has such statistics.
    """
    for module in network.modules():
        if isinstance(module, _NormBase) and module.weight is not None and not module.weight.requires_grad:
            module.eval()
