"""Optimizers whose step leaves unselected entries bit for bit as they are.

A gradient of zero does not keep a weight in its place: momentum and weight decay go on moving it. Here the optimizer's
state is updated as ever, and the weight takes the new value in its selected entries alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from nnunet_ext.sparsity.entries import Entries


class StrictStep(torch.optim.Optimizer):
    """Mixin for an optimizer of torch: what is in `selected` moves in those entries only, all else as usual.

    Tensors with a selection are stepped one after the other, so that the copy which holds the old values is never
    larger than one of them.
    """

    selected: dict[torch.Tensor, Entries]
    """The entries that the next step may move, by parameter; a parameter that is not in it moves freely."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.selected = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure`, if given, is called once, to compute loss and gradients anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = self.param_groups
        free = [[tensor for tensor in group["params"] if tensor not in self.selected] for group in groups]
        with self._only([{**group, "params": tensors} for group, tensors in zip(groups, free)]):
            super().step()
        for group in groups:
            for tensor in group["params"]:
                if tensor in self.selected and tensor.grad is not None:
                    self._step_selected(tensor, group)
        return loss

    def _step_selected(self, tensor: torch.Tensor, group: dict[str, Any]) -> None:
        entries = self.selected[tensor]
        before = tensor.clone()
        with self._only([{**group, "params": [tensor]}]):
            super().step()
        moved = tensor[entries]
        tensor.copy_(before)
        tensor[entries] = moved

    @contextmanager
    def _only(self, groups: list[dict[str, Any]]) -> Iterator[None]:
        """Let the optimizer see these parameter groups alone."""
        all_groups = self.param_groups
        self.param_groups = groups
        try:
            yield
        finally:
            self.param_groups = all_groups

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "selected": {}}


class StrictSGD(StrictStep, torch.optim.SGD):
    """torch's SGD, with momentum, Nesterov's or not, and weight decay."""


class StrictAdamW(StrictStep, torch.optim.AdamW):
    """torch's AdamW."""
