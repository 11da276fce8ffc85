"""Losses that draw several branches' predictions together (TDNet, arXiv 2309.09730).

They take log-probabilities (B, C, [X,] Y, Z), one tensor for each branch. They are scalars of at least zero, and zero
for branches that agree.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_ext.losses.soft_targets import masked_mean, weighted_mean

EPSILON = 1e-6
"""Added to class affinities, so that no row of them is all zero."""


def mean_log_probabilities(branches: Sequence[Tensor], *, detach: bool = False) -> Tensor:
    """The logarithm of the branches' mean probabilities, P̄, of the same shape; no gradient flows if it is detached."""
    stack = torch.stack(list(branches))
    return torch.logsumexp(stack.detach() if detach else stack, dim=0) - math.log(len(branches))


def uncertainty_weighted_consistency(
    branches: Sequence[Tensor],
    mask: Tensor | None = None,
    *,
    detach_target: bool = True,
    uncertainty_weights: bool = True,
) -> Tensor:
    """USPC: how far each branch is from their mean, voxel by voxel, where the mean is sure of itself.

    (1 / N) Σ_n Σ_i w_i KL(P_n,i ‖ P̄_i) / Σ_i w_i, with w_i = exp(Σ_c P̄_i^c log P̄_i^c): 1 where the mean is certain,
    1 / C where it knows nothing. Voxels count whether they are annotated or not.

    Args:
        branches: log-probabilities of each.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.
        detach_target: whether P̄, and with it w, is fixed: no gradient flows through it.
        uncertainty_weights: False sets every w to 1.

    Source: arXiv 2309.09730, equation of L_USPC.
    """
    mean = mean_log_probabilities(branches, detach=detach_target)
    divergences = torch.stack([kl_divergence(branch, mean, dim=1) for branch in branches]).mean(dim=0)
    mask = None if mask is None else mask[:, 0]
    if not uncertainty_weights:
        return masked_mean(divergences, mask)
    return weighted_mean(divergences, (-entropy(mean))[:, 0].exp(), mask)


def class_affinities(probabilities: Tensor, axis: int, mask: Tensor | None = None) -> Tensor:
    """Which classes lie over one another when a prediction is looked at along an axis.

    The probabilities are averaged along the axis to M (C × all that is left); Q = (M Mᵀ + ε), rows divided by their
    sums. A line along the axis is averaged over its voxels that take part; a line without any is left out.

    Args:
        probabilities: (B, C, [X,] Y, Z), 0 where a voxel takes no part.
        axis: of the space, 0 for the first.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.

    Returns:
        (B, C, C) float32, rows sum to one.

    Source: arXiv 2309.09730; mean projection and row sums are this project's reading.
    """
    # a sum over thousands of voxels leaves the range of half precision
    with torch.autocast(probabilities.device.type, enabled=False):
        if mask is None:
            projection = probabilities.float().mean(dim=2 + axis)
        else:
            projection = probabilities.float().sum(dim=2 + axis) / mask.sum(dim=2 + axis).clamp_min(1)
        projection = projection.flatten(2)
        affinities = projection @ projection.transpose(1, 2) + EPSILON
        return affinities / affinities.sum(dim=2, keepdim=True)


def multi_view_class_consistency(
    branches: Sequence[Tensor], mask: Tensor | None = None, *, detach_target: bool = True
) -> Tensor:
    """MPCC: how far each branch's class affinities are from their mean, seen along every axis.

    (1 / (V N)) Σ_v Σ_n KL(Q_v,n ‖ Q̄_v), each KL the mean over rows and batch; V is 3 in three dimensions, 2 in two.

    Args:
        branches: log-probabilities of each.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part in the projections; None for all.
        detach_target: whether Q̄ is fixed: no gradient flows through it.

    Source: arXiv 2309.09730, equation of L_MPCC.
    """
    probabilities = [branch.float().exp() for branch in branches]
    if mask is not None:
        probabilities = [one * mask for one in probabilities]
    divergences = []
    for axis in range(branches[0].ndim - 2):
        affinities = [class_affinities(one, axis, mask).log() for one in probabilities]
        mean = mean_log_probabilities(affinities, detach=detach_target)
        divergences += [kl_divergence(one, mean, dim=2).mean() for one in affinities]
    return torch.stack(divergences).mean()


def entropy(log_p: Tensor) -> Tensor:
    """-Σ_c p_c log p_c of every voxel, (B, 1, [X,] Y, Z), between 0 and log C."""
    return -(log_p.exp() * log_p).sum(dim=1, keepdim=True)


def kl_divergence(log_p: Tensor, log_q: Tensor, *, dim: int) -> Tensor:
    """KL(p ‖ q) of distributions along an axis, which the result does not have."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(dim=dim)
