"""Which memory layout trains a network faster on this machine: measured, because no rule predicts it."""

from collections.abc import Iterator
from copy import deepcopy
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn


def channels_last_format(spatial_dims: int) -> torch.memory_format:
    """The channels-last layout for 2 or 3 spatial dimensions."""
    return torch.channels_last if spatial_dims == 2 else torch.channels_last_3d


def faster_memory_format(
    network: nn.Module, shape: tuple[int, ...], device: torch.device, *, repeats: int = 5, budget: float = 20.0
) -> tuple[str, dict[str, float]]:
    """Compare both layouts on copies of a network, in turns, so that other load on the machine hits both alike.

    Weights, gradients, buffers and global generators are not touched. Each layout has at most `repeats` timed passes,
    at least one, and no further one after a `budget` in seconds. `shape` is (B, C, [X,] Y, Z).

    Returns:
        ``"channels_last"`` if its median is lower by more than 5 %, else ``"contiguous"``; and both medians in seconds.
        ``"contiguous"`` and no seconds if the GPU has no memory for the copies.
    """
    try:
        medians = _medians(network, shape, device, repeats=repeats, budget=budget)
    except torch.OutOfMemoryError:
        return "contiguous", {}
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    chosen = "channels_last" if medians["channels_last"] < 0.95 * medians["contiguous"] else "contiguous"
    return chosen, medians


def _medians(
    network: nn.Module, shape: tuple[int, ...], device: torch.device, *, repeats: int, budget: float
) -> dict[str, float]:
    """Seconds of a pass in each layout."""
    layouts = {"contiguous": torch.contiguous_format, "channels_last": channels_last_format(len(shape) - 2)}
    seconds: dict[str, list[float]] = {name: [] for name in layouts}
    started = perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # dropout draws
        copies = {name: deepcopy(network).to(memory_format=layout).train() for name, layout in layouts.items()}
        data = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
        for repeat in range(repeats + 1):
            if repeat > 1 and perf_counter() - started > budget:
                break
            for name, layout in layouts.items():
                taken = pass_seconds(copies[name], data.contiguous(memory_format=layout))
                if repeat > 0:
                    seconds[name].append(taken)
    return {name: median(values) for name, values in seconds.items()}


def pass_seconds(network: nn.Module, data: Tensor) -> float:
    """Seconds of one forward and backward pass, whose gradients are dropped."""
    started = perf_counter()
    with torch.autocast(data.device.type, enabled=data.device.type == "cuda"):
        loss = torch.stack([head.float().mean() for head in every_tensor(network(data))]).sum()
    loss.backward()
    if data.device.type == "cuda":
        torch.cuda.synchronize(data.device)
    seconds = perf_counter() - started
    network.zero_grad(set_to_none=True)
    return seconds


def every_tensor(outputs: Any) -> Iterator[Tensor]:
    """The tensors in a network's output: one, a list by resolution, or such a list for each decoder."""
    if isinstance(outputs, Tensor):
        yield outputs
    else:
        for part in outputs:
            yield from every_tensor(part)
