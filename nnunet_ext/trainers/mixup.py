"""MixUp, CutMix (arXiv 2412.14846) and CarveMix (2108.06883): a loss on mixed patches beside the usual one, or now and
then instead of it.
"""

from typing import Any

import numpy as np
from torch import Tensor
from torch import distributed as dist

from nnunet_ext.augmentation import batch_mixing as mixing
from nnunet_ext.augmentation.carving import carved_regions
from nnunet_ext.augmentation.image_border import ignored_outside
from nnunet_ext.devices import on_device
from nnunet_ext.losses.soft_targets import soft_binary_cross_entropy, soft_cross_entropy
from nnunet_ext.techniques.mixup import MIXUP
from nnunet_ext.trainers.base import Batch, Outputs, nnUNetTrainerConfigurable

MIXING_PROBABILITY = {"additional": 1.0, "alternate": 0.5}


class MixUpMixin(nnUNetTrainerConfigurable, technique=MIXUP):
    """Adds the term ``mixup`` to the loss that it is combined with.

    ``additional``: L = L_clean + w · L_mixed, by a second forward and backward pass. ``alternate``: a step is either
    mixed or clean. L_mixed looks at the full-resolution head alone: soft cross-entropy for MixUp (binary for regions),
    the hard Dice + cross-entropy for CutMix and CarveMix. A voxel that is unlabelled in either partner takes no part in
    MixUp; in the others every voxel has one source, whose label counts. A batch of one has nothing to mix with and
    keeps the usual loss.
    """

    _has_told_of_batch_of_one = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.cannot_be_mixed:
            raise TypeError(f"{cls.__name__} cannot have MixUp: {cls.cannot_be_mixed}.")

    def prepare_batch(self, batch: Batch, *, training: bool) -> Batch:
        batch = super().prepare_batch(batch, training=training)
        if not (training and self._mixes_this_step(len(batch["data"]))):
            return batch
        mixed = self.mixed_batch(batch)
        if self.section(MIXUP).mode == "additional":
            return {**batch, "mixed": mixed}
        return {**batch, "data": mixed["data"], "mixed": mixed}

    def loss_terms(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        if "mixed" in batch and self.section(MIXUP).mode == "alternate":
            return self.mixed_terms(outputs, batch["mixed"])
        return super().loss_terms(outputs, batch)

    def further_batch(self, batch: Batch) -> Batch | None:
        return batch.get("mixed") if self.section(MIXUP).mode == "additional" else super().further_batch(batch)

    def further_terms(self, outputs: Outputs, further: Batch) -> dict[str, Tensor]:
        return self.mixed_terms(outputs, further)

    def mixed_terms(self, outputs: Outputs, mixed: Batch) -> dict[str, Tensor]:
        """The term ``mixup``, weight included, of the outputs for a mixed batch."""
        return {"mixup": self.section(MIXUP).weight * self.mixed_loss(outputs, mixed)}

    def _mixes_this_step(self, batch_size: int) -> bool:
        if self.is_ddp:
            # All processes mix or none does: under batch Dice they gather from each other as often as each calls the
            # loss. nnU-Net deals the batch out as evenly as it can, so this is the smallest share.
            batch_size = self.configuration_manager.batch_size // dist.get_world_size()
        if batch_size < 2:
            if not self._has_told_of_batch_of_one:
                self.print_to_log_file("MixUp: a batch of one has no partner to mix with; the usual loss is used.")
                self._has_told_of_batch_of_one = True
            return False
        settings = self.section(MIXUP)
        probability = MIXING_PROBABILITY[settings.mode] if settings.probability is None else settings.probability
        return bool(self.shared_rng.random() < probability)

    def mixed_batch(self, batch: Batch) -> Batch:
        """A prepared batch with mixed ``data``, and for the full-resolution head ``mixed_target`` and ``mixed_mask``.

        For MixUp they are the soft target (B, C or R, [X,] Y, Z), see `mixed_labels`, and where it counts
        (B, 1, [X,] Y, Z). For CutMix and CarveMix the target is in nnU-Net's own format and there is no mask.
        ``partners``, and ``ratios`` (B,) or the region ``pasted`` (B or 1, 1, [X,] Y, Z), say what was mixed.
        """
        data = batch["data"]
        partners = mixing.draw_partners(len(data), self.rng)
        if self.section(MIXUP).kind != "mixup":
            target = self.source_target(batch, self.unknown_label)
            pasted = self.pasted_region(target, partners)
            mixed = {
                "data": mixing.paste(data, partners, pasted),
                "mixed_target": mixing.paste(target, partners, pasted),
            }
            return {**batch, **mixed, "partners": partners, "pasted": pasted}
        ratios = mixing.draw_ratios(len(data), self.section(MIXUP).alpha, self.rng)
        soft, valid = self.soft_target(batch)
        return {
            **batch,
            "data": mixing.blend(data, partners, ratios),
            **self.mixed_labels(batch, soft, partners, ratios),
            "mixed_mask": valid & valid[on_device(partners, valid.device)],
            "partners": partners,
            "ratios": ratios,
        }

    def mixed_labels(self, batch: Batch, soft: Tensor, partners: np.ndarray, ratios: np.ndarray) -> Batch:
        """The soft target (B, C or R, [X,] Y, Z) of MixUp, blended, as ``mixed_target``."""
        return {"mixed_target": mixing.blend(soft, partners, ratios)}

    def pasted_region(self, target: Tensor, partners: np.ndarray) -> Tensor:
        """Where each sample gets its partner's values: a boolean mask (B or 1, 1, [X,] Y, Z)."""
        if self.section(MIXUP).kind == "cutmix":
            return on_device(mixing.draw_box(target.shape[2:], self.rng)[None, None], target.device)
        labels = self.label_manager
        if labels.has_regions:
            foreground = (target[:, : labels.num_segmentation_heads] > 0).any(1)
        else:
            foreground = (target[:, 0] > 0) & (target[:, 0] < labels.num_segmentation_heads)  # ignore is above
        carved = foreground[on_device(partners, target.device)]
        return carved_regions(carved, self.configuration_manager.spacing, self.rng)[:, None]

    def source_target(self, batch: Batch, unlabelled: int | None) -> Tensor:
        """The full-resolution target of a prepared batch, with `unlabelled` outside the image where that is known."""
        target, inside = self.heads(batch["target"])[0], self.heads(batch.get("inside"))[0]
        if inside is None:
            return target
        return ignored_outside(target, inside, unlabelled, has_regions=self.label_manager.has_regions)

    def soft_target(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The same as a soft target (B, C or R, [X,] Y, Z), and where it counts (B, 1, [X,] Y, Z)."""
        labels, inside = self.label_manager, self.heads(batch.get("inside"))[0]
        target = self.source_target(batch, labels.ignore_label)
        if labels.has_regions:
            soft, valid = mixing.region_targets(target, labels.has_ignore_label)
        else:
            soft, valid = mixing.class_targets(target, labels.num_segmentation_heads, labels.ignore_label)
        return soft, valid if inside is None else valid & inside

    def mixed_loss(self, outputs: Outputs, mixed: Batch) -> Tensor:
        """The loss on a mixed batch, a scalar, without the weight."""
        loss = self.loss_of_mixed(self.full_resolution(outputs), mixed)
        if self.is_ddp and isinstance(outputs, (list, tuple)):
            # DDP waits for a gradient of every parameter, those of the low-resolution heads included
            loss = loss + sum(0.0 * head.float().mean() for head in outputs[1:])
        return loss

    def loss_of_mixed(self, logits: Tensor, mixed: Batch) -> Tensor:
        """The same from the logits of the full resolution."""
        if self.section(MIXUP).kind != "mixup":
            return self.full_resolution_loss()(logits, mixed["mixed_target"])
        return self.soft_loss(logits, mixed["mixed_target"], mixed["mixed_mask"])

    def soft_loss(self, logits: Tensor, target: Tensor, mask: Tensor, weights: Tensor | None = None) -> Tensor:
        """Cross-entropy against a soft target, a scalar, which is nnU-Net's own where the target is hard.

        nnU-Net's of regions is a mean over voxels and regions or, with an ignore label, over voxels of the sum over the
        regions. See `nnunet_ext.losses.soft_targets` for the arguments.
        """
        if not self.label_manager.has_regions:
            return soft_cross_entropy(logits, target, mask, weights)
        regions = logits.shape[1] if self.label_manager.has_ignore_label else 1
        return regions * soft_binary_cross_entropy(logits, target, mask, weights)


class nnUNetTrainerMixUp(MixUpMixin):
    """nnU-Net with MixUp, CutMix or CarveMix."""
