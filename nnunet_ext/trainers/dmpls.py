"""Scribble supervision by dynamically mixed pseudo labels (DMPLS, arXiv 2203.02106)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nnunet_ext.losses.hard_labels import log_probabilities, one_hot, squared_dice_loss, tversky_loss
from nnunet_ext.losses.ramps import sigmoid_ramp
from nnunet_ext.losses.soft_targets import masked_mean
from nnunet_ext.techniques.scribbles import DMPLS
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, dual_branch_unet
from nnunet_ext.trainers.scribbles import SCHEDULE_OF_THE_PAPERS, ScribbleMixin

DICE_LOSSES: dict[str, Callable[..., Tensor]] = {
    "squared": squared_dice_loss,
    "foreground": partial(tversky_loss, alpha=0.5, beta=0.5),
}


class nnUNetTrainerDMPLS(ScribbleMixin, MultiDecoderMixin, technique=DMPLS):
    """Two decoders, one behind dropout of the encoder's features, learn from scribbles and from a mixture of both.

    L = ½ Σ_d pCE_d + λ ½ Σ_d Dice(p_d, ỹ), ỹ the class of the largest α p_main + (1 - α) p_aux, with one α from U(0, 1)
    for each step. Voxels outside the image take part in neither. As in the authors' code, Dice is that of all classes
    with squared probabilities, λ is the same from the first step on, and SGD's momentum is not Nesterov's.
    """

    replaces_loss = True

    default_settings = SCHEDULE_OF_THE_PAPERS

    build_network_architecture = staticmethod(dual_branch_unet)

    def initialize(self) -> None:
        super().initialize()
        self.set_feature_dropout(self.section(DMPLS).dropout)

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        settings = self.section(DMPLS)
        branches = [[log_probabilities(head) for head in self.heads(branch)] for branch in outputs]
        terms = self.supervised_term(branches, batch, settings.supervision)
        if settings.pseudo_label_weight > 0:
            main, auxiliary = (heads[0] for heads in branches)
            inside = self.heads(batch["inside"])[0]
            labels = self.pseudo_labels(main, auxiliary, inside)
            dice_loss = DICE_LOSSES[settings.pseudo_label_dice]
            dice = torch.stack([dice_loss(log_p, labels, inside, total=self.total) for log_p in (main, auxiliary)])
            ramp = sigmoid_ramp(self.current_epoch, settings.ramp_epochs)
            terms["pseudo_labels"] = settings.pseudo_label_weight * ramp * dice.mean()
        return terms

    @torch.no_grad()
    def pseudo_labels(self, main: Tensor, auxiliary: Tensor, inside: Tensor) -> Tensor:
        """One-hot labels of a random mixture of both branches' log-probabilities (B, C, [X,] Y, Z)."""
        mixture = torch.lerp(auxiliary.exp(), main.exp(), float(self.shared_rng.random()))
        labels = mixture.argmax(dim=1, keepdim=True)
        self.observe("dmpls/pseudo_foreground", masked_mean((labels > 0).float(), inside))
        return one_hot(labels, mixture.shape[1])
