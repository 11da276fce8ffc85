"""What nnU-Net sees of this package: every trainer, re-exported from where it really lives."""

from nnunet_ext.trainers import (
    nnUNetTrainerBiasOnly,
    nnUNetTrainerConfigurable,
    nnUNetTrainerDBDMP,
    nnUNetTrainerDecoderOnly,
    nnUNetTrainerDGST,
    nnUNetTrainerDMPLS,
    nnUNetTrainerDualEncoder,
    nnUNetTrainerDualEncoderMixUp,
    nnUNetTrainerFineTune,
    nnUNetTrainerHeadOnly,
    nnUNetTrainerLoRA,
    nnUNetTrainerMixUp,
    nnUNetTrainerModelsGenesis,
    nnUNetTrainerNormOnly,
    nnUNetTrainerPartialCE,
    nnUNetTrainerTDNet,
)

__all__ = [
    "nnUNetTrainerBiasOnly",
    "nnUNetTrainerConfigurable",
    "nnUNetTrainerDBDMP",
    "nnUNetTrainerDGST",
    "nnUNetTrainerDMPLS",
    "nnUNetTrainerDecoderOnly",
    "nnUNetTrainerDualEncoder",
    "nnUNetTrainerDualEncoderMixUp",
    "nnUNetTrainerFineTune",
    "nnUNetTrainerHeadOnly",
    "nnUNetTrainerLoRA",
    "nnUNetTrainerMixUp",
    "nnUNetTrainerModelsGenesis",
    "nnUNetTrainerNormOnly",
    "nnUNetTrainerPartialCE",
    "nnUNetTrainerTDNet",
]
