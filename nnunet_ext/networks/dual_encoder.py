"""A U-Net with a second encoder for what is known from a prior scan (DFUNet, arXiv 2412.14846)."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from dynamic_network_architectures.building_blocks.helper import get_matching_instancenorm
from torch import Tensor, nn

Fusion: TypeAlias = Literal["gated", "add", "concat", "difference"]

CONTEXT = ("context_encoder.", "fusions.")
"""What the names of the parts begin with that a plain U-Net does not have."""


class GatedFusion(nn.Module):
    """The paper's: where the context says so, and in the channels that then stand out, features are raised.

    With features x (B, C, …) and context c (B, K, …):  s = σ(w ∗ c), one map;  x₁ = s ⊙ x;
    v = C · softmax_C(W · mean(x₁) + b), one number for each channel;  x ← x + x₁ ⊙ v.

    Source: arXiv 2412.14846; with all weights zero it is x ← 1.5 x.
    """

    def __init__(self, features: int, context_features: int, conv_op: type[nn.Module]) -> None:
        super().__init__()
        self.spatial_gate: nn.Module = conv_op(context_features, 1, 1)
        self.channel_gate = nn.Linear(features, features)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        raised = torch.sigmoid(self.spatial_gate(context)) * x
        weights = self.channel_gate(raised.flatten(2).mean(dim=2))
        # float32: over many channels a softmax has too small numbers for half precision
        weights = x.shape[1] * weights.float().softmax(dim=1)
        return x + raised * weights.to(raised.dtype).reshape(*x.shape[:2], *[1] * (x.ndim - 2))


class AddedContext(nn.Module):
    """x ← x + w ∗ c, by a 1 × 1 convolution that is zero at the start: the training begins as that of a plain U-Net."""

    def __init__(self, features: int, context_features: int, conv_op: type[nn.Module]) -> None:
        super().__init__()
        self.projection: nn.Module = conv_op(context_features, features, 1)
        for parameter in self.projection.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return x + self.projection(context)


class ConcatenatedContext(nn.Module):
    """x ← w ∗ [x, c], by a 1 × 1 convolution that leaves x as it is at the start."""

    def __init__(self, features: int, context_features: int, conv_op: type[nn.Module]) -> None:
        super().__init__()
        self.projection: nn.Module = conv_op(features + context_features, features, 1)
        for name, parameter in self.projection.named_parameters():
            nn.init.zeros_(parameter)
            if name == "weight":
                with torch.no_grad():
                    parameter[range(features), range(features)] = 1.0

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        return self.projection(torch.cat([x, context], dim=1))


class DifferenceWeighting(nn.Module):
    """x ← x + x ⊙ N(x − w ∗ c): features count for more where they differ from the prior's.

    N is instance normalisation with a scale γ and a shift β for each channel, which begin at 1 and 0; w is a 1 × 1
    convolution. As in the paper, the decoder gets features weighted so at every resolution, and the encoder never sees
    the prior. In the paper one encoder sees both scans; here the prior, which may have labels, has one of its own.

    Source: arXiv 2409.13416.
    """

    def __init__(self, features: int, context_features: int, conv_op: type[nn.Module]) -> None:
        super().__init__()
        self.projection: nn.Module = conv_op(context_features, features, 1)
        self.norm = get_matching_instancenorm(conv_op)(features, affine=True)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        # float32: where few voxels have a feature, both factors are large, and half precision has no such number
        weighted = x.float() * (1 + self.norm(x - self.projection(context)).float())
        if x.dtype != torch.float32:
            limit = torch.finfo(x.dtype).max
            weighted = weighted.clamp(-limit, limit)
        return weighted.to(x.dtype)


FUSIONS: dict[Fusion, type[GatedFusion | AddedContext | ConcatenatedContext | DifferenceWeighting]] = {
    "gated": GatedFusion,
    "add": AddedContext,
    "concat": ConcatenatedContext,
    "difference": DifferenceWeighting,
}


class DualEncoderUNet(nn.Module):
    """A plain U-Net that sees the current scan, and an encoder beside its own that sees the prior one.

    After every down-sampling the prior's features are fused into the current ones, on which the next stage works; the
    context encoder never sees the current scan. The decoder is the U-Net's and receives the skips as they were before
    fusion, unless they are fused too. With ``difference`` it is the other way round: every skip is fused, and each
    stage works on what the one before gave. Encoder and decoder have the names of the plain U-Net in the state dict.
    """

    def __init__(
        self,
        unet: Any,
        context_encoder: Any,
        *,
        current: Sequence[int],
        prior: Sequence[int],
        fusion: Fusion = "add",
        fuse_skips: bool = False,
    ) -> None:
        """
        Args:
            unet: with ``encoder`` and ``decoder``, as nnU-Net builds it, for the current channels.
            context_encoder: of the same stages, with any number of features, for the prior channels; returns skips.
            current: numbers of the input channels that the U-Net sees.
            prior: numbers of those that the context encoder sees.
            fusion: how features of both are joined.
            fuse_skips: fuse at full resolution too, and hand the decoder fused features; ``difference`` always does.

        Raises:
            NotImplementedError: if the encoder does not say what it gives, as nnU-Net's do.
        """
        super().__init__()
        if not hasattr(unet.encoder, "output_channels"):
            raise NotImplementedError(
                f"The dual encoder needs an encoder of nnU-Net's; the plans have a {type(unet).__name__}. Plan with "
                "nnU-Net's own networks, or use dual_encoder.fusion=early, which has no second encoder."
            )
        self.encoder: Any = unet.encoder
        self.decoder: Any = unet.decoder
        self.context_encoder: Any = context_encoder
        self.current = tuple(current)
        self.prior = tuple(prior)
        self.encoder_goes_on_fused = fusion != "difference"
        self.fuse_skips = fuse_skips or not self.encoder_goes_on_fused
        conv_op = unet.encoder.conv_op
        sizes = list(zip(unet.encoder.output_channels, context_encoder.output_channels))
        self.first_fused = 0 if self.fuse_skips else 1
        self.fusions = nn.ModuleList(FUSIONS[fusion](*size, conv_op) for size in sizes[self.first_fused :])

    def forward(self, data: Tensor) -> Tensor | list[Tensor]:
        context = self.context_encoder(channels_of(data, self.prior))
        x = channels_of(data, self.current)
        stem = getattr(self.encoder, "stem", None)
        if stem is not None:
            x = stem(x)
        features = []
        for level, stage in enumerate(self.encoder.stages):
            before = fused = stage(x)
            if level >= self.first_fused:
                fused = self.fusions[level - self.first_fused](before, context[level])
            features.append(fused if self.fuse_skips else before)
            x = fused if self.encoder_goes_on_fused else before
        features[-1] = fused  # the bottleneck is no skip
        return self.decoder(features)

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Voxels of all feature maps, times their channels: what nnU-Net estimates memory from."""
        parts = (self.encoder, self.decoder, self.context_encoder)
        return sum(part.compute_conv_feature_map_size(input_size) for part in parts)

    @property
    def stock_inputs(self) -> tuple[int, ...]:
        """The input channels that the part sees that a plain U-Net has too."""
        return self.current

    def stock_key(self, key: str) -> str | None:
        """The name that a state dict's key has in the plain U-Net; None for what that does not have."""
        return None if key.startswith(CONTEXT) else key


def channels_of(data: Tensor, channels: Sequence[int]) -> Tensor:
    """Some channels of (B, C, [X,] Y, Z) data; without a copy if they stand together."""
    first, last = channels[0], channels[-1]
    if tuple(channels) == tuple(range(first, last + 1)):
        return data[:, first : last + 1]
    return torch.stack([data[:, channel] for channel in channels], dim=1)
