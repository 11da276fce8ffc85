"""A U-Net whose encoder learns beside a decoder that is thrown away afterwards."""

from typing import Any

from torch import Tensor, nn

from nnunet_ext.networks.multi_decoder import without_encoder


class MaskedAutoencoder(nn.Module):
    """An encoder, a decoder that restores images, and the decoder of the plain U-Net, which takes no part.

    Encoder and plain decoder have the names of the plain U-Net in the state dict. The plain decoder keeps its initial
    weights, so that nnU-Net's ``-pretrained_weights`` finds all that it wants: a trained encoder, and a decoder that
    has learned nothing. What restores is under ``restoring_decoder.``, which no other network has.
    """

    def __init__(self, unet: nn.Module, restoring_decoder: nn.Module) -> None:
        """
        Args:
            unet: with ``encoder`` and ``decoder``, as nnU-Net builds it; its parts are taken over.
            restoring_decoder: takes the encoder's features, and gives an image.
        """
        super().__init__()
        self.encoder: Any = unet.encoder
        self.decoder: Any = unet.decoder
        self.restoring_decoder = without_encoder(restoring_decoder)
        # DDP allows nothing to learn that takes no part in a step
        self.decoder.requires_grad_(False)
        self.encoder.requires_grad_(True)

    def forward(self, data: Tensor) -> Tensor:
        return self.restoring_decoder(self.encoder(data))
