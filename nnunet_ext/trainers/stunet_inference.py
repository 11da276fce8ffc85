"""The trainer that `nnunet_ext export-stock` writes beside an exported STU-Net: it needs nnU-Net alone.

Nothing of this package imports it. Its text is exported, with that of the modules of this package that it imports.
"""

from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_ext.networks.stunet import STUNet


class nnUNetTrainerSTUNetInference(nnUNetTrainer):
    """Tells nnU-Net's predictor how a STU-Net is built. It does not train."""

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """The network, by its arguments in the plans."""
        arguments = {**configuration_manager.network_arch_init_kwargs, "conv_op": nn.Conv3d}
        return STUNet(num_input_channels, num_output_channels, **arguments, deep_supervision=enable_deep_supervision)

    def initialize(self) -> None:
        raise NotImplementedError(f"{type(self).__name__} predicts only. Train with a trainer of nnunet_ext.")
