"""What trainers share that learn from partial labels: what lies outside the image was annotated by nobody."""

from __future__ import annotations

from typing import Any, cast

import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_ext.augmentation.image_border import CasesWithMarkedAir, keeping_outside, without_outside
from nnunet_ext.trainers.base import Batch, nnUNetTrainerConfigurable


class ImageBorderMixin(nnUNetTrainerConfigurable):
    """Prepared batches say which voxels lie inside the image, under ``inside``.

    It is a boolean (B, 1, [X,] Y, Z) for each resolution, a list like ``target`` under deep supervision. Voxels outside
    come from padding, rotation and scaling. ``target`` is nnU-Net's, with background there; in validation it has the
    ignore label there if the dataset has one, so that nnU-Net's validation loss and pseudo Dice leave these voxels out.
    """

    def get_tr_and_val_datasets(self) -> tuple[CasesWithMarkedAir, CasesWithMarkedAir]:
        """nnU-Net's, which tell air from padding."""
        training, validation = super().get_tr_and_val_datasets()
        return CasesWithMarkedAir(training), CasesWithMarkedAir(validation)

    # nnU-Net's two are static, but it calls them on the trainer
    def get_training_transforms(self, *args: Any, **kwargs: Any) -> ComposeTransforms:
        """nnU-Net's, which keep what lies outside the image."""
        return keeping_outside(cast(ComposeTransforms, super().get_training_transforms(*args, **kwargs)))

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> ComposeTransforms:
        """nnU-Net's, which keep what lies outside the image."""
        return keeping_outside(cast(ComposeTransforms, super().get_validation_transforms(*args, **kwargs)))

    def prepare_batch(self, batch: Batch, *, training: bool) -> Batch:
        batch = super().prepare_batch(batch, training=training)
        has_regions = self.label_manager.has_regions
        heads = [without_outside(head, has_regions=has_regions) for head in self.heads(batch["target"])]
        if not training:
            heads = [(self.ignored_outside(target, is_inside), is_inside) for target, is_inside in heads]
        targets, inside = [target for target, _ in heads], [is_inside for _, is_inside in heads]
        if not isinstance(batch["target"], list):
            return {**batch, "target": targets[0], "inside": inside[0]}
        return {**batch, "target": targets, "inside": inside}

    def ignored_outside(self, target: torch.Tensor, is_inside: torch.Tensor) -> torch.Tensor:
        """nnU-Net's target with the ignore label outside the image, if the dataset has one.

        Args:
            target: (B, 1, [X,] Y, Z) labels, or (B, R, [X,] Y, Z) regions, the last one that of the ignore label.
            is_inside: (B, 1, [X,] Y, Z).
        """
        if not self.label_manager.has_ignore_label:
            return target
        if self.label_manager.has_regions:
            return torch.cat([target[:, :-1], target[:, -1:].bool() | ~is_inside], dim=1)
        return torch.where(is_inside, target, self.label_manager.ignore_label)
