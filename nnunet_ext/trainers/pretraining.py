"""What trainers share that pre-train on images without labels."""

import math
from collections.abc import Mapping, Sequence
from os.path import join
from typing import Any, ClassVar

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch import Tensor, nn
from torch import distributed as dist

from nnunet_ext.augmentation.image_border import CasesWithMarkedAir
from nnunet_ext.augmentation.patch_places import UniformPatchCases
from nnunet_ext.augmentation.restoration import CleanImageAsTarget, image_and_counts
from nnunet_ext.checkpoints.heads import IMAGES, OUTPUTS
from nnunet_ext.checkpoints.sources.source import LEFT_OUT
from nnunet_ext.errors import UserError
from nnunet_ext.losses.restoration import squared_error, squared_sums
from nnunet_ext.trainers.base import Batch, nnUNetTrainerConfigurable


class PretrainingMixin(nnUNetTrainerConfigurable):
    """Learns from images alone, at full resolution, and gives a start for other trainings.

    A subclass has a network (`pretext_network`), transforms that make its task of a patch, and a loss. Patches are
    drawn anywhere and loaded in their final size. The segmentation that the first transform gets is -1 where a patch
    was padded, and there alone; a subclass leaves these voxels out of its loss.
    """

    segments = False
    outputs: ClassVar[str]
    """What the heads give (`nnunet_ext.checkpoints.heads`)."""
    left_out: ClassVar[Mapping[str, str]] = {}
    """Why parts of the network, by the beginning of their names, are no start for another training."""

    default_settings: ClassVar[Mapping[str, Any]] = {"oversample_foreground_percent": 0.0}
    unsupported: ClassVar[Mapping[str, str]] = {
        "cascade": "the second stage of a cascade reads labels beside the image, and there is nothing to learn from "
        "them. Pre-train on the configuration that the first stage uses."
    }

    def pretext_network(
        self, plans_manager: Any, configuration_manager: Any, num_input_channels: int, *unused: Any
    ) -> nn.Module:
        """The network; the arguments are those of nnU-Net's ``build_network_architecture``."""
        raise NotImplementedError

    def initialize(self) -> None:
        # blends and textures cannot be told at lower resolutions, and no head is handed on
        self.enable_deep_supervision = False
        # not the class's own, which is what prediction calls
        self.build_network_architecture = self.pretext_network  # type: ignore[method-assign]
        super().initialize()

    @staticmethod
    def build_network_architecture(plans_manager: Any, *arguments: Any, **keywords: Any) -> nn.Module:
        """Raise a UserError: this is what nnU-Net's predictor builds its network with."""
        raise UserError(
            "A pre-training on images alone has no segmentation to predict. Start a training from its checkpoint "
            "(-pretrained_weights) and predict with that one."
        )

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Sequence[int], Any]:
        """As nnU-Net's, but patches are loaded in their final size: nothing will be rotated or scaled in them."""
        rotation, _, _, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return rotation, False, self.configuration_manager.patch_size, mirror_axes

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's, which tell air from padding, and of which an ignore label does not choose the patches."""
        datasets = super().get_tr_and_val_datasets()
        if self.label_manager.has_ignore_label:
            datasets = [UniformPatchCases(one, self.configuration_manager.patch_size) for one in datasets]
        training, validation = map(CasesWithMarkedAir, datasets)
        return training, validation

    def augmentation(self, flips: list[BasicTransform]) -> list[BasicTransform]:
        """The transforms of a training patch before its task is made of it: nnU-Net's flips of image and target."""
        return flips

    def pretext(self) -> list[BasicTransform]:
        """The transforms that make the task of a patch; validation has them alone."""
        raise NotImplementedError

    # nnU-Net's are static, but it calls them on the trainer, whose settings these need
    def get_training_transforms(
        self, patch_size: Any, rotation: Any, scales: Any, mirror_axes: Any, *args: Any, **kwargs: Any
    ) -> BasicTransform:
        """Flips along the axes that the training may flip along, then the task."""
        flips: list[BasicTransform] = [MirrorTransform(allowed_axes=mirror_axes)] if mirror_axes else []
        return ComposeTransforms([*self.augmentation(flips), *self.pretext()])

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """The task alone."""
        return ComposeTransforms(self.pretext())

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: there is no segmentation to validate."""
        self.print_to_log_file(
            "A pre-training has no segmentation to validate. Start another training from it: nnUNetv2_train … "
            f"-pretrained_weights {join(self.output_folder, 'checkpoint_final.pth')}"
        )

    def extra_state(self) -> dict[str, Any]:
        parts = {LEFT_OUT: dict(self.left_out)} if self.left_out else {}
        return {**super().extra_state(), OUTPUTS: self.outputs, **parts}


class RestorationMixin(PretrainingMixin):
    """Restores images that were corrupted. ``target`` is the image as it was, and ``counts`` says where it counts."""

    outputs = IMAGES

    def corruptions(self) -> list[BasicTransform]:
        """What the network learns to undo; the image before them is the target."""
        raise NotImplementedError

    def pretext(self) -> list[BasicTransform]:
        return [CleanImageAsTarget(), *self.corruptions()]

    def prepare_batch(self, batch: Batch, *, training: bool) -> Batch:
        """Beside ``target``, (B, C, [X,] Y, Z), there is ``counts``: boolean, (B, 1, [X,] Y, Z)."""
        batch = super().prepare_batch(batch, training=training)
        image, counts = image_and_counts(batch["target"])
        return {**batch, "target": image, "counts": counts}

    def error(self, restored: Tensor, batch: Batch) -> Tensor:
        """Mean squared error where it counts."""
        return squared_error(restored, batch["target"], batch["counts"])

    def validation_step(self, batch: Batch) -> dict[str, np.ndarray]:
        """The squared error of the main output, and the sums that its explained variance is made of."""
        batch = self.prepare_batch(batch, training=False)
        with self.autocast():
            restored = self.full_resolution(self.forward(batch))
        error, variance = squared_sums(restored, batch["target"], batch["counts"])
        values = {"loss": self.error(restored, batch), "error": error, "variance": variance}
        return {name: value.detach().cpu().numpy() for name, value in values.items()}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, np.ndarray]]) -> None:
        """Log the error, and the explained variance as nnU-Net's pseudo Dice, which chooses the best checkpoint.

        It is that of all patches together, 0 if all of them are constant. Patches whose output is not finite, as half
        precision can overflow, are left out: their error would stay in nnU-Net's moving average for ever.
        """
        if self.is_ddp:
            of_ranks: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(of_ranks, val_outputs)
            val_outputs = [output for outputs in of_ranks for output in outputs]
        finite = [output for output in val_outputs if np.isfinite(output["error"])]
        if len(finite) < len(val_outputs):
            unsure = f"{len(val_outputs) - len(finite)} of {len(val_outputs)} validation batches"
            self.print_to_log_file(f"The output for {unsure} is not finite; they are left out.")
        loss = float(np.mean([output["loss"] for output in finite])) if finite else math.nan
        error, variance = (float(np.sum([output[key] for output in finite])) for key in ("error", "variance"))
        explained = 1 - error / variance if variance > 0 else 0.0
        self.logger.log("mean_fg_dice", explained, self.current_epoch)
        self.logger.log("dice_per_class_or_region", [explained], self.current_epoch)
        self.logger.log("val_losses", loss, self.current_epoch)


def with_one_head(decoder: Any) -> None:
    """Freeze a decoder's heads at lower resolutions: DDP does not allow that what could learn takes no part."""
    decoder.seg_layers[:-1].requires_grad_(False)
