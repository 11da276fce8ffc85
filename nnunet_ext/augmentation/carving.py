"""CarveMix: which region around the foreground of a patch is carved out, to be pasted into another patch.

Source: arXiv 2108.06883.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

REACHES = (8, 32)  # voxels; most lesions are not deeper
MOST_SHIFTS = 16  # and a quarter of an axis; beyond, all pairs of its voxels take fewer operations than shifts
PAIRS_AT_ONCE = 2**24


def carved_regions(foreground: Tensor, spacing: Sequence[float], rng: np.random.Generator) -> Tensor:
    """The region of each sample within a random margin of its foreground; nothing without foreground or background.

    With the signed distance d to the foreground's border, negative inside, the region is d ≤ λ. Half of the margins λ
    are drawn from U(-D / 2, 0), which carve the core, half from U(0, D), which carve the surroundings too, where D is
    the largest depth of the foreground.

    Args:
        foreground: boolean, (B, [X,] Y, Z).
        spacing: of the voxels in mm, one for each spatial axis.
        rng: draws a margin for each sample.

    Returns:
        A boolean mask of the same shape and device.
    """
    is_full = foreground.flatten(1).all(1).view(-1, *[1] * (foreground.ndim - 1))
    foreground = foreground & ~is_full  # there is no border, to which a search would go through the whole patch
    depths = inner_distances(foreground, spacing)
    deepest = depths.flatten(1).amax(1)
    uniform, is_core = rng.random(len(foreground)), rng.random(len(foreground)) < 0.5
    shares = torch.as_tensor(np.where(is_core, -uniform / 2, uniform), dtype=torch.float32, device=foreground.device)
    margins = (shares * deepest).view(-1, *[1] * (foreground.ndim - 1))
    outside = squared_distances(foreground, spacing, float(margins.max())).sqrt()
    return torch.where(foreground, -depths, outside) <= margins


def inner_distances(foreground: Tensor, spacing: Sequence[float]) -> Tensor:
    """Distance of each foreground voxel to the nearest background in the patch, in mm; 0 outside, infinite without."""
    for voxels in (*REACHES, math.inf):
        reach = voxels * min(spacing)
        squared = squared_distances(~foreground, spacing, reach)
        if float(squared.max()) <= reach**2:
            break
    return squared.sqrt()


def squared_distances(seeds: Tensor, spacing: Sequence[float], reach: float) -> Tensor:
    """Squared Euclidean distance of each voxel to the nearest seed, axis by axis; exact up to `reach`.

    Args:
        seeds: boolean, (B, [X,] Y, Z).
        spacing: of the voxels in mm, one for each spatial axis.
        reach: in mm. What is farther away gets too large a distance, or an infinite one.

    Returns:
        float32 in mm², of the same shape and device.
    """
    nearest = torch.where(seeds, 0.0, math.inf)
    for axis, step in enumerate(spacing, start=1):
        before, size = nearest, nearest.shape[axis]
        farthest = int(min(size - 1, reach / step))
        if farthest > max(MOST_SHIFTS, size // 4):
            nearest = _nearest_along(before, axis, step)
            continue
        nearest = before.clone()
        for shift in range(1, farthest + 1):
            length, cost = size - shift, (shift * step) ** 2
            for to, source in ((0, shift), (shift, 0)):
                target = nearest.narrow(axis, to, length)
                torch.minimum(target, before.narrow(axis, source, length) + cost, out=target)
    return nearest


def _nearest_along(squared: Tensor, axis: int, step: float) -> Tensor:
    """The least of squared[j] + ((i − j) · step)² over all j, for each i along an axis."""
    lines, size = squared.movedim(axis, -1), squared.shape[axis]
    place = torch.arange(size, device=squared.device)
    cost = ((place[:, None] - place) * step).square()
    parts = lines.reshape(-1, size).split(max(1, PAIRS_AT_ONCE // size**2))
    found = torch.cat([(part[:, None] + cost).amin(dim=-1) for part in parts])
    return found.view(lines.shape).movedim(-1, axis)
