from nnunet_ext.trainers.base import nnUNetTrainerConfigurable
from nnunet_ext.trainers.dgst import nnUNetTrainerDGST
from nnunet_ext.trainers.fine_tuning import (
    nnUNetTrainerBiasOnly,
    nnUNetTrainerDecoderOnly,
    nnUNetTrainerFineTune,
    nnUNetTrainerHeadOnly,
    nnUNetTrainerLoRA,
    nnUNetTrainerNormOnly,
)
from nnunet_ext.trainers.mixup import nnUNetTrainerMixUp

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
