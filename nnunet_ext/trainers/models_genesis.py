"""Self-supervised pre-training: undo the corruptions of a patch (Models Genesis, arXiv 2004.07882)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import nn

from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, CleanImageAsTarget, LocalShuffling, Painting
from nnunet_ext.networks.multi_decoder import FeatureDropout
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, unet_with_decoders

CORRUPTIONS: tuple[tuple[BasicTransform, float], ...] = (
    (LocalShuffling(), 0.5),
    (BezierIntensity(), 0.9),
    (Painting(), 0.9),
)
"""In this order, each with its probability."""


class nnUNetTrainerModelsGenesis(MultiDecoderMixin):
    """Trains encoder and decoders of the DBDMP network to restore images; labels are not looked at.

    L = MSE(main, x) + MSE(auxiliary, x), with x the patch before it was corrupted. The heads have a channel for each
    image channel and no deep supervision, so that everything but the heads can be taken over by another training.
    """

    unsupported: ClassVar[Mapping[str, str]] = {
        "cascade": "the second stage of a cascade reads labels beside the image, and there is nothing to restore in "
        "them. Pre-train on the configuration that the first stage uses.",
    }

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008  nnU-Net's signature
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.enable_deep_supervision = False
        self.oversample_foreground_percent = 0.0

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network of DBDMP with a head for each image channel in place of each label."""
        dropout = FeatureDropout(len(configuration_manager.patch_size), probability=0.5)
        return unet_with_decoders(
            [nn.Identity(), dropout],
            plans_manager,
            configuration_manager,
            num_input_channels,
            num_input_channels,
            False,
        )

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Sequence[int], Any]:
        """As nnU-Net's, but patches are loaded in their final size: nothing is rotated or scaled."""
        rotation, _, _, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return rotation, False, self.configuration_manager.patch_size, mirror_axes

    @staticmethod
    def get_training_transforms(
        patch_size: Any, rotation_for_DA: Any, deep_supervision_scales: Any, mirror_axes: Any, *args: Any, **kwargs: Any
    ) -> BasicTransform:
        """Flips of image and target, then the corruptions of the image."""
        transforms: list[BasicTransform] = [MirrorTransform(allowed_axes=mirror_axes)] if mirror_axes else []
        transforms.append(CleanImageAsTarget())
        transforms += [RandomTransform(corruption, apply_probability=share) for corruption, share in CORRUPTIONS]
        return ComposeTransforms(transforms)

    @staticmethod
    def get_validation_transforms(*args: Any, **kwargs: Any) -> BasicTransform:
        """The corruptions without flips: what is to be undone."""
        return nnUNetTrainerModelsGenesis.get_training_transforms(None, None, None, None)

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, torch.Tensor]:
        names = ("restoration", "auxiliary_restoration")
        return {
            name: nn.functional.mse_loss(self.heads(branch)[0].float(), batch["target"])
            for name, branch in zip(names, outputs)
        }

    def validation_step(self, batch: Batch) -> dict[str, np.ndarray]:
        """The main decoder's squared error, and how much of the patch's variance it explains."""
        batch = self.prepare_batch(batch, training=False)
        with self.autocast():
            restored = self.heads(self.forward(batch))[0].float()
        target = batch["target"]
        error = nn.functional.mse_loss(restored, target)
        explained = 1 - error / target.var(correction=0).clamp_min(1e-8)
        return {"loss": error.detach().cpu().numpy(), "explained": explained.detach().cpu().numpy()}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, np.ndarray]]) -> None:
        """Log the error, and the explained variance in the place of nnU-Net's pseudo Dice, which chooses the best
        checkpoint."""
        loss, explained = (float(np.mean([output[key] for output in val_outputs])) for key in ("loss", "explained"))
        self.logger.log("mean_fg_dice", explained, self.current_epoch)
        self.logger.log("dice_per_class_or_region", [explained], self.current_epoch)
        self.logger.log("val_losses", loss, self.current_epoch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: there is no segmentation to validate."""
        self.print_to_log_file("Pre-training has no segmentation to validate. Use its checkpoint to start another.")
