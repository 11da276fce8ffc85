"""What became of each tensor when weights were adapted, and a table of it that fits on a screen."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

Outcome = Literal["copied", "adapted", "random", "unused"]

LISTS = ("stages", "transpconvs", "upsampling", "seg_layers")
"""Names under which nnU-Net's networks number their stages."""


ALL, NOTHING = torch.tensor(True), torch.tensor(False)
"""Which entries of a tensor come from the source: all of them, or none."""


class Fitted(NamedTuple):
    """A tensor for the network, made from the source's or left random."""

    value: Tensor
    outcome: Outcome
    reason: str
    known: Tensor = ALL  # which entries come from the source: bool, broadcast to the tensor's shape


@dataclass(frozen=True)
class AdaptedTensor:
    """One tensor, however many names it has."""

    key: str  # its first name in the network's state dict; for ``unused``, in the source's
    outcome: Outcome  # ``copied`` or ``adapted`` from the source, left ``random``, or ``unused`` of the source's
    reason: str  # why, and how; empty where the source has it under the same name and in the same shape
    shape: tuple[int, ...]  # of the tensor in the network; for ``unused``, in the source


@dataclass(frozen=True)
class Adaptation:
    """Weights for a network, and where they come from."""

    weights: dict[str, Tensor]  # complete, on the CPU; tensors that are one in the network are one here
    known: dict[str, Tensor]  # which entries of each weight come from the source, as in `Fitted`
    tensors: tuple[AdaptedTensor, ...]  # what became of each, in the network's order, unused ones last

    def entries(self) -> tuple[int, int]:
        """How many entries of the network's weights come from the source, and how many there are."""
        firsts = [tensor.key for tensor in self.tensors if tensor.outcome != "unused"]
        known = sum(int(self.known[key].expand(self.weights[key].shape).sum()) for key in firsts)
        return known, sum(self.weights[key].numel() for key in firsts)

    def parts(self) -> list[dict[str, Any]]:
        """The lines of `table` as plain data: part, outcome, reason, and how many tensors and entries it has."""
        return [
            {
                "part": _line(group)[0],
                "outcome": group[0].outcome,
                "reason": group[0].reason,
                "tensors": len(group),
                "parameters": sum(math.prod(one.shape) for one in group),
            }
            for group in self._groups()
        ]

    def _groups(self) -> list[list[AdaptedTensor]]:
        families: dict[tuple[str, str, str], list[AdaptedTensor]] = defaultdict(list)
        for tensor in self.tensors:
            families[_part(tensor.key)[0], tensor.outcome, tensor.reason].append(tensor)
        return list(families.values())

    def table(self) -> str:
        """The outcomes by part of the network; neighbouring stages with the same outcome share a line."""
        lines = [_line(group) for group in self._groups()]
        width = max(len(name) for name, _, _ in lines)
        rows = [f"{name:<{width}}  {outcome:<7}  {text}".rstrip() for name, outcome, text in lines]
        counts = Counter(tensor.outcome for tensor in self.tensors)
        summary = ", ".join(f"{counts[outcome]} {outcome}" for outcome in get_args(Outcome) if counts[outcome])
        return "\n".join([*rows, f"Tensors, each counted once: {summary}."])


def _part(key: str) -> tuple[str, str]:
    """The part of the network that a tensor belongs to: ``("encoder.stages", "0")``, or ``("encoder.stem", "")``."""
    words = key.split(".")
    for position, word in enumerate(words[:-1]):
        if word in LISTS and words[position + 1].isdigit():
            return ".".join(words[: position + 1]), words[position + 1]
    return ".".join(words[: min(2, len(words) - 1)]) or key, ""


def _line(group: list[AdaptedTensor]) -> tuple[str, str, str]:
    """Name, outcome and text of a line: a single tensor with its own name and shape, several as a range of stages."""
    tensor = group[0]
    if len(group) == 1:
        return tensor.key, tensor.outcome, f"{list(tensor.shape)}  {tensor.reason}".rstrip()
    numbers = sorted({int(number) for _, number in (_part(one.key) for one in group) if number})
    text = f"{len(group)} tensors  {tensor.reason}".rstrip()
    return f"{_part(tensor.key)[0]}{_ranges(numbers)}", tensor.outcome, text


def _ranges(numbers: list[int]) -> str:
    """``.0-3,5`` for 0, 1, 2, 3 and 5; empty for none."""
    # numbers that follow each other are as far from their positions
    runs = [[number for _, number in run] for _, run in groupby(enumerate(numbers), key=lambda one: one[1] - one[0])]
    named = [f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return f".{','.join(named)}" if named else ""
