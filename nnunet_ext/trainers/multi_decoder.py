"""What trainers with several decoders share: how the network is built, and how its outputs are handled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_ext.networks.multi_decoder import MultiDecoderUNet
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable


def unet_with_decoders(perturbations: Sequence[nn.Module], *arguments: Any) -> MultiDecoderUNet:
    """The U-Net of the plans with one decoder for each perturbation, all with initial weights of their own.

    Args:
        perturbations: of the encoder's features before each decoder, the main one first.
        arguments: of nnU-Net's ``build_network_architecture``.
    """
    main, *others = (nnUNetTrainer.build_network_architecture(*arguments) for _ in perturbations)
    decoders = [cast(nn.Module, other.decoder) for other in others]
    return MultiDecoderUNet(main, decoders, perturbations)


class MultiDecoderMixin(nnUNetTrainerConfigurable):
    """For trainers whose network is a `MultiDecoderUNet`: in training its output has one entry for each decoder."""

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        network = self.unwrapped_network()
        assert isinstance(network, MultiDecoderUNet)
        network.set_deep_supervision(enabled)

    def heads(self, outputs: Any) -> list[torch.Tensor]:
        """One decoder's logits by resolution, the full one first."""
        return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]

    def head_weights(self) -> list[float]:
        """The weight of each resolution, as in nnU-Net's own loss."""
        return [float(weight) for weight in self.loss.weight_factors] if self.enable_deep_supervision else [1.0]
