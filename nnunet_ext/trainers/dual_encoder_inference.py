"""The trainer that `nnunet_ext export-stock` writes beside an exported dual encoder: it needs nnU-Net alone.

Nothing of this package imports it. Its text is exported, with that of the modules of this package that it imports.
"""

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_ext.networks.dual_encoder_plans import dual_encoder_unet


class nnUNetTrainerDualEncoderInference(nnUNetTrainer):
    """Tells nnU-Net's predictor how a dual encoder is built. It does not train."""

    @staticmethod
    def build_network_architecture(
        plans_manager: Any, configuration_manager: Any, *arguments: Any, **keywords: Any
    ) -> nn.Module:
        """The network, by the settings that were saved in the plans."""
        settings = configuration_manager.configuration["nnunet_ext"]["dual_encoder"]
        return dual_encoder_unet(configuration_manager, *arguments, **keywords, settings=settings)

    def initialize(self) -> None:
        name = type(self).__name__
        raise NotImplementedError(f"{name} predicts only. Train with nnUNetTrainerDualEncoder of nnunet_ext.")
