"""What trainers with several decoders share: how the network is built, and how its outputs are handled."""

from collections.abc import Sequence
from typing import Any, cast

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_ext.networks.multi_decoder import FeatureDropout, MultiDecoderUNet
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable


def unet_with_decoders(perturbations: Sequence[nn.Module], *arguments: Any, **keywords: Any) -> MultiDecoderUNet:
    """The U-Net of the plans with one decoder behind each perturbation, all with initial weights of their own.

    `arguments` are those of nnU-Net's ``build_network_architecture``; the main decoder is the first.
    """
    main, *others = (nnUNetTrainer.build_network_architecture(*arguments, **keywords) for _ in perturbations)
    decoders = [cast(nn.Module, other.decoder) for other in others]
    return MultiDecoderUNet(main, decoders, perturbations)


def dual_branch_unet(
    plans_manager: Any, configuration_manager: Any, *arguments: Any, **keywords: Any
) -> MultiDecoderUNet:
    """The U-Net of the plans with a second decoder behind dropout of features, which a trainer sets; it begins at 0."""
    dropout = FeatureDropout(len(configuration_manager.patch_size), probability=0.0)
    return unet_with_decoders([nn.Identity(), dropout], plans_manager, configuration_manager, *arguments, **keywords)


class MultiDecoderMixin(nnUNetTrainerConfigurable):
    """For trainers whose network is a `MultiDecoderUNet`: in training its output has one entry for each decoder."""

    has_one_decoder = False
    cannot_be_mixed = "the loss on mixed patches is of one decoder, and this trainer has several"

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        network = self.unwrapped_network()
        assert isinstance(network, MultiDecoderUNet)
        network.set_deep_supervision(enabled)

    def set_feature_dropout(self, probability: float) -> None:
        """Set the share of channels that are dropped before each decoder that has dropout."""
        for module in self.unwrapped_network().modules():
            if isinstance(module, FeatureDropout):
                module.dropout.p = probability
