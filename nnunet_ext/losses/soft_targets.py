"""Cross-entropy against soft targets, the mean taken over the voxels that take part.

Losses are scalars of at least zero, and zero if no voxel takes part.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

Total: TypeAlias = Callable[[Tensor], Tensor]
"""Adds up sums over the batches of all processes of a distributed training, of any shape, with their gradients.

A loss that is a ratio of sums over the batch would otherwise be the mean of the processes' own ratios: one whose
patches have nothing of a class would count as much as the others.
"""


def of_this_process(sums: Tensor) -> Tensor:
    """The `Total` of a single process."""
    return sums


def masked_mean(values: Tensor, mask: Tensor | None, *, total: Total = of_this_process) -> Tensor:
    """Mean of the values, a scalar, where the mask is true; zero, with zero gradients, where it is true nowhere.

    Args:
        values: any shape.
        mask: boolean, broadcastable to `values`; None for all.
        total: adds up sums over the batches of all processes of a distributed training; by default, of this one alone.
    """
    if mask is None:
        return values.mean()
    mask = mask.expand_as(values)
    # where() and not a product: a value that is not finite outside of the mask must not matter
    of_mask = torch.stack([torch.where(mask, values, 0).sum(), mask.count_nonzero().to(values.dtype)])
    added, count = total(of_mask)
    return added / count.clamp_min(1)


def weighted_mean(values: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
    """Σ w v / Σ w, a scalar, where the mask is true; zero, with zero gradients, where it is true nowhere.

    Args:
        values: any shape.
        weights: of the same shape, not negative and not all too small to add up.
        mask: boolean, of the same shape; None for all.
    """
    if mask is None:
        return (weights * values).sum() / weights.sum()
    weights = torch.where(mask, weights, 0)
    total = weights.sum()
    # without a voxel both sums are 0
    return (weights * torch.where(mask, values, 0)).sum() / torch.where(total > 0, total, 1)


def soft_cross_entropy(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of a softmax against a distribution over the classes:  −Σ_c t_c log p_c, mean over voxels.

    Args:
        logits: (B, C, [X,] Y, Z).
        target: same shape, sums to one over C.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.
        weights: factor of each sample, (B,); None for 1.
    """
    entropies = -(target * F.log_softmax(logits.float(), dim=1)).sum(dim=1, keepdim=True)
    return masked_mean(_weighted(entropies, weights), mask)


def _weighted(values: Tensor, weights: Tensor | None) -> Tensor:
    return values if weights is None else values * weights.view(-1, *[1] * (values.ndim - 1))


def soft_binary_cross_entropy(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of independent sigmoids, for overlapping regions, mean over voxels and regions.

    Args:
        logits: (B, R, [X,] Y, Z).
        target: same shape, each value in [0, 1].
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.
        weights: factor of each sample, (B,); None for 1.
    """
    entropies = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return masked_mean(_weighted(entropies, weights), mask)
