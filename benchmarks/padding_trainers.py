"""Trainers that exist for one benchmark alone: padding counted as annotated background, or not, against the rule."""

from __future__ import annotations

from typing import Any

import torch

from nnunet_ext.augmentation.image_border import ignored_outside
from nnunet_ext.trainers import nnUNetTrainerDBDMP, nnUNetTrainerDMPLS, nnUNetTrainerPartialCE, nnUNetTrainerTDNet
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.dbdmp import KnownVoxels
from nnunet_ext.trainers.image_border import ImageBorderMixin


class PaddingIsBackground(ImageBorderMixin):
    """What nnU-Net's transforms make of padding, background, is believed."""

    def prepare_batch(self, batch: Batch, *, training: bool) -> Batch:
        batch = super().prepare_batch(batch, training=training)
        everywhere: Any = [torch.ones_like(one) for one in self.heads(batch["inside"])]
        return {**batch, "inside": everywhere if isinstance(batch["target"], list) else everywhere[0]}


class nnUNetTrainerTDNetPadding(PaddingIsBackground, nnUNetTrainerTDNet):
    """TDNet as it was."""


class nnUNetTrainerDMPLSPadding(PaddingIsBackground, nnUNetTrainerDMPLS):
    """DMPLS as it was."""


class nnUNetTrainerPartialCEPadding(PaddingIsBackground, nnUNetTrainerPartialCE):
    """Partial cross-entropy as it was."""


class nnUNetTrainerDBDMPSupervisedPadding(nnUNetTrainerDBDMP):
    """DBDMP whose supervised terms take padding for background; its pseudo-label terms leave it out."""

    def known(self, target: torch.Tensor, inside: torch.Tensor) -> KnownVoxels:
        return super().known(target, torch.ones_like(inside))._replace(inside=inside)


class nnUNetTrainerWithoutPadding(ImageBorderMixin):
    """Stock nnU-Net whose loss leaves out what lies outside the image, by the ignore label."""

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        ignore = self.label_manager.ignore_label
        pairs = zip(self.heads(batch["target"]), self.heads(batch["inside"]))
        heads = [ignored_outside(target, inside, ignore, has_regions=False) for target, inside in pairs]
        target = heads if isinstance(batch["target"], list) else heads[0]
        return super().loss_terms(outputs, {**batch, "target": target})
