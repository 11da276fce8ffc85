"""What a checkpoint holds once it is read: no more than its file has, nor parts that are too deep or too many."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_ext.errors import UserError

DEEPEST = 100
"""Levels of dictionaries, lists and tuples in each other; nnU-Net's checkpoints have about ten."""
ALWAYS_READ = 10_000_000
"""Values and characters of text, each counted as often as it is found."""
MOST_REPEATED = 100
"""How many times as many a larger checkpoint may have as if each of its objects is counted once."""


def check_loaded(content: Any, file: Path) -> Any:
    """The content of a checkpoint whose tensors are no larger than their storages; a copy of others would fill memory.

    Nor do its dictionaries and lists hold each other so deeply, or one of them so often, that whatever goes through
    them, such as the writing of JSON, would not come to an end.

    Raises:
        UserError: naming the tensor, or what is wrong.
    """
    walk = _Walk(file)
    values, _ = walk.measure(content, "", 0)
    if values > max(ALWAYS_READ, MOST_REPEATED * walk.distinct):
        raise UserError(
            f"{file} is refused: its parts hold the same parts so often that they are {values} values. Take out all "
            "but network_weights, init_args and trainer_name."
        )
    return content


class _Walk:
    """Looks at each object of a checkpoint once.

    Attributes:
        distinct: values and characters of what it has looked at.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.distinct = file, 0
        self._texts: set[int] = set()
        self._known: dict[int, tuple[int, int] | None] = {}  # of lists and dictionaries, None while it is in them

    def measure(self, value: Any, name: str, level: int) -> tuple[int, int]:
        """The values and characters in a value, as often as they are in it, and its levels.

        Args:
            value: to be looked at.
            name: of its place.
            level: of its place.
        """
        if isinstance(value, str | bytes | bytearray):
            if id(value) not in self._texts:
                self._texts.add(id(value))
                self.distinct += len(value)
            return 1 + len(value), 0
        if isinstance(value, Tensor):
            self._check_tensor(value, name)
        if not isinstance(value, Mapping | list | tuple | set | frozenset):
            return 1, 0
        if level > DEEPEST:
            raise self._too_deep(name)
        if id(value) not in self._known:
            self._known[id(value)] = None
            self._known[id(value)] = self._measured(value, name, level)
        if (known := self._known[id(value)]) is None:
            raise UserError(f"{self.file} is refused: {name} holds itself. Take it out.")
        if level + known[1] > DEEPEST + 1:
            raise self._too_deep(name)
        return known

    def _measured(self, value: Any, name: str, level: int) -> tuple[int, int]:
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        values = levels = 1
        self.distinct += 1
        for key, one in items:
            shown = str(key)[:80] if isinstance(key, str | int) else type(key).__name__
            parts = [self.measure(one, f"{name}.{shown}" if name else shown, level + 1)]
            parts += [self.measure(key, name, level + 1)] if isinstance(value, Mapping) else []
            values += sum(part for part, _ in parts)
            levels = max(levels, 1 + max(below for _, below in parts))
            self.distinct += len(parts)
        return values, levels

    def _too_deep(self, name: str) -> UserError:
        place = ".".join(name.split(".")[:3])
        return UserError(f"{self.file} is refused: {place} has more than {DEEPEST} levels. Take it out.")

    def _check_tensor(self, value: Tensor, name: str) -> None:
        if value.layout != torch.strided or value.device.type != "cpu":
            raise UserError(
                f"{self.file} is refused: the tensor {name} is sparse or empty, which no weight of nnU-Net is."
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{self.file} is refused: the tensor {name} claims {value.numel()} numbers, and has fewer.")
