"""The mean over an epoch of what its training steps observed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import distributed as dist


def epoch_means(steps: Sequence[Mapping[str, np.ndarray]], *, all_processes: bool) -> dict[str, float]:
    """Mean of each scalar but ``loss`` over the steps in which it occurred.

    Args:
        steps: scalars by name, as `train_step` returns them.
        all_processes: whether the steps of all processes of a distributed training count.
    """
    gathered: list[Any] = [_sums(step.items() for step in steps)]
    if all_processes:
        gathered *= dist.get_world_size()
        dist.all_gather_object(gathered, gathered[0])
    sums: dict[str, list[tuple[float, int]]] = {}
    for of_process in gathered:
        for name, one in of_process.items():
            sums.setdefault(name, []).append(one)
    return {name: sum(total for total, _ in parts) / sum(n for _, n in parts) for name, parts in sums.items()}


def _sums(steps: Iterable[Iterable[tuple[str, np.ndarray]]]) -> dict[str, tuple[float, int]]:
    """Sum and number of the values of each name but ``loss``."""
    sums: dict[str, tuple[float, int]] = {}
    for name, value in (one for step in steps for one in step if one[0] != "loss"):
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + float(value), count + 1)
    return sums
