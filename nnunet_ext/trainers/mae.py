"""Self-supervised pre-training: restore masked blocks of a patch (masked autoencoder, arXiv 2111.06377)."""

from collections.abc import Mapping
from typing import Any, ClassVar

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_ext.augmentation.block_masking import BlockMasking
from nnunet_ext.networks.masked_autoencoder import MaskedAutoencoder
from nnunet_ext.techniques.pretraining import MAE
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.pretraining import RestorationMixin, with_one_head


class nnUNetTrainerMAE(RestorationMixin, technique=MAE):
    """Trains the encoder of the plans' U-Net to restore masked blocks; labels are not looked at.

    L = mean (f(x̃) − x)² over the masked voxels, with x the patch and x̃ the same with most of its blocks set to 0. The
    decoder that restores is not handed on: the checkpoint has a plain one beside it that has learned nothing.
    """

    replaces_loss = True

    left_out: ClassVar[Mapping[str, str]] = {"decoder": "the source's decoder restores images and is never taken"}

    def pretext_network(
        self, plans_manager: Any, configuration_manager: Any, num_input_channels: int, *unused: Any
    ) -> nn.Module:
        """The plain U-Net of the plans, and a decoder more that gives images."""
        plain, restoring = (
            nnUNetTrainer.build_network_architecture(
                plans_manager, configuration_manager, num_input_channels, num_input_channels, False
            )
            for _ in range(2)
        )
        network = MaskedAutoencoder(plain, restoring.decoder)
        with_one_head(network.restoring_decoder)
        return network

    def corruptions(self) -> list[BasicTransform]:
        settings = self.section(MAE)
        return [BlockMasking(settings.block_size, settings.masked_share)]

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        return {"restoration": self.error(self.full_resolution(outputs), batch)}
