"""Holding a network near the weights that its fine-tuning starts from, against forgetting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Anchor:
    """The weights w₀ that a fine-tuning starts from, and which of their entries the source had.

    Args:
        start: the weights, by name. They are copied; entries that the source did not have count as 0.
        known: bool, by name, broadcast to the weight's shape: the entries that come from the source. Weights of which
            the source had nothing are left out.

    Source: L2-SP, arXiv 1802.01483.
    """

    def __init__(self, start: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> None:
        names = [name for name in start if known[name].any()]
        # most weights come from the source whole
        self.partly_known = {name: known[name].to(start[name].device) for name in names if not known[name].all()}
        self.start = {name: start[name].detach().clone() for name in names}
        for name, mask in self.partly_known.items():
            self.start[name] *= mask

    def penalty(self, parameters: Mapping[str, Tensor], *, strength: float, decay: float) -> Tensor:
        """λ Σ (w − w₀)² over the entries that the source had, and ½ β Σ w² over the others of the same tensors.

        An optimizer has one weight decay for a tensor, so that of the new entries of a tensor that is held in part is a
        term of the loss, too. Tensors that are all new are left to the optimizer.

        Args:
            parameters: the weights now, by name.
            strength: λ, above 0.
            decay: β, the weight decay of new entries.

        Returns:
            A scalar.
        """
        factors = {
            place: torch.where(self.partly_known[name], 1.0, decay / (2 * strength))
            for place, name in enumerate(self.start)
            if name in self.partly_known
        }
        weights = [parameters[name] for name in self.start]
        for (name, start), weight in zip(self.start.items(), weights):
            if start.stride() != weight.stride():  # after a change of the memory format; else each goes by itself
                self.start[name] = torch.empty_like(weight).copy_(start)
        return strength * _WeightedSquares.apply([*self.start.values()], factors, *weights)

    def state(self) -> dict[str, Any]:
        """For a checkpoint, so that the source is not needed to go on."""
        return {"start": self.start, "known": self.partly_known}

    @classmethod
    def from_state(cls, state: Mapping[str, Mapping[str, Tensor]], device: torch.device) -> Anchor:
        """Take back what `state` gave."""
        start = {name: tensor.to(device) for name, tensor in state["start"].items()}
        return cls(start, {**dict.fromkeys(start, torch.tensor(True)), **state["known"]})


class _WeightedSquares(torch.autograd.Function):
    """Σ f (w − w₀)² over many tensors, by a few operations on all of them: one for each is what small ones cost."""

    @staticmethod
    def forward(ctx: Any, starts: list[Tensor], factors: Mapping[int, Tensor], *weights: Tensor) -> Tensor:
        pulls = [*torch._foreach_sub(weights, starts)]
        norms = [*torch._foreach_norm(pulls)]
        for place, factor in factors.items():
            norms[place] = (pulls[place].square() * factor).sum().sqrt()
            pulls[place] = pulls[place] * factor
        ctx.save_for_backward(*pulls)
        return torch.stack(norms).square().sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *torch._foreach_mul([*ctx.saved_tensors], 2 * gradient)
