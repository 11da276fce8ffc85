"""The part of a trained network that plain nnU-Net has too."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from nnunet_ext.checkpoints.adaptation import aliases
from nnunet_ext.messages import some


@dataclass(frozen=True)
class StockWeights:
    """Weights of the plain network, and how many entries were left out by the first part of their names."""

    weights: dict[str, torch.Tensor]
    left_out: dict[str, int]


class NotStock(ValueError):
    """The plain network needs something that is not there, or of another shape."""


def stock_weights(weights: Mapping[str, torch.Tensor], stock: nn.Module) -> StockWeights:
    """The part of a state dict that the plain network has; `NotStock` names what is missing or of another shape."""
    expected = stock.state_dict()
    problems = []
    for key, tensor in expected.items():
        if key not in weights:
            problems.append(f"{key} is missing")
        elif weights[key].shape != tensor.shape:
            problems.append(f"{key} is {list(weights[key].shape)}, not {list(tensor.shape)}")
    if problems:
        raise NotStock(some(problems))
    left_out: dict[str, int] = Counter()
    for keys, tensor in aliases(weights):
        if not any(key in expected for key in keys):
            left_out[keys[0].partition(".")[0]] += tensor.numel()
    return StockWeights({key: weights[key] for key in expected}, dict(left_out))
