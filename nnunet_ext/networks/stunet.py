"""STU-Net, a residual U-Net of which public weights exist."""

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.initialization.weight_init import InitWeights_He
from torch import Tensor, nn
from torch.nn.functional import interpolate


class STUNet(nn.Module):
    """A 3D U-Net of residual blocks, which shrinks by strided convolutions and grows by the nearest neighbour.

    Each stage of encoder and decoder begins with a block whose shortcut is a convolution of kernel 1. Its arguments,
    and the names ``encoder``, ``decoder`` and ``decoder.seg_layers``, are those of nnU-Net's U-Nets, so that plans can
    name it and nnU-Net's trainers work with it. A machine that trains or predicts with it needs this package.

    Source: arXiv 2304.06716, figure 2.
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        n_stages: int,
        features_per_stage: Sequence[int],
        kernel_sizes: Sequence[Sequence[int]],
        strides: Sequence[Sequence[int]],
        n_blocks_per_stage: Sequence[int],
        conv_op: type[nn.Module] = nn.Conv3d,
        deep_supervision: bool = False,
    ) -> None:
        """
        Args:
            input_channels: of the image.
            num_classes: outputs of each head.
            n_stages: of the encoder; the decoder has one fewer.
            features_per_stage: of the encoder, and of the decoder at the same resolution.
            kernel_sizes: of each stage, odd.
            strides: with which each stage of the encoder begins.
            n_blocks_per_stage: of the encoder, and of the decoder at the same resolution.
            conv_op: `torch.nn.Conv3d`; plans name it.
            deep_supervision: whether the output is a list, one entry for each resolution, the highest first.

        Raises:
            ValueError: if the number of stages differs, or if it is to be of other dimensions.
        """
        super().__init__()
        stages = list(zip(features_per_stage, kernel_sizes, n_blocks_per_stage))
        if conv_op is not nn.Conv3d or not len(stages) == len(strides) == n_stages:
            raise ValueError(f"STUNet is a 3D network, with an entry for each of its {n_stages} stages.")
        self.encoder = Encoder(input_channels, stages, strides)
        self.decoder = Decoder(num_classes, stages, strides, deep_supervision=deep_supervision)

    input_weights = ("encoder.stages.0.0.conv1.weight", "encoder.stages.0.0.conv3.weight")
    """The convolutions that read the image."""

    def forward(self, data: Tensor) -> Tensor | list[Tensor]:
        return self.decoder(self.encoder(data))

    @staticmethod
    def initialize(module: nn.Module) -> None:
        """Initialise a module's weights as nnU-Net does."""
        InitWeights_He(1e-2)(module)


Stage = tuple[int, Sequence[int], int]
"""Features, kernel, blocks."""


class Encoder(nn.Module):
    """Gives the features of each stage, the highest resolution first."""

    def __init__(self, input_channels: int, stages: Sequence[Stage], strides: Sequence[Sequence[int]]) -> None:
        super().__init__()
        inputs = [input_channels, *(features for features, _, _ in stages)]
        self.stages = nn.ModuleList([blocks(*one) for one in zip(inputs, stages, strides)])

    def forward(self, data: Tensor) -> list[Tensor]:
        features = []
        for stage in self.stages:
            data = stage(data)
            features.append(data)
        return features


class Decoder(nn.Module):
    """Gives logits from the encoder's features. Its stages are numbered from the lowest resolution."""

    def __init__(
        self, num_classes: int, stages: Sequence[Stage], strides: Sequence[Sequence[int]], *, deep_supervision: bool
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.factors = [[float(step) for step in stride] for stride in reversed(strides[1:])]
        levels = list(reversed(stages))
        widths = [features for features, _, _ in levels]
        self.upsampling = nn.ModuleList([nn.Conv3d(*pair, kernel_size=1) for pair in zip(widths, widths[1:])])
        self.stages = nn.ModuleList([blocks(2 * one[0], one, 1) for one in levels[1:]])
        self.seg_layers = nn.ModuleList([nn.Conv3d(width, num_classes, kernel_size=1) for width in widths[1:]])

    def forward(self, features: Sequence[Tensor]) -> Tensor | list[Tensor]:
        *skips, data = features
        outputs: list[Tensor] = []
        for level, skip in enumerate(reversed(skips)):
            # the authors' order is the other one, with the same result: a 1 × 1 convolution looks at each voxel alone
            narrow = self.upsampling[level](data)
            data = interpolate(narrow, scale_factor=self.factors[level], mode="nearest").to(skip.dtype)
            data = self.stages[level](torch.cat((data, skip), dim=1))
            if self.deep_supervision or level == len(skips) - 1:
                outputs.insert(0, self.seg_layers[level](data))
        return outputs if self.deep_supervision else outputs[0]


def blocks(inputs: int, stage: Stage, stride: int | Sequence[int]) -> nn.Sequential:
    """The blocks of a stage, of which the first one changes number of features and resolution."""
    features, kernel, number = stage
    first = ResidualBlock(inputs, features, kernel, stride=stride)
    return nn.Sequential(first, *(ResidualBlock(features, features, kernel) for _ in range(number - 1)))


class ResidualBlock(nn.Module):
    """Two convolutions, each with instance normalisation, and a shortcut around both."""

    def __init__(
        self, inputs: int, features: int, kernel: Sequence[int], *, stride: int | Sequence[int] | None = None
    ) -> None:
        """With a stride, 1 included, the shortcut is a convolution of kernel 1; without one it is the input itself."""
        super().__init__()
        size: Any = tuple(kernel)
        step: Any = 1 if stride is None else stride if isinstance(stride, int) else tuple(stride)
        padding: Any = tuple(side // 2 for side in size)
        self.conv1 = nn.Conv3d(inputs, features, size, stride=step, padding=padding)
        self.norm1 = nn.InstanceNorm3d(features, affine=True)
        self.conv2 = nn.Conv3d(features, features, size, padding=padding)
        self.norm2 = nn.InstanceNorm3d(features, affine=True)
        self.conv3: nn.Module = (
            nn.Identity() if stride is None else nn.Conv3d(inputs, features, kernel_size=1, stride=step)
        )
        self.nonlin = nn.LeakyReLU(inplace=True)

    def forward(self, data: Tensor) -> Tensor:
        features = self.norm2(self.conv2(self.nonlin(self.norm1(self.conv1(data)))))
        return self.nonlin(features + self.conv3(data))
