"""Which entries of a weight tensor a step moves: a few in every row, a row being what makes one output channel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_ext.devices import on_device
from nnunet_ext.finetuning.roles import CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS

Entries = Tensor
"""Positions in a tensor, (N,), each once: counted row by row over its dimensions, as ``torch.take`` counts.

One index for a position, and not one for each dimension: on a GPU the time goes into the number of operations.
"""


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
        """Positions in the weight of the entries in some columns of `matrix`, (rows, k)."""
        if not self.is_transposed:
            return (_starts(self, columns.device) + columns).ravel()
        _, outputs, *kernel = self.shape
        # from one input channel of a row to its next one lie the kernels of all other outputs
        between = (outputs - 1) * math.prod(kernel)
        skipped = torch.div(columns, math.prod(kernel), rounding_mode="floor") * between
        return (_starts(self, columns.device) + columns + skipped).ravel()


@lru_cache(maxsize=1024)
def _starts(rows: Rows, device: torch.device) -> Tensor:
    """The position of the first entry of each row, (rows, 1)."""
    numbers = torch.arange(rows.count, device=device)
    if not rows.is_transposed:
        return (numbers * rows.length)[:, None]
    inputs, outputs, *kernel = rows.shape
    in_group, group = inputs // rows.groups, torch.div(numbers, outputs, rounding_mode="floor")
    return ((group * in_group * outputs + numbers % outputs) * math.prod(kernel))[:, None]


def top_entries(gradient: Tensor, rows: Rows, k: int) -> Entries:
    """The k entries of largest magnitude in every row, all of a row that has fewer.

    Args:
        gradient: of the weight, any layout in memory.
        rows: how it falls into rows.
        k: at least 1.

    Source: arXiv 2503.00748, "dynamic" selection from the gradient of the present mini-batch alone.
    """
    magnitudes = rows.matrix(gradient.abs())
    if k == 1:
        return rows.entries(magnitudes.argmax(dim=1, keepdim=True))
    return rows.entries(magnitudes.topk(min(k, rows.length), dim=1, sorted=False).indices)


def random_entries(rows: Rows, k: int, rng: np.random.Generator, device: torch.device) -> Entries:
    """k (at least 1) entries of every row without replacement (Floyd's sampling); all of a row that has fewer."""
    k = min(k, rows.length)
    columns = np.empty((rows.count, k), dtype=np.int64)
    for drawn, last in enumerate(range(rows.length - k, rows.length)):
        candidates = rng.integers(0, last + 1, size=rows.count)
        is_taken = (columns[:, :drawn] == candidates[:, None]).any(axis=1)
        columns[:, drawn] = np.where(is_taken, last, candidates)
    return rows.entries(on_device(columns, device))


WITHOUT_TAKE = {"mps"}
"""Types of devices for which torch has neither `take` nor `put_`."""


def read(tensor: Tensor, entries: Entries) -> Tensor:
    """The values, (N,), of some entries of a tensor."""
    if tensor.device.type in WITHOUT_TAKE:
        return tensor[torch.unravel_index(entries, tensor.shape)]
    return tensor.take(entries)


def write(tensor: Tensor, entries: Entries, values: Tensor) -> None:
    """Write values, (N,), to some entries of a tensor, in place."""
    # deterministic algorithms refuse `put_`, which does not know that each entry is there once
    if tensor.device.type in WITHOUT_TAKE or torch.are_deterministic_algorithms_enabled():
        tensor[torch.unravel_index(entries, tensor.shape)] = values
    else:
        tensor.put_(entries, values)


def keep_only(tensor: Tensor, entries: Entries) -> None:
    """Set everything but some entries to zero, in place."""
    kept = read(tensor, entries)
    write(tensor.zero_(), entries, kept)
