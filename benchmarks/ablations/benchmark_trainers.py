"""What nnU-Net sees of the benchmarks: trainers that leave a part of a technique out, from where they really live."""

from benchmarks.padding_trainers import (
    nnUNetTrainerDBDMPSupervisedPadding,
    nnUNetTrainerDMPLSPadding,
    nnUNetTrainerPartialCEPadding,
    nnUNetTrainerTDNetPadding,
    nnUNetTrainerWithoutPadding,
)
from benchmarks.partial_instances_ablations import nnUNetTrainerDBDMPOneDecoder, nnUNetTrainerDBDMPReleasedKLCE

__all__ = [
    "nnUNetTrainerDBDMPOneDecoder",
    "nnUNetTrainerDBDMPReleasedKLCE",
    "nnUNetTrainerDBDMPSupervisedPadding",
    "nnUNetTrainerDMPLSPadding",
    "nnUNetTrainerPartialCEPadding",
    "nnUNetTrainerTDNetPadding",
    "nnUNetTrainerWithoutPadding",
]
