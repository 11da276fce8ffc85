"""Decoders that differ from the plans' own in their dilation and in their first weights (TDNet, arXiv 2309.09730)."""

from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

Initialisation = Literal["kaiming", "xavier", "normal"]
INITIALISATIONS: tuple[Initialisation, ...] = ("kaiming", "xavier", "normal")

NORMAL_DEVIATION = 0.02
Convolution = nn.Conv2d | nn.Conv3d


def dilate(decoder: nn.Module, dilation: int) -> None:
    """Spread the convolutions of a decoder, all but those of its deepest stage, where such a kernel exceeds the map.

    Sizes of feature maps and weights stay the same; kernels of one voxel, up-sampling and heads are left alone.

    Args:
        decoder: of dynamic-network-architectures, with `stages` from the deepest to the highest resolution.
        dilation: distance of a kernel's voxels, at least 1.
    """
    stages = cast(nn.ModuleList, decoder.stages)
    for stage in list(stages)[1:]:
        for module in stage.modules():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)):
                spread: Any = tuple(dilation if side > 1 else 1 for side in module.kernel_size)
                module.dilation = spread
                module.padding = tuple(step * (side - 1) // 2 for step, side in zip(spread, module.kernel_size))


def initialise(decoder: nn.Module, kind: Initialisation) -> None:
    """Draw the weights of a decoder's convolutions anew; transposed ones, which up-sample, keep nnU-Net's.

    Args:
        decoder: any module.
        kind: ``kaiming`` leaves what nnU-Net has drawn; ``xavier`` is uniform, ``normal`` has a deviation of 0.02;
            with both, biases are zero.
    """
    if kind == "kaiming":
        return
    for module in decoder.modules():
        if isinstance(module, Convolution):
            if kind == "normal":
                nn.init.normal_(module.weight, std=NORMAL_DEVIATION)
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class BottleneckDropout(nn.Module):
    """In training, sets a share of the bottleneck's entries to zero, drawn anew in every pass, and scales the others.

    Source: arXiv 2309.09730: the share is uniform between 0 and one half.
    """

    def __init__(self, largest: float) -> None:
        """The share is at most `largest`, at least 0 and below 1."""
        super().__init__()
        self.largest = largest

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        *skips, bottleneck = features
        if self.training and self.largest > 0:
            # tensors, not Python numbers: torch.compile would compile anew for each share
            share = self.largest * torch.rand((), device=bottleneck.device)
            is_kept = torch.rand(bottleneck.shape, device=bottleneck.device) >= share
            bottleneck = bottleneck * (is_kept / (1 - share)).to(bottleneck.dtype)
        return [*skips, bottleneck]
