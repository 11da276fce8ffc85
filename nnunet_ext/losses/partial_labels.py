"""Losses for cases of which only some labels were annotated.

Where a label was not annotated, its voxels were left as background. So background stands for itself and for every label
that was not annotated: they are merged into one class before a loss looks at them.
"""

import torch
from torch import Tensor

from nnunet_ext.losses.soft_targets import Total, masked_mean, of_this_process

NEVER = -1e30
"""A logit of probability 0. It is not infinite: 0 · ∞, as in a soft target's cross-entropy, is not a number."""


def over_voxels(annotated: Tensor, like: Tensor) -> Tensor:
    """(B, C) in the shape (B, C, 1, 1[, 1]) that goes with (B, C, [X,] Y, Z)."""
    return annotated.reshape(*annotated.shape, *[1] * (like.ndim - 2))


def partial_logits(logits: Tensor, annotated: Tensor, *, has_regions: bool) -> Tensor:
    """Logits of what each case was annotated for.

    Their softmax is q, with q_0 = p_0 + Σ_k p_k over the classes k that were not annotated, q_a = p_a for those that
    were, and q_k = 0. For regions, with a sigmoid each, those that were not annotated have probability 0. With targets
    that do not have them either, nnU-Net's loss then has a gradient only through what was annotated: the cross-entropy
    of such a region is 0, and Dice is 1 whatever the network says. If all are annotated the logits are the same to the
    bit.

    Args:
        logits: (B, C, [X,] Y, Z).
        annotated: boolean (B, C), true for background.
        has_regions: whether channels are regions, without background, and not classes.

    Returns:
        The same shape, float32.

    Source: Shi et al., arXiv 2007.03868 (marginal loss); MultiTalent, arXiv 2303.14444 (a sigmoid for each label).
    """
    logits, known = logits.float(), over_voxels(annotated, logits)
    kept = torch.where(known, logits, NEVER)
    if has_regions:
        return kept
    is_merged = ~annotated
    is_merged[:, 0] = True
    kept[:, :1] = torch.where(over_voxels(is_merged, logits), logits, NEVER).logsumexp(dim=1, keepdim=True)
    return kept


def exclusion_loss(
    logits: Tensor,
    foreground: Tensor,
    annotated: Tensor,
    mask: Tensor | None = None,
    *,
    total: Total = of_this_process,
) -> Tensor:
    """How far classes that were not annotated lie over annotated foreground, where they cannot be.

    2 Σ p_k f / (Σ p_k + Σ f), f the annotated foreground: the mean over all pairs of a case and a class k that was not
    annotated in it; zero if there is none. A pair without annotated foreground counts, with 0.

    Args:
        logits: (B, C, [X,] Y, Z).
        foreground: boolean (B, 1, [X,] Y, Z), true where a voxel has an annotated label.
        annotated: boolean (B, C), true for background.
        mask: boolean (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.
        total: adds up sums over the batches of all processes of a distributed training; by default, of this one alone.

    Returns:
        A scalar between 0 and 1.

    Source: Shi et al., arXiv 2007.03868, exclusion Dice loss.
    """
    p, f = logits.float().softmax(dim=1), foreground.float()
    if mask is not None:
        p, f = p * mask, f * mask
    over = tuple(range(2, p.ndim))
    overlaps = 2 * (p * f).sum(over) / (p.sum(over) + f.sum(over)).clamp_min(1e-8)
    return masked_mean(overlaps, ~annotated, total=total)
