"""What became of each tensor when weights were adapted, and a table of it that fits on a screen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch

Outcome = Literal["copied", "adapted", "random", "unused"]

LISTS = ("stages", "transpconvs", "seg_layers")
"""Names under which nnU-Net's networks number their stages."""


@dataclass(frozen=True)
class AdaptedTensor:
    """One tensor, however many names it has.

    Attributes:
        key: its first name in the network's state dict; for ``unused``, in the source's.
        outcome: ``copied`` from the source, ``adapted`` from it, left ``random`` as the network initialised it, or a
            tensor of the source that stays ``unused``.
        reason: why, and how; empty where the source has it under the same name and in the same shape.
        shape: of the tensor in the network; for ``unused``, in the source.
    """

    key: str
    outcome: Outcome
    reason: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Adaptation:
    """Weights for a network, and where they come from.

    Attributes:
        weights: complete state dict of the network, under all of its names, on the CPU; tensors that are one in the
            network are one here.
        tensors: what became of each tensor, in the network's order, those of the source that stay unused last.
    """

    weights: dict[str, torch.Tensor]
    tensors: tuple[AdaptedTensor, ...]

    def table(self) -> str:
        """The outcomes by part of the network; neighbouring stages with the same outcome share a line."""
        lines = [_line(list(group)) for _, group in groupby(_in_order(self.tensors), key=_family)]
        width = max(len(name) for name, _, _ in lines)
        rows = [f"{name:<{width}}  {outcome:<7}  {text}".rstrip() for name, outcome, text in lines]
        counts = {
            outcome: sum(tensor.outcome == outcome for tensor in self.tensors)
            for outcome in ("copied", "adapted", "random", "unused")
        }
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        return "\n".join([*rows, f"Tensors, each counted once: {summary}."])


def _part(key: str) -> tuple[str, str]:
    """The part of the network that a tensor belongs to: ``("encoder.stages", "0")``, or ``("encoder.stem", "")``."""
    words = key.split(".")
    for position, word in enumerate(words[:-1]):
        if word in LISTS and words[position + 1].isdigit():
            return ".".join(words[: position + 1]), words[position + 1]
    return ".".join(words[: min(2, len(words) - 1)]) or key, ""


def _family(tensor: AdaptedTensor) -> tuple[str, str, str]:
    return _part(tensor.key)[0], tensor.outcome, tensor.reason


def _in_order(tensors: Iterable[AdaptedTensor]) -> list[AdaptedTensor]:
    """The tensors with those of one line next to each other, lines in the order of their first tensor."""
    tensors = list(tensors)
    first: dict[tuple[str, str, str], int] = {}
    for position, tensor in enumerate(tensors):
        first.setdefault(_family(tensor), position)
    return sorted(tensors, key=lambda tensor: first[_family(tensor)])


def _line(group: list[AdaptedTensor]) -> tuple[str, str, str]:
    """Name, outcome and text of a line: a single tensor with its own name and shape, several as a range of stages."""
    tensor = group[0]
    if len(group) == 1:
        text = f"{list(tensor.shape)}  {tensor.reason}".rstrip()
        return tensor.key, tensor.outcome, text
    family = _part(tensor.key)[0]
    numbers = sorted({int(number) for number in (_part(one.key)[1] for one in group) if number})
    text = f"{len(group)} tensors  {tensor.reason}".rstrip()
    return f"{family}{_ranges(numbers)}", tensor.outcome, text


def _ranges(numbers: list[int]) -> str:
    """``.0-3,5`` for 0, 1, 2, 3 and 5; empty for none."""
    if not numbers:
        return ""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return "." + ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
