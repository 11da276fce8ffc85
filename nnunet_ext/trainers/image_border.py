"""What trainers share that learn from partial labels: what lies outside the image was annotated by nobody."""

from typing import Any, cast

from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms

from nnunet_ext.augmentation.image_border import CasesWithMarkedAir, ignored_outside, keeping_outside, without_outside
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
            ignore = self.label_manager.ignore_label
            heads = [(ignored_outside(*one, ignore, has_regions=has_regions), one[1]) for one in heads]
        targets, inside = [target for target, _ in heads], [is_inside for _, is_inside in heads]
        if not isinstance(batch["target"], list):
            return {**batch, "target": targets[0], "inside": inside[0]}
        return {**batch, "target": targets, "inside": inside}
