"""Self-supervised pre-training: undo the corruptions of a patch (Models Genesis, arXiv 2004.07882)."""

from collections.abc import Mapping, Sequence
from os.path import join
from typing import Any, ClassVar

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor, nn
from torch import distributed as dist

from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, CleanImageAsTarget, LocalShuffling, Painting
from nnunet_ext.checkpoints.heads import IMAGES, OUTPUTS
from nnunet_ext.errors import UserError
from nnunet_ext.techniques.models_genesis import MODELS_GENESIS
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, dual_branch_unet


def restoration_network(
    plans_manager: Any, configuration_manager: Any, num_input_channels: int, *unused: Any
) -> nn.Module:
    """The network of DBDMP with heads that give images: a channel for each input channel, in full resolution alone."""
    network = dual_branch_unet(plans_manager, configuration_manager, num_input_channels, num_input_channels, False)
    for decoder in (network.decoder, *network.auxiliary_decoders):
        # they take no part in a step, which DDP does not allow of what could learn
        decoder.seg_layers[:-1].requires_grad_(False)
    return network


class nnUNetTrainerModelsGenesis(MultiDecoderMixin, technique=MODELS_GENESIS):
    """Trains encoder and decoders of the DBDMP network to restore images; labels are not looked at.

    L = MSE(main, x) + MSE(auxiliary, x), with x the patch before it was corrupted. Everything but the heads can be
    taken over by another training.
    """

    segments = False

    default_settings: ClassVar[Mapping[str, Any]] = {"oversample_foreground_percent": 0.0}

    unsupported: ClassVar[Mapping[str, str]] = {
        "cascade": "the second stage of a cascade reads labels beside the image, and there is nothing to restore in "
        "them. Pre-train on the configuration that the first stage uses."
    }

    def initialize(self) -> None:
        self.enable_deep_supervision = False
        # not the class's own, which is what prediction calls
        self.build_network_architecture = restoration_network  # type: ignore[method-assign]
        super().initialize()
        self.set_feature_dropout(self.section(MODELS_GENESIS).dropout)

    @staticmethod
    def build_network_architecture(plans_manager: Any, *arguments: Any, **keywords: Any) -> nn.Module:
        """Raise a UserError: this is what nnU-Net's predictor builds its network with."""
        raise UserError(
            "A pre-training by nnUNetTrainerModelsGenesis restores images and has no segmentation to predict. Start a "
            "training from its checkpoint (-pretrained_weights) and predict with that one."
        )

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, bool, Sequence[int], Any]:
        """As nnU-Net's, but patches are loaded in their final size: nothing is rotated or scaled."""
        rotation, _, _, mirror_axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        return rotation, False, self.configuration_manager.patch_size, mirror_axes

    def corruptions(self) -> list[BasicTransform]:
        """What the network learns to undo, in the authors' order; the image before them becomes the target."""
        settings = self.section(MODELS_GENESIS)
        return [
            CleanImageAsTarget(),
            RandomTransform(LocalShuffling(), apply_probability=settings.shuffling_probability),
            RandomTransform(BezierIntensity(), apply_probability=settings.intensity_probability),
            RandomTransform(Painting(), apply_probability=settings.painting_probability),
        ]

    # nnU-Net's are static, but it calls them on the trainer, whose settings these need
    def get_training_transforms(
        self, patch_size: Any, rotation: Any, scales: Any, mirror_axes: Any, *args: Any, **kwargs: Any
    ) -> BasicTransform:
        """nnU-Net's flips of image and target, then the corruptions of the image."""
        # the authors flip up to three times along a drawn axis; these are the flips of the training that starts here
        flips: list[BasicTransform] = [MirrorTransform(allowed_axes=mirror_axes)] if mirror_axes else []
        return ComposeTransforms([*flips, *self.corruptions()])

    def get_validation_transforms(self, *args: Any, **kwargs: Any) -> BasicTransform:
        """The corruptions without flips: what is to be undone."""
        return ComposeTransforms(self.corruptions())

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        losses = [nn.functional.mse_loss(self.heads(one)[0].float(), batch["target"]) for one in outputs]
        return dict(zip(("restoration", "auxiliary_restoration"), losses))

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
        """Log the error, and the explained variance as nnU-Net's pseudo Dice, which chooses the best checkpoint."""
        if self.is_ddp:
            of_ranks: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(of_ranks, val_outputs)
            val_outputs = [output for outputs in of_ranks for output in outputs]
        loss, explained = (float(np.mean([output[key] for output in val_outputs])) for key in ("loss", "explained"))
        self.logger.log("mean_fg_dice", explained, self.current_epoch)
        self.logger.log("dice_per_class_or_region", [explained], self.current_epoch)
        self.logger.log("val_losses", loss, self.current_epoch)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing: there is no segmentation to validate."""
        self.print_to_log_file(
            "A pre-training has no segmentation to validate. Start another training from it: nnUNetv2_train … "
            f"-pretrained_weights {join(self.output_folder, 'checkpoint_final.pth')}"
        )

    def extra_state(self) -> dict[str, Any]:
        return {**super().extra_state(), OUTPUTS: IMAGES}
