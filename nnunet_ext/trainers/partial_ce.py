"""Cross-entropy over scribbles with a stock network, and minimisation of entropy elsewhere."""

from typing import Any

from torch import Tensor

from nnunet_ext.losses.consistency import entropy
from nnunet_ext.losses.hard_labels import log_probabilities
from nnunet_ext.losses.soft_targets import masked_mean
from nnunet_ext.techniques.scribbles import PARTIAL_CE
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.scribbles import ScribbleMixin


class nnUNetTrainerPartialCE(ScribbleMixin, technique=PARTIAL_CE):
    """L = pCE + λ · mean entropy of the voxels that nobody annotated; λ is 0 unless it is set.

    Source: Tang et al., CVPR 2018 (partial cross-entropy); Grandvalet and Bengio, NIPS 2004 (entropy).
    """

    replaces_loss = True

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        heads = [log_probabilities(head) for head in self.heads(outputs)]
        scribbles = self.scribbles(batch)
        terms = {"partial_ce": self.partial_ce(heads, scribbles)}
        weight = self.section(PARTIAL_CE).entropy_weight
        if weight > 0:
            is_unknown = self.heads(batch["inside"])[0] & ~scribbles[0].is_known
            terms["entropy"] = weight * masked_mean(entropy(heads[0]), is_unknown, total=self.total)
        return terms
