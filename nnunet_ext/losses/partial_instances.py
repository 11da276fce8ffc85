"""Losses for labels in which only some instances are annotated (DBDMP, arXiv 2408.09411).

Label 0 means background or an instance that nobody annotated. The losses take log-probabilities, because several look
at the same outputs. They are scalars, finite for logits of any size, and zero if no voxel takes part.
"""

import math

import torch
from torch import Tensor

from nnunet_ext.losses.consistency import kl_divergence
from nnunet_ext.losses.soft_targets import masked_mean, weighted_mean

LOG_OF_ZERO = -math.log(1e-4)
"""A, what stands for -log 0 in the reverse cross-entropy."""


def symmetric_cross_entropy(
    label_log_p: Tensor, mask: Tensor | None = None, *, ce_weight: float = 0.8, rce_weight: float = 1.0
) -> Tensor:
    """Cross-entropy and reverse cross-entropy, which tolerates wrong labels: its value and gradient are bounded.

    RCE = -Σ_c p_c log q_c with q the one-hot label and log 0 = -A, which is A (1 - p_y).

    Args:
        label_log_p: log p_y, (B, 1, [X,] Y, Z), of `label_log_probabilities`.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.
        ce_weight: factor of the cross-entropy.
        rce_weight: factor of the reverse one.

    Source: Wang et al., arXiv 1908.06112; weights from DBDMP's released code.
    """
    cross_entropy = -masked_mean(label_log_p, mask)
    reverse = LOG_OF_ZERO * masked_mean(1 - label_log_p.exp(), mask)
    return ce_weight * cross_entropy + rce_weight * reverse


@torch.no_grad()
def sharpened(probabilities: Tensor, *, temperature: float = 0.3) -> Tensor:
    """For two classes a softmax over probabilities, p ← softmax(p / T), for more a power, p ← p^a / Σ p^a.

    The softmax is DBDMP's: with T = 0.3, .9 becomes .935. Where it would lower the largest probability, a voxel keeps
    its own: that is above .954, the fixed point, and the softmax reaches .966 at most. For more classes it would
    flatten, as its slope at equal probabilities is 1 / (C T). The power multiplies all log-odds by a, for any number of
    classes; a = 0.8 / (T ln 9), which takes .9 of two classes where the softmax takes it, and at least 1. So nothing
    changes from T = 0.5 on for two classes, from 0.37 on for more.

    Args:
        probabilities: (B, C, [X,] Y, Z), sum to one over C.
        temperature: T, above 0.

    Returns:
        The same shape, sums to one over C. The largest probability of a voxel is never lowered.

    Source: arXiv 2408.09411 for two classes; the power for more, and what is kept, are this project's.
    """
    if probabilities.shape[1] > 2:
        powers = probabilities ** max(1.0, 0.8 / (temperature * math.log(9)))
        return powers / powers.sum(dim=1, keepdim=True)
    candidates = (probabilities / temperature).softmax(dim=1)
    is_sharper = candidates.amax(dim=1, keepdim=True) > probabilities.amax(dim=1, keepdim=True)
    return torch.where(is_sharper, candidates, probabilities)


@torch.no_grad()
def mixed_pseudo_labels(
    main: Tensor, auxiliary: Tensor, target: Tensor, annotated: Tensor, *, ratio: float, temperature: float = 0.3
) -> Tensor:
    """ỹ = β p_main + (1 - β) p_aux, `sharpened`; where a voxel is annotated, its own label.

    Args:
        main: log-probabilities (B, C, [X,] Y, Z) of the main branch.
        auxiliary: those of the other branch.
        target: the labels, `one_hot`, of the same shape.
        annotated: (B, 1, [X,] Y, Z), true where the label is known to be right.
        ratio: β, between 0 and 1.
        temperature: T, above 0.

    Returns:
        (B, C, [X,] Y, Z) float32, sums to one over C; no gradient flows through it.

    Source: arXiv 2408.09411.
    """
    mixture = torch.lerp(auxiliary.exp(), main.exp(), ratio)
    return torch.where(annotated, target, sharpened(mixture, temperature=temperature))


def divergence_weighted_cross_entropy(
    log_p: Tensor, other: Tensor, target: Tensor, mask: Tensor | None = None
) -> Tensor:
    """KLCE: cross-entropy against soft labels, weighted down where two branches disagree, plus their disagreement.

    With D_i = KL(p_other,i ‖ p_i) at voxel i:  Σ_i CE_i e^{-D_i} / Σ_i e^{-D_i} + mean_i D_i. D is not detached.

    Args:
        log_p: log-probabilities (B, C, [X,] Y, Z) of the branch that learns.
        other: those of the other branch.
        target: (B, C, [X,] Y, Z), sums to one over C.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.

    Source: arXiv 2408.09411.
    """
    entropies = -(target * log_p).sum(dim=1, keepdim=True)
    divergences = kl_divergence(other, log_p, dim=1)[:, None]
    smallest = divergences.detach() if mask is None else divergences.detach().masked_fill(~mask, math.inf)
    # divided by the largest weight, which cancels: it is not all zero however much the branches disagree
    exponents = smallest.amin() - divergences
    if mask is not None:
        exponents = torch.where(mask, exponents, 0)  # what does not take part could overflow
    weights = exponents.exp()
    return weighted_mean(entropies, weights, mask) + masked_mean(divergences, mask)
