"""Self-supervised pre-training: tell how two crops of a scan were blended (Volume Fusion, arXiv 2306.16925)."""

from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.inversion import InvertImageTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import Tensor, nn

from nnunet_ext.augmentation.crop_pairs import EachCrop, PairsOfCrops
from nnunet_ext.augmentation.image_border import OUTSIDE
from nnunet_ext.augmentation.volume_fusion import VolumeFusion
from nnunet_ext.checkpoints.heads import BLENDS
from nnunet_ext.techniques.pretraining import VOLUME_FUSION
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.pretraining import PretrainingMixin, with_one_head


class nnUNetTrainerVolumeFusion(PretrainingMixin, technique=VOLUME_FUSION):
    """Trains the whole U-Net of the plans to segment blended crops by their coefficients; labels are not looked at.

    L = ½ Dice + ½ cross-entropy of the K + 1 classes, with Dice as in nnU-Net (negative, a mean over all classes).
    Everything but the head can be taken over by another training.
    """

    replaces_loss = True

    outputs = BLENDS

    def pretext_network(
        self, plans_manager: Any, configuration_manager: Any, num_input_channels: int, *unused: Any
    ) -> nn.Module:
        """The U-Net of the plans with an output for each coefficient."""
        outputs = 1 + self.section(VOLUME_FUSION).classes
        network = nnUNetTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, outputs, False
        )
        with_one_head(network.decoder)
        return network

    def _build_loss(self) -> nn.Module:
        dice = {"batch_dice": self.configuration_manager.batch_dice, "smooth": 1e-5, "do_bg": True, "ddp": self.is_ddp}
        loss = DC_and_CE_loss(
            dice, {}, weight_ce=0.5, weight_dice=0.5, ignore_label=OUTSIDE, dice_class=MemoryEfficientSoftDiceLoss
        )
        if self._do_i_compile():
            loss.dc = torch.compile(loss.dc)
        return loss

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's, of which each case is two crops of a scan."""
        settings, patch_size = self.section(VOLUME_FUSION), self.configuration_manager.patch_size
        scales = settings.smallest_crop, settings.largest_crop
        training, validation = super().get_tr_and_val_datasets()
        return PairsOfCrops(training, patch_size, scales), PairsOfCrops(validation, patch_size, scales)

    def augmentation(self, flips: list[BasicTransform]) -> list[BasicTransform]:
        """Flips and intensities of each crop for itself, with the ranges of nnU-Net's own augmentation."""
        settings = self.section(VOLUME_FUSION)
        changes = (
            ContrastTransform(BGContrast((0.75, 1.25)), preserve_range=True, synchronize_channels=False),
            GammaTransform(
                BGContrast((0.7, 1.5)), p_invert_image=0, synchronize_channels=False, p_per_channel=1, p_retain_stats=1
            ),
        )
        intensities = [RandomTransform(one, apply_probability=settings.intensity_probability) for one in changes]
        inversion = InvertImageTransform(p_invert_image=settings.inversion_probability)
        return [EachCrop(ComposeTransforms([*flips, *intensities, inversion]))]

    def pretext(self) -> list[BasicTransform]:
        settings = self.section(VOLUME_FUSION)
        sides = settings.smallest_block, settings.largest_block
        return [VolumeFusion(settings.classes, sides, settings.blended_share)]

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        return {"fusion": self.loss(self.full_resolution(outputs), batch["target"])}

    def validation_step(self, batch: Batch) -> dict[str, np.ndarray]:
        """The loss, and what nnU-Net computes pseudo Dice of, for each coefficient but 0."""
        batch = self.prepare_batch(batch, training=False)
        with self.autocast():
            logits = self.full_resolution(self.forward(batch))
            loss = self.loss(logits, batch["target"])
        target, predicted = batch["target"].long(), logits.argmax(dim=1, keepdim=True)
        classes, is_inside = logits.shape[1], target != OUTSIDE
        pairs = torch.bincount(classes * target[is_inside] + predicted[is_inside], minlength=classes**2)
        confusion = pairs.reshape(classes, classes).cpu().numpy()
        hits = confusion.diagonal()
        counts = {"tp_hard": hits, "fp_hard": confusion.sum(0) - hits, "fn_hard": confusion.sum(1) - hits}
        return {"loss": loss.detach().cpu().numpy(), **{name: count[1:] for name, count in counts.items()}}
