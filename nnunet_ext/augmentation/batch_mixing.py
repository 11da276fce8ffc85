"""MixUp and CutMix of the samples in a batch, on the device, after all other augmentation.

Source: arXiv 2412.14846 (MixUp for HNTS-MRG 2024), after arXiv 1710.09412 (MixUp) and 1905.04899 (CutMix).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nnunet_ext.devices import on_device

RATIO_MARGIN = 1e-4


def draw_partners(batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Index (B,) of a partner for each sample, never itself: a uniform cyclic permutation (Sattolo's algorithm).

    Drawn in one pass, where shuffling until nothing stays in place would never end for a batch of one.

    Raises:
        ValueError: for a batch of fewer than two.
    """
    if batch_size < 2:
        raise ValueError(f"A sample needs another one as its partner, but the batch has {batch_size}.")
    partners = np.arange(batch_size)
    for last in range(batch_size - 1, 0, -1):
        other = int(rng.integers(last))
        partners[last], partners[other] = partners[other], partners[last]
    return partners


def draw_ratios(batch_size: int, alpha: float, rng: np.random.Generator) -> np.ndarray:
    """Mixing ratios λ ~ Beta(alpha, alpha), one for each sample, kept off 0 and 1 by 1e-4; (B,)."""
    return np.clip(rng.beta(alpha, alpha, size=batch_size), RATIO_MARGIN, 1 - RATIO_MARGIN)


def blend(values: Tensor, partners: np.ndarray, ratios: np.ndarray) -> Tensor:
    """λ·x + (1 − λ)·x' for each sample x and its partner x'.

    Args:
        values: (B, C, [X,] Y, Z), images or soft targets.
        partners: indices, (B,).
        ratios: λ, (B,), in [0, 1].

    Returns:
        Same shape and device; floating point.
    """
    values = values.float() if not values.is_floating_point() else values
    weights = on_device(torch.from_numpy(ratios).to(values.dtype), values.device)
    others = values[on_device(partners, values.device)]
    return torch.lerp(others, values, weights.view(-1, *[1] * (values.ndim - 1)))


def draw_box(spatial_shape: Sequence[int], rng: np.random.Generator) -> Tensor:
    """A boolean mask ([X,] Y, Z) of a box of half the patch along each axis (at least one voxel), uniformly placed."""
    box = []
    for length in spatial_shape:
        side = max(1, length // 2)
        start = int(rng.integers(length - side + 1))
        box.append(slice(start, start + side))
    mask = torch.zeros(tuple(spatial_shape), dtype=torch.bool)
    mask[tuple(box)] = True
    return mask


def paste(values: Tensor, partners: np.ndarray, region: Tensor) -> Tensor:
    """Each sample with its partner's values inside a region.

    Args:
        values: (B, C, [X,] Y, Z) of any type.
        partners: indices, (B,).
        region: boolean, (B or 1, 1, [X,] Y, Z).

    Returns:
        Same shape, type and device.
    """
    return torch.where(region, values[on_device(partners, values.device)], values)


def class_targets(target: Tensor, num_classes: int, ignore_label: int | None) -> tuple[Tensor, Tensor]:
    """A label map as one channel for each class, and where it counts.

    Args:
        target: (B, 1, [X,] Y, Z), class numbers.
        num_classes: C, background included, `ignore_label` not.
        ignore_label: the number that marks unlabelled voxels, if the dataset has one.

    Returns:
        One-hot float32 (B, C, [X,] Y, Z), all zero in ignored voxels; and a boolean mask (B, 1, [X,] Y, Z), true where
        the voxel is labelled.
    """
    labels = target.long()
    valid = torch.ones_like(labels, dtype=torch.bool) if ignore_label is None else labels != ignore_label
    shape = (labels.shape[0], num_classes, *labels.shape[2:])
    onehot = torch.zeros(shape, dtype=torch.float32, device=target.device)
    onehot.scatter_(1, torch.where(valid, labels, 0), valid.float())
    return onehot, valid


def region_targets(target: Tensor, has_ignore_label: bool) -> tuple[Tensor, Tensor]:
    """nnU-Net's region target as float32, and where it counts.

    Args:
        target: (B, R, [X,] Y, Z), one binary channel for each region, which may overlap; with an ignore label one
            more at the end, set where a voxel is unlabelled.
        has_ignore_label: whether that last channel is there.

    Returns:
        Multi-hot float32 (B, R, [X,] Y, Z), and a boolean mask (B, 1, [X,] Y, Z).
    """
    if not has_ignore_label:
        return target.float(), torch.ones_like(target[:, :1], dtype=torch.bool)
    return target[:, :-1].float(), target[:, -1:] == 0
