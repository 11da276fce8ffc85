"""Scribble supervision by dynamically mixed pseudo labels (DMPLS, arXiv 2203.02106)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from nnunet_ext.losses.hard_labels import log_probabilities, one_hot, tversky_loss
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, dual_branch_unet
from nnunet_ext.trainers.scribbles import ScribbleMixin


class nnUNetTrainerDMPLS(ScribbleMixin, MultiDecoderMixin):
    """Two decoders, one behind dropout of the encoder's features, learn from scribbles and from a mixture of both.

    L = ½ Σ_d pCE_d + λ ½ Σ_d Dice(p_d, ỹ), ỹ the class of the largest α p_main + (1 - α) p_aux, with one α from U(0, 1)
    for each step.
    """

    sections = ("dmpls",)

    default_settings: ClassVar[Mapping[str, Any]] = {
        "num_epochs": 240,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
    }

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The plans' U-Net with a second decoder."""
        return dual_branch_unet(
            plans_manager, configuration_manager, num_input_channels, num_output_channels, enable_deep_supervision
        )

    def initialize(self) -> None:
        super().initialize()
        self.set_feature_dropout(self.settings.dmpls.dropout)

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        branches = [[log_probabilities(head) for head in self.heads(branch)] for branch in outputs]
        scribbles = self.scribbles(batch["target"])
        supervised = [self.partial_ce(heads, scribbles) for heads in branches]
        terms = {"partial_ce": torch.stack(supervised).mean()}
        weight = self.settings.dmpls.pseudo_label_weight
        if weight > 0:
            full = [heads[0] for heads in branches]
            labels = self.pseudo_labels(*full)
            dice = torch.stack([tversky_loss(log_p, labels, alpha=0.5, beta=0.5) for log_p in full])
            terms["pseudo_labels"] = weight * dice.mean()
        return terms

    @torch.no_grad()
    def pseudo_labels(self, main: torch.Tensor, auxiliary: torch.Tensor) -> torch.Tensor:
        """One-hot labels of a random mixture of both branches' log-probabilities (B, C, [X,] Y, Z)."""
        mixture = torch.lerp(auxiliary.exp(), main.exp(), float(self.shared_rng.random()))
        labels = mixture.argmax(dim=1, keepdim=True)
        self.observe("dmpls/pseudo_foreground", (labels > 0).float().mean())
        return one_hot(labels, mixture.shape[1])
