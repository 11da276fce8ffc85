"""What trainers share that learn from scribbles: voxels of the ignore label are those that nobody annotated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch

from nnunet_ext.losses.hard_labels import label_log_probabilities, one_hot, partial_cross_entropy
from nnunet_ext.trainers.base import nnUNetTrainerConfigurable


class Scribbles(NamedTuple):
    """The annotation at one resolution.

    Attributes:
        labels: one-hot, (B, C, [X,] Y, Z); of no meaning where they are not known.
        is_known: (B, 1, [X,] Y, Z), true where somebody annotated; everywhere if the dataset has no ignore label.
    """

    labels: torch.Tensor
    is_known: torch.Tensor


class ScribbleMixin(nnUNetTrainerConfigurable):
    """For trainers whose labels are right where there are any, and ``ignore`` elsewhere."""

    unsupported: ClassVar[Mapping[str, str]] = {
        "regions": "a scribble says that a voxel has one label and no other, and the losses are of a softmax over such "
        "labels. Write the regions as labels of their own, or train each region as a dataset of its own.",
    }

    def scribbles(self, target: Any) -> list[Scribbles]:
        """What nnU-Net's target says at each resolution, the full one first."""
        ignore = self.label_manager.ignore_label
        found = []
        for head in self.heads(target):
            labels = head.long()
            is_known = torch.ones_like(labels, dtype=torch.bool) if ignore is None else labels != ignore
            known = one_hot(torch.where(is_known, labels, 0), self.label_manager.num_segmentation_heads)
            found.append(Scribbles(known, is_known))
        return found

    def partial_ce(self, heads: Sequence[torch.Tensor], scribbles: Sequence[Scribbles]) -> torch.Tensor:
        """Cross-entropy over the scribbled voxels, summed over the resolutions with nnU-Net's weights.

        Args:
            heads: log-probabilities by resolution.
            scribbles: by resolution.
        """
        terms = [
            weight * partial_cross_entropy(label_log_probabilities(log_p, known), is_known)
            for weight, log_p, (known, is_known) in zip(self.head_weights(), heads, scribbles)
            if weight > 0
        ]
        return torch.stack(terms).sum()
