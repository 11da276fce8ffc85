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
    TrainerEntry(
        name="nnUNetTrainerFineTune",
        technique="fine-tuning of every weight, from another model",
        needs="a trained model to start from",
        paper="arXiv 2503.00748",
    ),
    TrainerEntry(
        name="nnUNetTrainerHeadOnly",
        technique="fine-tuning of the segmentation heads",
        needs="a trained model to start from",
        paper="",
    ),
    TrainerEntry(
        name="nnUNetTrainerDecoderOnly",
        technique="fine-tuning of the decoder",
        needs="a trained model to start from",
        paper="",
    ),
    TrainerEntry(
        name="nnUNetTrainerBiasOnly",
        technique="fine-tuning of biases and heads",
        needs="a trained model to start from",
        paper="arXiv 2106.10199",
    ),
    TrainerEntry(
        name="nnUNetTrainerNormOnly",
        technique="fine-tuning of normalisations and heads",
        needs="a trained model to start from",
        paper="arXiv 2003.00152",
    ),
    TrainerEntry(
        name="nnUNetTrainerLoRA",
        technique="fine-tuning of low-rank adapters, biases and heads",
        needs="a trained model to start from; the library peft",
        paper="arXiv 2106.09685",
    ),
    TrainerEntry(
        name="nnUNetTrainerDGST",
        technique="fine-tuning of a few entries of each kernel, chosen anew in every step",
        needs="a trained model to start from",
        paper="arXiv 2503.00748",
    ),
    TrainerEntry(
        name="nnUNetTrainerDBDMP",
        technique="learning from partially annotated instances with dynamically mixed pseudo labels",
        needs="labels in which some instances of a case are annotated and others are not",
        paper="arXiv 2408.09411",
    ),
    TrainerEntry(
        name="nnUNetTrainerModelsGenesis",
        technique="self-supervised pre-training: undo the corruptions of an image",
        needs="images; labels are not looked at",
        paper="arXiv 2004.07882",
    ),
    TrainerEntry(
        name="nnUNetTrainerPartialCE",
        technique="cross-entropy over scribbles, and minimal entropy elsewhere if asked",
        needs="scribbles, and the ignore label where nobody annotated",
        paper="",
    ),
    TrainerEntry(
        name="nnUNetTrainerDMPLS",
        technique="scribble supervision with pseudo labels mixed of two decoders",
        needs="scribbles, and the ignore label where nobody annotated",
        paper="arXiv 2203.02106",
    ),
    TrainerEntry(
        name="nnUNetTrainerTDNet",
        technique="scribble supervision by the consistency of three dilated decoders",
        needs="scribbles, and the ignore label where nobody annotated",
        paper="arXiv 2309.09730",
    ),
    TrainerEntry(
        name="nnUNetTrainerDualEncoder",
        technique="a second encoder for a prior scan, its image and its labels",
        needs="channels of a prior scan beside the current one, as `nnunet_ext pair` writes them",
        paper="arXiv 2412.14846",
    ),
    TrainerEntry(
        name="nnUNetTrainerDualEncoderMixUp",
        technique="the second encoder for a prior scan, with MixUp or CutMix",
        needs="channels of a prior scan beside the current one; a batch of at least two",
        paper="arXiv 2412.14846",
    ),
)
