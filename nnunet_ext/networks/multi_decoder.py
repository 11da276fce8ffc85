"""A U-Net with further decoders around its encoder, which take part in training alone."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from torch import Tensor, nn

Outputs: TypeAlias = Tensor | list[Tensor]
"""Logits of one decoder: a tensor (B, C, [X,] Y, Z) or, under deep supervision, a list, highest resolution first."""

AUXILIARY = "auxiliary_decoders."
MAIN = "decoder."


class MultiDecoderUNet(nn.Module):
    """A shared encoder, the main decoder of a plain U-Net, and auxiliary decoders of the same kind.

    Each decoder sees the encoder's features, skips and bottleneck alike, through a perturbation of its own. In training
    the output is one entry for each decoder, the main one first; otherwise it is the main decoder's alone, and nothing
    else is computed. Encoder and main decoder have the names of the plain U-Net in the state dict, so that it becomes
    a plain one by leaving ``auxiliary_decoders.`` out.
    """

    def __init__(
        self, unet: nn.Module, auxiliary_decoders: Sequence[nn.Module], perturbations: Sequence[nn.Module]
    ) -> None:
        """
        Args:
            unet: with ``encoder`` and ``decoder``, as nnU-Net builds it; its parts are taken over.
            auxiliary_decoders: each takes the encoder's features, as the main one.
            perturbations: from the list of the encoder's features, the bottleneck last, to one of the same shapes; one
                for each decoder, the main one first. ``nn.Identity`` leaves them as they are.

        Raises:
            ValueError: if their number does not fit.
        """
        super().__init__()
        decoders = 1 + len(auxiliary_decoders)
        if len(perturbations) != decoders:
            raise ValueError(f"{decoders} decoders need as many perturbations, found {len(perturbations)}.")
        self.encoder: Any = unet.encoder
        self.decoder: Any = unet.decoder
        self.auxiliary_decoders = nn.ModuleList(map(without_encoder, auxiliary_decoders))
        self.perturbations = nn.ModuleList(perturbations)

    def forward(self, data: Tensor) -> Outputs | list[Outputs]:
        features = self.encoder(data)
        if not self.training:
            return self.decoder(features)
        decoders = (self.decoder, *self.auxiliary_decoders)
        return [decoder(perturbation(features)) for decoder, perturbation in zip(decoders, self.perturbations)]

    def set_deep_supervision(self, enabled: bool) -> None:
        """Let every decoder give all resolutions, or the full one alone."""
        for decoder in (self.decoder, *self.auxiliary_decoders):
            decoder.deep_supervision = enabled

    def compute_conv_feature_map_size(self, input_size: Sequence[int]) -> int:
        """Voxels of the main U-Net's feature maps, times their channels: what nnU-Net estimates memory from."""
        return sum(part.compute_conv_feature_map_size(input_size) for part in (self.encoder, self.decoder))

    def stock_key(self, key: str) -> str | None:
        """The name that a state dict's key has in the plain U-Net: that of the main decoder for an auxiliary one."""
        if not key.startswith(AUXILIARY):
            return key
        _, rest = key.removeprefix(AUXILIARY).split(".", 1)
        return f"{MAIN}{rest}"


class FeatureDropout(nn.Module):
    """In training, sets whole channels of every feature map to zero, and scales the others up."""

    def __init__(self, spatial_dims: int, probability: float) -> None:
        """For 2 or 3 spatial dimensions, with the probability that a channel is dropped."""
        super().__init__()
        self.dropout = {2: nn.Dropout2d, 3: nn.Dropout3d}[spatial_dims](probability)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [self.dropout(feature) for feature in features]


def without_encoder(decoder: nn.Module) -> nn.Module:
    """A decoder of nnU-Net that no longer keeps the encoder it was made for: the state dict would have it twice."""
    decoder._modules.pop("encoder", None)
    return decoder
