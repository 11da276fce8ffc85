"""What nnU-Net sees of this package: every trainer, re-exported from where it really lives."""

from nnunet_ext.trainers import (
    nnUNetTrainerBiasOnly,
    nnUNetTrainerConfigurable,
    nnUNetTrainerDBDMP,
    nnUNetTrainerDecoderOnly,
    nnUNetTrainerDGST,
    nnUNetTrainerDualEncoder,
    nnUNetTrainerDualEncoderMixUp,
    nnUNetTrainerFineTune,
    nnUNetTrainerHeadOnly,
    nnUNetTrainerLoRA,
    nnUNetTrainerMixUp,
    nnUNetTrainerModelsGenesis,
    nnUNetTrainerNormOnly,
)

__all__ = [
    "nnUNetTrainerBiasOnly",
    "nnUNetTrainerConfigurable",
    "nnUNetTrainerDBDMP",
    "nnUNetTrainerDGST",
    "nnUNetTrainerDecoderOnly",
    "nnUNetTrainerDualEncoder",
    "nnUNetTrainerDualEncoderMixUp",
    "nnUNetTrainerFineTune",
    "nnUNetTrainerHeadOnly",
    "nnUNetTrainerLoRA",
    "nnUNetTrainerMixUp",
    "nnUNetTrainerModelsGenesis",
    "nnUNetTrainerNormOnly",
]
