"""Every trainer of this package, with what ``nnunet_ext list`` says of it.

The contract suite (tests/contract/) runs on each trainer named here. Importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module


@dataclass(frozen=True)
class TrainerEntry:
    """One trainer.

    Attributes:
        name: class name, what goes behind ``nnUNetv2_train … -tr``.
        technique: what it does, in a few words.
        needs: what the dataset must have beyond images and labels.
        paper: where the technique comes from; empty if it comes from nowhere else.
    """

    name: str
    technique: str
    needs: str
    paper: str

    def load(self) -> type:
        """The trainer class itself (imports torch and nnunetv2)."""
        return getattr(import_module("nnunet_ext.trainers"), self.name)


TRAINERS: tuple[TrainerEntry, ...] = (
    TrainerEntry(
        name="nnUNetTrainerConfigurable",
        technique="stock nnU-Net training with epochs, optimizer, … taken from the plans file",
        needs="nothing",
        paper="Isensee et al., doi 10.1038/s41592-020-01008-z",
    ),
    TrainerEntry(
        name="nnUNetTrainerMixUp",
        technique="MixUp or CutMix of whole patches beside the usual loss",
        needs="nothing; a batch of at least two",
        paper="arXiv 2412.14846",
    ),
)
