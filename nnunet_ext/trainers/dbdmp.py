"""Learning from partially annotated instances with dynamically mixed pseudo labels (DBDMP, arXiv 2408.09411)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from nnunet_ext.losses.partial_instances import (
    divergence_weighted_cross_entropy,
    log_probabilities,
    mixed_pseudo_labels,
    partial_cross_entropy,
    symmetric_cross_entropy,
    tversky_loss,
)
from nnunet_ext.losses.ramps import sigmoid_ramp
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, dual_branch_unet

Terms = dict[str, torch.Tensor]


class DBDMPMixin(MultiDecoderMixin):
    """Two decoders, one behind dropout of the encoder's features, learn from what is annotated and from each other.

    L = w_s Σ_d (Tversky + SCE + PCE)_d + λ(t) ½ [KLCE(main | aux) + KLCE(aux | main)]. The supervised terms are taken
    at every resolution, the pseudo-label terms at the full one. Voxels of an ignore label leave the supervised terms.
    """

    sections = (*MultiDecoderMixin.sections, "dbdmp")

    unsupported: ClassVar[Mapping[str, str]] = {
        "regions": "pseudo labels are a softmax over classes that exclude each other. Write the regions as labels of "
        "their own, or train each region as a dataset of its own.",
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
        self.set_feature_dropout(self.settings.dbdmp.dropout)

    def loss_terms(self, outputs: Any, batch: Batch) -> Terms:
        main, auxiliary = ([log_probabilities(head) for head in self.heads(branch)] for branch in outputs)
        targets = [target.long() for target in self.heads(batch["target"])]  # once, since every term looks labels up
        terms: Terms = {}
        for heads in (main, auxiliary):
            for weight, log_p, target in zip(self.head_weights(), heads, targets):
                if weight > 0:
                    for name, term in self.supervised_terms(log_p, target).items():
                        terms[name] = terms.get(name, 0.0) + self.settings.dbdmp.supervised_weight * weight * term
        if self.settings.dbdmp.pseudo_label_weight > 0:
            terms["pseudo_labels"] = self.pseudo_label_term(main[0], auxiliary[0], targets[0])
        return terms

    def known(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """What a target says.

        Args:
            target: (B, 1, [X,] Y, Z), nnU-Net's labels.

        Returns:
            Labels without the ignore label; where an instance is annotated; where a voxel takes part in the supervised
            terms, None for everywhere.
        """
        ignore = self.label_manager.ignore_label
        if ignore is None:
            return target, target > 0, None
        counts = target != ignore
        labels = torch.where(counts, target, torch.zeros_like(target))
        return labels, labels > 0, counts

    def supervised_terms(self, log_p: torch.Tensor, target: torch.Tensor) -> Terms:
        """Tversky, symmetric and partial cross-entropy of one head's log-probabilities, each with its own weight."""
        settings = self.settings.dbdmp
        labels, annotated, counts = self.known(target)
        tversky = tversky_loss(log_p, labels, counts, alpha=settings.tversky_alpha, beta=settings.tversky_beta)
        return {
            "tversky": settings.tversky_weight * tversky,
            "symmetric_ce": symmetric_cross_entropy(
                log_p, labels, counts, ce_weight=settings.ce_weight, rce_weight=settings.rce_weight
            ),
            "partial_ce": settings.partial_ce_weight * partial_cross_entropy(log_p, labels, annotated),
        }

    def pseudo_label_term(self, main: torch.Tensor, auxiliary: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """λ(t) ½ [KLCE(main | aux) + KLCE(aux | main)] of the full-resolution heads' log-probabilities."""
        settings = self.settings.dbdmp
        labels, annotated, _ = self.known(target)
        pseudo_labels = mixed_pseudo_labels(
            main,
            auxiliary,
            labels,
            annotated,
            ratio=float(self.shared_rng.random()),
            temperature=settings.temperature,
        )
        ramp = settings.pseudo_label_weight * sigmoid_ramp(self.current_epoch, settings.ramp_epochs)
        self.observe("dbdmp/ramp", ramp)
        self.observe("dbdmp/pseudo_foreground", (pseudo_labels.argmax(dim=1) > 0).float().mean())
        one = divergence_weighted_cross_entropy(main, auxiliary, pseudo_labels)
        other = divergence_weighted_cross_entropy(auxiliary, main, pseudo_labels)
        return ramp * 0.5 * (one + other)


class nnUNetTrainerDBDMP(DBDMPMixin):
    """nnU-Net for datasets in which only some instances are annotated."""

    default_settings: ClassVar[Mapping[str, Any]] = {"num_epochs": 300, "momentum": 0.9}
