"""Holding a network near the weights that its fine-tuning starts from, against forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Anchor:
    """The weights w₀ that a fine-tuning starts from, and which of their entries the source had.

    Args:
        start: the weights, by name. They are copied.
        known: bool, by name, broadcast to the weight's shape: the entries that come from the source. Weights of which
            the source had nothing are left out.

    Source: L2-SP, arXiv 1802.01483.
    """

    def __init__(self, start: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
        names = [name for name in start if known[name].any()]
        self.start = {name: start[name].detach().clone() for name in names}
        # most weights come from the source whole
        self.partly_known = {name: known[name].to(start[name].device) for name in names if not known[name].all()}

    def square_distance(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Σ (w − w₀)² over the entries that the source had, a scalar; `parameters` are the weights now, by name."""
        squares = []
        for name, start in self.start.items():
            difference = parameters[name] - start
            if name in self.partly_known:
                difference = difference * self.partly_known[name]
            squares.append(difference.square().sum())
        return torch.stack(squares).sum()

    def state(self) -> dict[str, Any]:
        """For a checkpoint, so that the source is not needed to go on."""
        return {"start": self.start, "known": self.partly_known}

    @classmethod
    def from_state(cls, state: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> Anchor:
        """Take back what `state` gave."""
        start = {name: tensor.to(device) for name, tensor in state["start"].items()}
        return cls(start, {**dict.fromkeys(start, torch.tensor(True)), **state["known"]})
