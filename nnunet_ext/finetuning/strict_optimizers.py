"""Optimizers for which time passes in the selected entries of a weight alone.

A gradient of zero does not keep a weight in its place: momentum and weight decay go on moving it. And an entry that is
merely kept from moving loses momentum while it waits: selected once, it goes 1.99 lr·g in place of about 100 lr·g
(Nesterov, 0.99). So each entry of a selected tensor is stepped as by an optimizer of its own, which takes a step where
the entry is selected: everything else keeps its value and its moments bit for bit, however long it waits.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from nnunet_ext.finetuning.entries import Entries, read, write


class StrictStep(torch.optim.Optimizer):
    """Mixin for an optimizer of torch: what is in `selected` moves in those entries only, all else by torch's step.

    Nothing but the selected entries is computed: those of all tensors are gathered, updated together and written back.
    """

    selected: dict[Tensor, Entries]
    """The entries, each once, that the next step moves, by parameter; a parameter that is not in it moves freely."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.selected = {}

    def begin_step(self, tensor: Tensor, group: dict[str, Any]) -> list[Tensor]:
        """Begin a step of some entries; returns what is kept of each entry between its steps, in the tensor's shape."""
        raise NotImplementedError

    @staticmethod
    def update(group: dict[str, Any], weight: Tensor, gradient: Tensor, moments: list[Tensor]) -> None:
        """One step of some entries, in place; the gradient may be overwritten. Moments are what `begin_step` gave."""
        raise NotImplementedError

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
            self._step_selected([tensor for tensor in group["params"] if tensor in self.selected], group)
        return loss

    def _step_selected(self, tensors: list[Tensor], group: dict[str, Any]) -> None:
        tensors = [tensor for tensor in tensors if tensor.grad is not None]
        if not tensors:
            return
        entries = [self.selected[tensor] for tensor in tensors]
        # weights, then each kind of moment, all in the order of the tensors
        kinds = list(zip(*([tensor, *self.begin_step(tensor, group)] for tensor in tensors)))
        gradients = torch.cat([read(cast(Tensor, one.grad), chosen) for one, chosen in zip(tensors, entries)])
        weight, *moments = (torch.cat([read(one, chosen) for one, chosen in zip(kind, entries)]) for kind in kinds)
        self.update(group, weight, gradients, moments)
        sizes = [len(chosen) for chosen in entries]
        for kind, moved in zip(kinds, [weight, *moments]):
            for one, chosen, values in zip(kind, entries, moved.split(sizes)):
                write(one, chosen, values)

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
    """SGD, with a momentum of each entry's own, Nesterov's or not, or with none, and weight decay.

    Its state has the names and shapes of torch's SGD. One that torch's SGD or an earlier version left is taken as each
    entry's own momentum.
    """

    def __init__(
        self, params: Any, *, lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)

    def begin_step(self, tensor: Tensor, group: dict[str, Any]) -> list[Tensor]:
        if group["momentum"] == 0:
            return []
        state = self.state[tensor]
        if state.get("momentum_buffer") is None:
            state["momentum_buffer"] = torch.zeros_like(tensor)
        return [state["momentum_buffer"]]

    @staticmethod
    def update(group: dict[str, Any], weight: Tensor, gradient: Tensor, moments: list[Tensor]) -> None:
        direction = gradient.add_(weight, alpha=group["weight_decay"])
        for velocity in moments:
            velocity.mul_(group["momentum"]).add_(direction)
            direction = direction.add_(velocity, alpha=group["momentum"]) if group["nesterov"] else velocity
        weight.sub_(direction, alpha=group["lr"])


class StrictAdamW(StrictStep, torch.optim.AdamW):
    """AdamW, with moments and a number of steps of each entry's own.

    Beside what torch's AdamW keeps, its state has ``selections``, the steps of each entry. Where that is missing, as in
    the state that torch's AdamW or an earlier version left, an entry with moments has taken all steps of its tensor.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def begin_step(self, tensor: Tensor, group: dict[str, Any]) -> list[Tensor]:
        state = self.state[tensor]
        if "selections" not in state:
            for name in ("exp_avg", "exp_avg_sq"):
                state.setdefault(name, torch.zeros_like(tensor))
            state.setdefault("step", torch.tensor(0.0))
            # of the weight's type, to which torch converts what it loads
            state["selections"] = ((state["exp_avg_sq"] > 0) * state["step"]).to(tensor.dtype)
        state["step"] += 1  # so that torch's AdamW can go on from this state
        return [state["exp_avg"], state["exp_avg_sq"], state["selections"]]

    @staticmethod
    def update(group: dict[str, Any], weight: Tensor, gradient: Tensor, moments: list[Tensor]) -> None:
        mean, square, steps = moments
        decay_of_mean, decay_of_square = group["betas"]
        steps.add_(1)
        mean.lerp_(gradient, 1 - decay_of_mean)
        square.lerp_(gradient.square(), 1 - decay_of_square)
        deviation = (square / (1 - decay_of_square**steps)).sqrt_().add_(group["eps"])
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.addcdiv_(mean / (1 - decay_of_mean**steps), deviation, value=-group["lr"])
