from nnunet_ext.trainers.base import nnUNetTrainerConfigurable
from nnunet_ext.trainers.dbdmp import nnUNetTrainerDBDMP
from nnunet_ext.trainers.dgst import nnUNetTrainerDGST
from nnunet_ext.trainers.dmpls import nnUNetTrainerDMPLS
from nnunet_ext.trainers.dual_encoder import nnUNetTrainerDualEncoder, nnUNetTrainerDualEncoderMixUp
from nnunet_ext.trainers.fine_tuning import (
    nnUNetTrainerBiasOnly,
    nnUNetTrainerDecoderOnly,
    nnUNetTrainerFineTune,
    nnUNetTrainerHeadOnly,
    nnUNetTrainerLoRA,
    nnUNetTrainerNormOnly,
)
from nnunet_ext.trainers.mixup import nnUNetTrainerMixUp
from nnunet_ext.trainers.models_genesis import nnUNetTrainerModelsGenesis
from nnunet_ext.trainers.partial_ce import nnUNetTrainerPartialCE
from nnunet_ext.trainers.tdnet import nnUNetTrainerTDNet

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
