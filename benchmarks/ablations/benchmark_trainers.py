"""What nnU-Net sees of the benchmarks: trainers that leave a part of a technique out, from where they really live."""

from benchmarks.partial_instances_ablations import nnUNetTrainerDBDMPOneDecoder, nnUNetTrainerDBDMPReleasedKLCE

__all__ = ["nnUNetTrainerDBDMPOneDecoder", "nnUNetTrainerDBDMPReleasedKLCE"]
