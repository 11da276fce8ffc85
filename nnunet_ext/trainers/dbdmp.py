"""Learning from partially annotated instances with dynamically mixed pseudo labels (DBDMP, arXiv 2408.09411)."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from nnunet_ext.losses.hard_labels import (
    label_log_probabilities,
    log_probabilities,
    one_hot,
    partial_cross_entropy,
    tversky_loss,
)
from nnunet_ext.losses.partial_instances import (
    divergence_weighted_cross_entropy,
    mixed_pseudo_labels,
    symmetric_cross_entropy,
)
from nnunet_ext.losses.ramps import sigmoid_ramp
from nnunet_ext.losses.soft_targets import masked_mean
from nnunet_ext.techniques.dbdmp import DBDMP
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.image_border import ImageBorderMixin
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, dual_branch_unet

Terms = dict[str, Tensor]


class KnownVoxels(NamedTuple):
    """What is known of a batch at one resolution, each (B, 1 or C, [X,] Y, Z)."""

    target: Tensor  # the labels, `one_hot`; background where the ignore label was
    annotated: Tensor  # true where an instance is annotated
    counts: Tensor  # true where a voxel takes part in the supervised terms
    inside: Tensor  # true inside the image, where a voxel takes part in the pseudo-label terms


class DBDMPMixin(ImageBorderMixin, MultiDecoderMixin, technique=DBDMP):
    """Two decoders, one behind dropout of the encoder's features, learn from what is annotated and from each other.

    L = w_s Σ_d (Tversky + SCE + PCE)_d + λ(t) ½ [KLCE(main | aux) + KLCE(aux | main)]. The supervised terms are taken
    at every resolution, the pseudo-label terms at the full one. Voxels of an ignore label leave the supervised terms;
    voxels outside the image leave every term.
    """

    replaces_loss = True

    unsupported: ClassVar[Mapping[str, str]] = {
        "regions": "pseudo labels are a softmax over classes that exclude each other. Write the regions as labels of "
        "their own, or train each region as a dataset of its own."
    }

    build_network_architecture = staticmethod(dual_branch_unet)

    def initialize(self) -> None:
        super().initialize()
        self.set_feature_dropout(self.section(DBDMP).dropout)

    def loss_terms(self, outputs: Any, batch: Batch) -> Terms:
        main, auxiliary = ([log_probabilities(head) for head in self.heads(branch)] for branch in outputs)
        known = [self.known(*one) for one in zip(self.heads(batch["target"]), self.heads(batch["inside"]))]
        terms: Terms = {}
        for heads in (main, auxiliary):
            for weight, log_p, annotation in zip(self.head_weights(), heads, known):
                if weight > 0:
                    for name, term in self.supervised_terms(log_p, annotation).items():
                        terms[name] = terms.get(name, 0.0) + self.section(DBDMP).supervised_weight * weight * term
        if self.section(DBDMP).pseudo_label_weight > 0:
            terms["pseudo_labels"] = self.pseudo_label_term(main[0], auxiliary[0], known[0])
        return terms

    def known(self, target: Tensor, inside: Tensor) -> KnownVoxels:
        """What labels and image border, (B, 1, [X,] Y, Z), say at one resolution, made ready for every term."""
        labels, counts = target.long(), inside
        ignore = self.label_manager.ignore_label
        if ignore is not None:
            is_ignored = labels == ignore
            counts, labels = counts & ~is_ignored, torch.where(is_ignored, 0, labels)
        classes = self.label_manager.num_segmentation_heads
        return KnownVoxels(one_hot(labels, classes), annotated=labels > 0, counts=counts, inside=inside)

    def supervised_terms(self, log_p: Tensor, annotation: KnownVoxels) -> Terms:
        """Tversky, symmetric and partial cross-entropy of one head's log-probabilities, each with its own weight."""
        settings, target, counts = self.section(DBDMP), annotation.target, annotation.counts
        rates = {"alpha": settings.tversky_alpha, "beta": settings.tversky_beta}
        tversky = tversky_loss(log_p, target, counts, **rates, total=self.total)
        label_log_p = label_log_probabilities(log_p, target)
        weights = {"ce_weight": settings.ce_weight, "rce_weight": settings.rce_weight}
        partial_ce = partial_cross_entropy(label_log_p, annotation.annotated, total=self.total)
        return {
            "tversky": settings.tversky_weight * tversky,
            "symmetric_ce": symmetric_cross_entropy(label_log_p, counts, **weights),
            "partial_ce": settings.partial_ce_weight * partial_ce,
        }

    def pseudo_label_term(self, main: Tensor, auxiliary: Tensor, annotation: KnownVoxels) -> Tensor:
        """λ(t) ½ [KLCE(main | aux) + KLCE(aux | main)] of the full-resolution heads' log-probabilities."""
        settings, known = self.section(DBDMP), (annotation.target, annotation.annotated)
        ratio, temperature = float(self.shared_rng.random()), settings.temperature
        pseudo_labels = mixed_pseudo_labels(main, auxiliary, *known, ratio=ratio, temperature=temperature)
        ramp = settings.pseudo_label_weight * sigmoid_ramp(self.current_epoch, settings.ramp_epochs)
        self.observe("dbdmp/ramp", ramp)
        # what argmax() > 0 says; argmax over the classes took half of all losses' time on a CPU
        is_foreground = pseudo_labels[:, 1:].amax(dim=1, keepdim=True) > pseudo_labels[:, :1]
        self.observe("dbdmp/pseudo_foreground", masked_mean(is_foreground.float(), annotation.inside))
        one = divergence_weighted_cross_entropy(main, auxiliary, pseudo_labels, annotation.inside)
        other = divergence_weighted_cross_entropy(auxiliary, main, pseudo_labels, annotation.inside)
        return ramp * 0.5 * (one + other)


class nnUNetTrainerDBDMP(DBDMPMixin):
    """nnU-Net for datasets in which only some instances are annotated."""

    default_settings: ClassVar[Mapping[str, Any]] = {"num_epochs": 300, "momentum": 0.9}
