"""Self-supervised pre-training: undo the corruptions of a patch (Models Genesis, arXiv 2004.07882)."""

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor, nn

from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, LocalShuffling, Painting
from nnunet_ext.techniques.pretraining import MODELS_GENESIS
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, dual_branch_unet
from nnunet_ext.trainers.pretraining import RestorationMixin, with_one_head


class nnUNetTrainerModelsGenesis(MultiDecoderMixin, RestorationMixin, technique=MODELS_GENESIS):
    """Trains encoder and decoders of the DBDMP network to restore images; labels are not looked at.

    L = MSE(main, x) + MSE(auxiliary, x), with x the patch before it was corrupted. Everything but the heads can be
    taken over by another training.
    """

    replaces_loss = True

    def pretext_network(
        self, plans_manager: Any, configuration_manager: Any, num_input_channels: int, *unused: Any
    ) -> nn.Module:
        """The network of DBDMP with heads that give images: a channel for each input channel."""
        network = dual_branch_unet(plans_manager, configuration_manager, num_input_channels, num_input_channels, False)
        for decoder in (network.decoder, *network.auxiliary_decoders):
            with_one_head(decoder)
        return network

    def initialize(self) -> None:
        super().initialize()
        self.set_feature_dropout(self.section(MODELS_GENESIS).dropout)

    def corruptions(self) -> list[BasicTransform]:
        """Those of the authors, in their order."""
        # the authors flip up to three times along a drawn axis; here flips are those of the training that starts later
        settings = self.section(MODELS_GENESIS)
        return [
            RandomTransform(LocalShuffling(), apply_probability=settings.shuffling_probability),
            RandomTransform(BezierIntensity(), apply_probability=settings.intensity_probability),
            RandomTransform(Painting(), apply_probability=settings.painting_probability),
        ]

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        losses = [self.error(self.full_resolution(one), batch) for one in outputs]
        return dict(zip(("restoration", "auxiliary_restoration"), losses))
