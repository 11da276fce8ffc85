"""What trainers share that learn from scribbles: voxels of the ignore label are those that nobody annotated."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from nnunet_ext.augmentation.image_border import OUTSIDE
from nnunet_ext.losses.hard_labels import label_log_probabilities, one_hot, partial_cross_entropy
from nnunet_ext.techniques.scribbles import Supervision
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.image_border import ImageBorderMixin

SCHEDULE_OF_THE_PAPERS = {"num_epochs": 240, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4}
"""Of TDNet and DMPLS, as default settings of their trainers."""


class Scribbles(NamedTuple):
    """The annotation at one resolution. Without an ignore label, everything within the image is known."""

    labels: Tensor  # one-hot, (B, C, [X,] Y, Z); without meaning where they are not known
    is_known: Tensor  # (B, 1, [X,] Y, Z), true where somebody annotated


class ScribbleMixin(ImageBorderMixin):
    """For trainers whose labels are right where there are any, and ``ignore`` elsewhere."""

    unsupported: ClassVar[Mapping[str, str]] = {
        "regions": "a scribble says that a voxel has one label and no other, and the losses are of a softmax over such "
        "labels. Write the regions as labels of their own, or train each region as a dataset of its own."
    }

    def scribbles(self, batch: Batch) -> list[Scribbles]:
        """What a prepared batch says at each resolution, the full one first."""
        ignore = self.label_manager.ignore_label
        found = []
        for target, is_inside in zip(self.heads(batch["target"]), self.heads(batch["inside"])):
            labels = target.long()
            is_known = is_inside if ignore is None else is_inside & (labels != ignore)
            known = one_hot(torch.where(is_known, labels, 0), self.label_manager.num_segmentation_heads)
            found.append(Scribbles(known, is_known))
        return found

    def partial_ce(self, heads: Sequence[Tensor], scribbles: Sequence[Scribbles]) -> Tensor:
        """Cross-entropy over the scribbled voxels from log-probabilities, summed over resolutions by their weights."""
        terms = [
            weight * partial_cross_entropy(label_log_probabilities(log_p, known), is_known, total=self.total)
            for weight, log_p, (known, is_known) in zip(self.head_weights(), heads, scribbles)
            if weight > 0
        ]
        return torch.stack(terms).sum()

    def supervised_term(self, branches: Sequence[Any], batch: Batch, supervision: Supervision) -> dict[str, Tensor]:
        """What branches learn from the scribbled voxels: the mean over them, under the name of the supervision.

        Branches are log-probabilities by resolution. ``dice_ce`` is nnU-Net's own loss, whose softmax of
        log-probabilities is that of the logits.
        """
        if supervision == "partial_ce":
            scribbles = self.scribbles(batch)
            losses = [self.partial_ce(heads, scribbles) for heads in branches]
        else:
            heads_and_masks = zip(self.heads(batch["target"]), self.heads(batch["inside"]))
            targets = [torch.where(is_inside, target, self.unknown_label) for target, is_inside in heads_and_masks]
            if self.enable_deep_supervision:
                losses = [self.loss(heads, targets) for heads in branches]
            else:
                losses = [self.loss(heads[0], targets[0]) for heads in branches]
        return {supervision: torch.stack(losses).mean()}

    @property
    def unknown_label(self) -> int:
        """What marks the voxels that nnU-Net's loss leaves out: the ignore label, or -1 if the dataset has none."""
        ignore = self.label_manager.ignore_label
        return OUTSIDE if ignore is None else ignore

    def _build_loss(self) -> nn.Module:
        """nnU-Net's loss, which leaves out `unknown_label` whether the dataset has an ignore label or not."""
        loss = super()._build_loss()
        of_one_resolution = loss.loss if self.enable_deep_supervision else loss
        of_one_resolution.ignore_label = of_one_resolution.ce.ignore_index = self.unknown_label
        return loss
