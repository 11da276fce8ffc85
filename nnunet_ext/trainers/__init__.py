"""The trainers, as nnU-Net finds them by name."""

from nnunet_ext.trainers.base import nnUNetTrainerConfigurable
from nnunet_ext.trainers.mixup import nnUNetTrainerMixUp

__all__ = ["nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"]
