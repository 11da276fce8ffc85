"""Dynamic gradient sparsification."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nnunet_ext.trainers import nnUNetTrainerDGST as DGST
from support.settings import Case, last_kernel
from support.settings.fine_tuning import ANYHOW


def step_of_dgst(trainer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of a kernel as (rows, entries of a row), and which of its entries a step has moved."""
    torch.manual_seed(3)
    trainer.shared_rng = np.random.default_rng(0)
    weight = last_kernel(trainer)
    for parameter in trainer.network.parameters():
        parameter.grad = torch.randn_like(parameter)
    gradient, before = weight.grad.clone(), weight.detach().clone()
    trainer.edit_gradients()
    trainer.optimizer_step()
    rows = trainer.rows[weight]
    return rows.matrix(gradient), rows.matrix(weight.detach() != before)


def moved_in_a_row(trainer: Any) -> list[int]:
    """The smallest and largest number of entries that a step moves in a row of a kernel."""
    counts = step_of_dgst(trainer)[1].sum(dim=1)
    return [int(counts.min()), int(counts.max())]


def moves_whole_rows(trainer: Any) -> bool:
    return bool(step_of_dgst(trainer)[1].all())


def moves_the_largest(trainer: Any) -> bool:
    gradient, moved = step_of_dgst(trainer)
    return torch.equal(gradient.abs().argmax(dim=1), moved.int().argmax(dim=1))


def rate_of_kernels_by_that_of_norms(trainer: Any) -> float:
    trainer.load_start()
    trainer.lr_scheduler.step(0)
    norm = next(one for name, one in trainer.network.named_parameters() if name.endswith("norm.weight"))
    rates = {id(one): group["lr"] for group in trainer.optimizer.param_groups for one in group["params"]}
    return rates[id(last_kernel(trainer))] / rates[id(norm)]


CASES = {
    "dgst.top_k": Case(DGST, 3, moved_in_a_row, [3, 3]),
    "dgst.mode": Case(DGST, "grad_mask", moves_whole_rows, True, {"weight_decay": 0.5}),
    "dgst.kernel_lr_factor": Case(DGST, 10.0, rate_of_kernels_by_that_of_norms, 10.0, ANYHOW),
    "dgst.selection": Case(DGST, "random", moves_the_largest, False),
}
