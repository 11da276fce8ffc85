"""Early-learning correction (ADELE, arXiv 2110.03740): when a network begins to learn wrong labels by heart, and what
takes their place."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

FOUND = 0.1
"""IoU from which a class counts as found. Before, there is nothing to fit, and the network may not correct it."""

FITS_IN_A_ROW = 5
"""That must say that the slope has fallen. A slow and noisy curve looks flat in a single fit at times."""

COPIES = 64
"""Of the bins that voxels are counted in on a GPU, whose additions to one number wait for each other."""


def slope_fall(ious: Sequence[float | None], *, min_epochs: int = 3) -> float | None:
    """How far the slope of a learning curve has fallen: 1 - IoU'(T) / IoU'(1), below 1; T is the last epoch.

    The curve is IoU(t) = a (1 - exp(-t^b / c)) with 0 <= a, b <= 1 and c > 0, fitted by least squares to the epochs
    from that on in which the class is found, which is t = 1. Their standard deviations fall from 1 to 0.1
    geometrically, so that later ones count more, as in the authors' code. Its slope only falls:
    IoU'(t) = (a b / c) t^(b - 1) exp(-t^b / c).

    Args:
        ious: by epoch, from 0 to 1; None in an epoch in which the class did not occur.
        min_epochs: with fewer values, at least 3, nothing is fitted.

    Returns:
        None without a fit, or if the class is not found in the last epoch.

    Source: Liu et al., arXiv 2110.03740, section 3.1.
    """
    values = np.array(ious, dtype=np.float64)
    first = int(np.argmax(values >= FOUND)) if len(values) else 0
    values = values[first:]
    epochs = np.flatnonzero(~np.isnan(values)) + 1.0
    if len(epochs) < min_epochs or not values[-1] >= FOUND:
        return None
    known, deviations = values[~np.isnan(values)], np.geomspace(1.0, 0.1, len(epochs))
    fit = least_squares(
        lambda parameters: (learning_curve(epochs, *parameters) - known) / deviations,
        x0=(0.9, 0.9, 1.0),
        bounds=([0.0, 0.0, 1e-6], [1.0, 1.0, np.inf]),
    )
    if not fit.success:
        return None
    _, b, c = fit.x
    last = len(values)
    return float(1 - np.exp((b - 1) * np.log(last) - (last**b - 1) / c))


def lasting_slope_fall(ious: Sequence[float | None], *, min_epochs: int = 3) -> float | None:
    """The least of `slope_fall` in this epoch and the four before; None if any of these has no fit.

    The paper's authors decide by one fit. With few epochs, or a slow and noisy curve, it often says that the slope has
    fallen long before it has, and what was corrected then stays open to correction.

    Args:
        ious: as for `slope_fall`.
        min_epochs: with fewer values now, at least 3, there is no result. The fits of the epochs before need 3,
            so that 3 to 7 are alike.
    """
    falls = [slope_fall(ious, min_epochs=min_epochs)]
    while falls[-1] is not None and len(falls) < FITS_IN_A_ROW:
        falls.append(slope_fall(ious[: -len(falls)]))
    known = [fall for fall in falls if fall is not None]
    return min(known) if len(known) == FITS_IN_A_ROW else None


def learning_curve(epoch: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    """a (1 - exp(-t^b / c))."""
    return a * (1 - np.exp(-(epoch**b) / c))


def label_agreement(logits: Tensor, labels: Tensor, counts: Tensor) -> Tensor:
    """Voxels in which the network and the labels both, and either of the two, have a class.

    Args:
        logits: (B, C, [X,] Y, Z).
        labels: (B, 1, [X,] Y, Z), from 0 to C - 1 where they count.
        counts: (B, 1, [X,] Y, Z), true where a voxel takes part.

    Returns:
        (2, C) whole numbers: intersections and unions.
    """
    classes = logits.shape[1]
    pairs = labels.long() * classes + logits.argmax(dim=1, keepdim=True)
    # a bin of their own for voxels that do not count; to pick the others, or by bincount(), a GPU would have to wait
    pairs, size = torch.where(counts, pairs, classes**2).flatten(), classes**2 + 1
    copies = COPIES if pairs.is_cuda else 1
    if copies > 1:  # most voxels are background: additions to one bin wait for each other, those to its copies do not
        pairs += torch.arange(len(pairs), device=pairs.device).remainder_(copies).mul_(size)
    bins = torch.zeros(copies * size, dtype=torch.int32, device=pairs.device)
    bins.scatter_add_(0, pairs, torch.ones_like(pairs, dtype=torch.int32))
    table = bins.view(copies, size).sum(dim=0)[:-1].reshape(classes, classes)
    both = table.diagonal()
    return torch.stack([both, table.sum(0) + table.sum(1) - both])


def region_agreement(logits: Tensor, regions: Tensor, counts: Tensor) -> Tensor:
    """The same for regions (B, C, [X,] Y, Z), which may overlap."""
    predicted, there = (logits > 0) & counts, regions.bool() & counts
    over = (0, *range(2, logits.ndim))
    return torch.stack([(predicted & there).sum(over), (predicted | there).sum(over)])


def corrected_labels(
    logits: Tensor, labels: Tensor, counts: Tensor, is_open: Tensor, *, confidence: float
) -> tuple[Tensor, Tensor]:
    """Labels in whose place stands what the network is sure of, if both classes are open to correction.

    Args:
        logits: (B, C, [X,] Y, Z).
        labels: (B, 1, [X,] Y, Z).
        counts: of the same shape, true where a label may be corrected; the others may have any value.
        is_open: (C,) boolean; background, which gives and takes, is among them.
        confidence: probability above which the network is sure.

    Returns:
        The labels, and where they were changed, a boolean of the same shape.
    """
    logits = logits.float()
    largest, predicted = logits.max(dim=1, keepdim=True)
    is_sure = (largest - logits.logsumexp(dim=1, keepdim=True)).exp() > confidence
    known = torch.where(counts, labels, 0).long()
    changed = counts & is_sure & is_open[known] & is_open[predicted] & (known != predicted)
    return torch.where(changed, predicted.to(labels.dtype), labels), changed


def corrected_regions(
    logits: Tensor, regions: Tensor, counts: Tensor, is_open: Tensor, *, confidence: float
) -> tuple[Tensor, Tensor]:
    """The same for regions (B, C, [X,] Y, Z), each by its own probability: above `confidence`, or below 1 - it."""
    p = logits.float().sigmoid()
    is_sure = torch.where(regions.bool(), p < 1 - confidence, p > confidence)
    changed = counts & is_sure & is_open.reshape(1, -1, *[1] * (logits.ndim - 2))
    return torch.where(changed, ~regions.bool(), regions.bool()).to(regions.dtype), changed
