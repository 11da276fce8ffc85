"""What trainers share that learn from scribbles: voxels of the ignore label are those that nobody annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from nnunet_ext.losses.hard_labels import label_log_probabilities, one_hot, partial_cross_entropy
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable


class ScribbleMixin(nnUNetTrainerConfigurable):
    """For trainers whose labels are right where there are any, and ``ignore`` elsewhere."""

    unsupported: ClassVar[Mapping[str, str]] = {
        "regions": "a scribble says that a voxel has one label and no other, and the losses are of a softmax over such "
        "labels. Write the regions as labels of their own, or train each region as a dataset of its own.",
    }

    def scribbles(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What nnU-Net's labels (B, 1, [X,] Y, Z) say at one resolution.

        Returns:
            The labels, one-hot, (B, C, [X,] Y, Z); and where they are known, (B, 1, [X,] Y, Z), everywhere if the
            dataset has no ignore label.
        """
        labels = target.long()
        ignore = self.label_manager.ignore_label
        is_known = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
        return one_hot(torch.where(is_known, labels, 0), self.label_manager.num_segmentation_heads), is_known

    def partial_ce(self, heads: Sequence[torch.Tensor], target: Any) -> torch.Tensor:
        """Cross-entropy over the scribbled voxels, summed over the resolutions with nnU-Net's weights.

        Args:
            heads: log-probabilities by resolution.
            target: nnU-Net's, by resolution.
        """
        terms = []
        for weight, log_p, labels in zip(self.head_weights(), heads, self.heads(target)):
            if weight > 0:
                known, is_known = self.scribbles(labels)
                terms.append(weight * partial_cross_entropy(label_log_probabilities(log_p, known), is_known))
        return torch.stack(terms).sum()
