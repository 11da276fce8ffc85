"""What nnU-Net sees of this package: every trainer, re-exported from where it really lives."""

from nnunet_ext.trainers import nnUNetTrainerConfigurable, nnUNetTrainerMixUp

__all__ = ["nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"]
