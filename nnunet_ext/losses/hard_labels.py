"""Losses of log-probabilities against labels. Several of them look at the same outputs, so that the log is taken once.

They are scalars, finite for logits of any size. Tversky and Dice losses are between 0 and 1.
"""

import torch
from torch import Tensor

from nnunet_ext.losses.soft_targets import Total, masked_mean, of_this_process


def log_probabilities(logits: Tensor) -> Tensor:
    """What all losses here take: the log-softmax over the classes, (B, C, [X,] Y, Z), float32 for any precision."""
    return logits.float().log_softmax(dim=1)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """Labels as a distribution over the classes.

    Args:
        labels: (B, 1, [X,] Y, Z), from 0 to `classes` - 1.
        classes: C.

    Returns:
        (B, C, [X,] Y, Z) boolean: losses keep it for their gradients, and it takes a quarter of float32's memory.
    """
    shape = (labels.shape[0], classes, *labels.shape[2:])
    return torch.zeros(shape, dtype=torch.bool, device=labels.device).scatter_(1, labels.long(), True)


def label_log_probabilities(log_p: Tensor, target: Tensor) -> Tensor:
    """log p of every voxel's own label, which several losses look at.

    Args:
        log_p: log-probabilities (B, C, [X,] Y, Z).
        target: the labels, `one_hot`, of the same shape.

    Returns:
        (B, 1, [X,] Y, Z), at most zero.
    """
    return (log_p * target).sum(dim=1, keepdim=True)  # half the time of gather() and its gradient on a CPU


def partial_cross_entropy(label_log_p: Tensor, annotated: Tensor, *, total: Total = of_this_process) -> Tensor:
    """Cross-entropy, mean over the annotated voxels alone; zero, with zero gradients, if there are none.

    Args:
        label_log_p: log p_y, (B, 1, [X,] Y, Z), of `label_log_probabilities`.
        annotated: (B, 1, [X,] Y, Z), true where the label is known to be right.
        total: adds up sums over the batches of all processes of a distributed training; by default, of this one alone.
    """
    return -masked_mean(label_log_p, annotated, total=total)


def tversky_loss(
    log_p: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    alpha: float = 0.4,
    beta: float = 0.6,
    smooth: float = 1e-5,
    total: Total = of_this_process,
) -> Tensor:
    """1 - (TP + ε) / (TP + α FP + β FN + ε), mean over the foreground classes, each summed over the batch.

    β above α makes a missed voxel cost more than a wrong one; with both 0.5 it is the soft Dice loss.

    Args:
        log_p: log-probabilities (B, C, [X,] Y, Z), C at least 2.
        target: the labels, `one_hot`, of the same shape.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.
        alpha: weight of false positives.
        beta: weight of false negatives.
        smooth: ε.
        total: adds up sums over the batches of all processes of a distributed training; by default, of this one alone.

    Source: Salehi et al., arXiv 1706.05721; the defaults are those of DBDMP's released code.
    """
    probabilities, target = log_p[:, 1:].exp(), target[:, 1:]
    if mask is not None:
        probabilities, target = probabilities * mask, target & mask
    over = (0, *range(2, log_p.ndim))
    sums = [(probabilities * target).sum(over), probabilities.sum(over), target.sum(over)]
    hits, predicted, labelled = total(torch.stack(sums))
    false_positives, misses = predicted - hits, labelled - hits
    return (1 - (hits + smooth) / (hits + alpha * false_positives + beta * misses + smooth)).mean()


def squared_dice_loss(
    log_p: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    smooth: float = 1e-5,
    total: Total = of_this_process,
) -> Tensor:
    """1 - (2 Σ p y + ε) / (Σ p² + Σ y² + ε), mean over all classes, background included, summed over the batch.

    Args:
        log_p: log-probabilities (B, C, [X,] Y, Z).
        target: the labels, `one_hot`, of the same shape.
        mask: (B, 1, [X,] Y, Z), true where a voxel takes part; None for all.
        smooth: ε.
        total: adds up sums over the batches of all processes of a distributed training; by default, of this one alone.

    Source: Milletari et al., arXiv 1606.04797; all classes, as in the code of DMPLS (arXiv 2203.02106).
    """
    probabilities = log_p.exp()
    if mask is not None:
        probabilities, target = probabilities * mask, target & mask
    over = (0, *range(2, log_p.ndim))
    sizes = probabilities.square().sum(over) + target.sum(over)
    hits, sizes = total(torch.stack([(probabilities * target).sum(over), sizes]))
    return (1 - (2 * hits + smooth) / (sizes + smooth)).mean()
