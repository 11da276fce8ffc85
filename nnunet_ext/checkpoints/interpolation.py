"""A model between the one that a fine-tuning started from and the one that it gave, against forgetting."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from nnunet_ext.checkpoints.adaptation import aliases
from nnunet_ext.checkpoints.outcome import Adaptation
from nnunet_ext.errors import UserError
from nnunet_ext.messages import listed


def interpolated(
    start: Adaptation, tuned: Mapping[str, Tensor], amount: float, *, tuned_file: Path
) -> dict[str, Tensor]:
    """(1 − A) w₀ + A w in the entries that the source had, and w in the others.

    Args:
        start: w₀, the source's weights for the network that was tuned.
        tuned: w, by name.
        amount: A, from 0 (the source's) to 1 (the tuned ones, bit for bit).
        tuned_file: for messages.

    Returns:
        A complete state dict.

    Raises:
        UserError: if the tuned weights are not of the network that `start` is for.

    Source: WiSE-FT, arXiv 2109.01903.
    """
    shapes, own = ({key: tuple(one.shape) for key, one in weights.items()} for weights in (tuned, start.weights))
    if differing := [key for key in {**own, **shapes} if shapes.get(key) != own.get(key)]:
        raise UserError(
            f"{tuned_file} is not of the network that --to, --plans and --trainer name; {len(differing)} tensors "
            f"differ:{listed(differing)}\nName the dataset, the configuration, the plans and the trainer of the tuned "
            "model."
        )
    result: dict[str, Tensor] = {}
    for keys, value in aliases(start.weights):
        between = _between(value, tuned[keys[0]], start.known[keys[0]], amount)
        result.update(dict.fromkeys(keys, between))
    return {key: result[key] for key in start.weights}


def _between(start: Tensor, tuned: Tensor, known: Tensor, amount: float) -> Tensor:
    if not tuned.is_floating_point():  # counters of batch normalisation
        return tuned.clone()
    return torch.where(known, torch.lerp(start.to(tuned.dtype), tuned, amount), tuned)
