"""Which entries of a weight tensor a step moves: a few in every row, a row being what makes one output channel."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_ext.finetuning.roles import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

Entries = tuple[Tensor, ...]
"""Positions in a tensor, one index tensor for each of its dimensions: what ``tensor[entries]`` takes."""


@dataclass(frozen=True)
class Rows:
    """How the weight of a layer falls into rows, one for each output channel.

    A weight (out, in / groups, k…) of a convolution and (out, in) of a linear layer has row r in ``weight[r]``. That of
    a transposed convolution is (in, out / groups, k…): the row of output channel r is
    ``weight[g·in/groups : (g+1)·in/groups, o]`` with g, o = divmod(r, out / groups). `shape` is that of the weight.
    """

    shape: tuple[int, ...]
    is_transposed: bool = False
    groups: int = 1

    @classmethod
    def of(cls, module: nn.Module) -> Rows:
        """The rows of a module's weight; a TypeError if it is no convolution, transposed or not, and not linear."""
        if isinstance(module, (*CONVOLUTIONS, nn.Linear)):
            return cls(tuple(module.weight.shape))
        if isinstance(module, TRANSPOSED_CONVOLUTIONS):
            return cls(tuple(module.weight.shape), is_transposed=True, groups=module.groups)
        raise TypeError(f"The weight of a {type(module).__name__} has no rows that make one output channel each.")

    @property
    def count(self) -> int:
        """Number of rows, the output channels."""
        return self.shape[1] * self.groups if self.is_transposed else self.shape[0]

    @property
    def length(self) -> int:
        """Number of entries in a row."""
        return math.prod(self.shape) // self.count

    def matrix(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape as (rows, entries of a row); a copy where its memory does not allow a view."""
        if not self.is_transposed:
            return tensor.reshape(self.count, -1)
        inputs, outputs, *kernel = self.shape
        grouped = tensor.reshape(self.groups, inputs // self.groups, outputs, *kernel)
        return grouped.transpose(1, 2).reshape(self.count, -1)

    def entries(self, columns: Tensor) -> Entries:
        """Positions in the weight, index tensors (rows, k), of the entries in some columns (rows, k) of `matrix`."""
        rows = torch.arange(self.count, device=columns.device)[:, None].expand_as(columns)
        if not self.is_transposed:
            return (rows, *torch.unravel_index(columns, self.shape[1:]))
        inputs, outputs, *kernel = self.shape
        in_group, *positions = torch.unravel_index(columns, (inputs // self.groups, *kernel))
        return (rows // outputs * (inputs // self.groups) + in_group, rows % outputs, *positions)


def top_entries(gradient: Tensor, rows: Rows, k: int) -> Entries:
    """The k entries of largest magnitude in every row, all of a row that has fewer.

    Args:
        gradient: of the weight, any layout in memory.
        rows: how it falls into rows.
        k: at least 1.

    Source: arXiv 2503.00748, "dynamic" selection from the gradient of the present mini-batch alone.
    """
    magnitudes = rows.matrix(gradient.abs())
    return rows.entries(magnitudes.topk(min(k, rows.length), dim=1, sorted=False).indices)


def random_entries(rows: Rows, k: int, rng: np.random.Generator, device: torch.device) -> Entries:
    """k (at least 1) entries of every row without replacement (Floyd's sampling); all of a row that has fewer."""
    k = min(k, rows.length)
    columns = np.empty((rows.count, k), dtype=np.int64)
    for drawn, last in enumerate(range(rows.length - k, rows.length)):
        candidates = rng.integers(0, last + 1, size=rows.count)
        is_taken = (columns[:, :drawn] == candidates[:, None]).any(axis=1)
        columns[:, drawn] = np.where(is_taken, last, candidates)
    return rows.entries(torch.as_tensor(columns, device=device))


def keep_only(tensor: Tensor, entries: Entries) -> None:
    """Set everything but some entries to zero, in place."""
    kept = tensor[entries]
    tensor.zero_()
    tensor[entries] = kept
