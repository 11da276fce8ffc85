"""Scribble supervision by the consistency of three dilated decoders (TDNet, arXiv 2309.09730)."""

from collections.abc import Mapping
from itertools import cycle
from typing import Any

from torch import Tensor, nn

from nnunet_ext.formats.own_key import KEY
from nnunet_ext.losses.consistency import multi_view_class_consistency, uncertainty_weighted_consistency
from nnunet_ext.losses.hard_labels import log_probabilities
from nnunet_ext.losses.ramps import sigmoid_ramp
from nnunet_ext.networks.dilated_decoder import INITIALISATIONS, BottleneckDropout, dilate, initialise
from nnunet_ext.plans.settings import validated_section
from nnunet_ext.techniques.scribbles import TDNET
from nnunet_ext.trainers.base import Batch
from nnunet_ext.trainers.multi_decoder import MultiDecoderMixin, unet_with_decoders
from nnunet_ext.trainers.scribbles import SCHEDULE_OF_THE_PAPERS, ScribbleMixin


class nnUNetTrainerTDNet(ScribbleMixin, MultiDecoderMixin, technique=TDNET):
    """Decoders of several dilations learn from scribbles and from their mean; the first, the plans' own, predicts.

    L = mean_n pCE_n + r(t) (10 USPC + 1 MPCC). The first term is taken at every resolution, the others at the full one.
    Voxels outside the image take part in none of them. With ``supervision`` ``dice_ce`` nnU-Net's own loss over the
    scribbled voxels stands in the place of pCE.
    """

    replaces_loss = True

    default_settings = SCHEDULE_OF_THE_PAPERS
    fixed_settings = ScribbleMixin.fixed_settings | {"tdnet.dilations"}

    @classmethod
    def resolved_plans(cls, plans: dict, configuration: str, dataset_json: Mapping[str, Any]) -> dict:
        """Plans that say how many decoders the saved weights are of."""
        plans = super().resolved_plans(plans, configuration, dataset_json)
        return cls.with_resolved_section(plans, configuration, TDNET)

    @staticmethod
    def build_network_architecture(
        plans_manager: Any, configuration_manager: Any, *arguments: Any, **keywords: Any
    ) -> nn.Module:
        """The plans' U-Net with a decoder for each further dilation, behind dropout of the bottleneck."""
        settings = validated_section(configuration_manager.configuration.get(KEY, {}), TDNET, where="the plans")
        perturbations = [nn.Identity(), *(BottleneckDropout(settings.dropout) for _ in settings.dilations[1:])]
        network = unet_with_decoders(perturbations, plans_manager, configuration_manager, *arguments, **keywords)
        decoders = (network.decoder, *network.auxiliary_decoders)
        for decoder, dilation, kind in zip(decoders, settings.dilations, cycle(INITIALISATIONS)):
            dilate(decoder, dilation)
            initialise(decoder, kind)
        return network

    def loss_terms(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        settings = self.section(TDNET)
        branches = [[log_probabilities(head) for head in self.heads(branch)] for branch in outputs]
        terms = self.supervised_term(branches, batch, settings.supervision)
        full, inside = [heads[0] for heads in branches], self.heads(batch["inside"])[0]
        length = self.num_epochs if settings.ramp_epochs is None else settings.ramp_epochs
        ramp = sigmoid_ramp(self.current_epoch, length)
        self.observe("tdnet/ramp", ramp)
        fixed, weighted = settings.detach_target, settings.uncertainty_weights
        if settings.uspc_weight > 0:
            uspc = uncertainty_weighted_consistency(full, inside, detach_target=fixed, uncertainty_weights=weighted)
            terms["uspc"] = settings.uspc_weight * ramp * uspc
        if settings.mpcc_weight > 0:
            mpcc = multi_view_class_consistency(full, inside, detach_target=fixed)
            terms["mpcc"] = settings.mpcc_weight * ramp * mpcc
        return terms
