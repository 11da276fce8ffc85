"""What nnU-Net sees of this package: every trainer, re-exported from where it really lives."""

from nnunet_ext.trainers import (
    nnUNetTrainerBiasOnly,
    nnUNetTrainerConfigurable,
    nnUNetTrainerDecoderOnly,
    nnUNetTrainerDGST,
    nnUNetTrainerFineTune,
    nnUNetTrainerHeadOnly,
    nnUNetTrainerLoRA,
    nnUNetTrainerMixUp,
    nnUNetTrainerNormOnly,
)

__all__ = [
    "nnUNetTrainerBiasOnly",
    "nnUNetTrainerConfigurable",
    "nnUNetTrainerDGST",
    "nnUNetTrainerDecoderOnly",
    "nnUNetTrainerFineTune",
    "nnUNetTrainerHeadOnly",
    "nnUNetTrainerLoRA",
    "nnUNetTrainerMixUp",
    "nnUNetTrainerNormOnly",
]
