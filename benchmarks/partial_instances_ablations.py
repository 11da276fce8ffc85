"""Trainers that exist for the benchmark alone: DBDMP with a part of it taken out, or as it was once released."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nnunet_ext.losses.hard_labels import one_hot
from nnunet_ext.losses.partial_instances import divergence_weighted_cross_entropy
from nnunet_ext.losses.ramps import sigmoid_ramp
from nnunet_ext.networks.multi_decoder import MultiDecoderUNet
from nnunet_ext.techniques.dbdmp import DBDMP
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.dbdmp import KnownVoxels, nnUNetTrainerDBDMP
from nnunet_ext.trainers.multi_decoder import unet_with_decoders


class nnUNetTrainerDBDMPOneDecoder(nnUNetTrainerDBDMP):
    """DBDMP without the second decoder: pseudo labels are the network's own output, sharpened.

    The one branch stands for both. So the supervised terms keep their total weight, the mixture is the output itself
    whatever the ratio, and with a divergence of zero everywhere KLCE is the plain soft cross-entropy.
    """

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> MultiDecoderUNet:
        """The plans' U-Net, with the output of a network with several decoders."""
        return unet_with_decoders(
            [nn.Identity()],
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_output_channels,
            enable_deep_supervision,
        )

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        (branch,) = outputs
        return super().loss_terms([branch, branch], batch)


class nnUNetTrainerDBDMPReleasedKLCE(nnUNetTrainerDBDMP):
    """DBDMP with KLCE as its first release (LNQ2023_training_code, baeb8af) computes it.

    There the pseudo label's background channel, a probability below 1, is truncated to an integer and taken as the
    class of the voxel. That is class 0 everywhere, annotated voxels included: the term draws every voxel to background.
    """

    def pseudo_label_term(self, main: torch.Tensor, auxiliary: torch.Tensor, annotation: KnownVoxels) -> torch.Tensor:
        """λ(t) ½ [KLCE(main | aux) + KLCE(aux | main)] against background everywhere."""
        settings = self.section(DBDMP)
        ramp = settings.pseudo_label_weight * sigmoid_ramp(self.current_epoch, settings.ramp_epochs)
        self.observe("dbdmp/ramp", ramp)
        background = one_hot(torch.zeros_like(annotation.annotated), main.shape[1])
        one = divergence_weighted_cross_entropy(main, auxiliary, background, annotation.inside)
        other = divergence_weighted_cross_entropy(auxiliary, main, background, annotation.inside)
        return ramp * 0.5 * (one + other)
