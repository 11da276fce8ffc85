"""nnU-Net's own training with settings from the plans file."""

from nnunet_ext.techniques import FOREGROUND, Section, Technique, TrainerEntry

BASE: Technique[Section] = Technique(
    "base",
    trainers=(
        TrainerEntry(
            "nnUNetTrainerConfigurable",
            "stock nnU-Net training with epochs, optimizer, … taken from the plans file",
            paper="Isensee et al., doi 10.1038/s41592-020-01008-z",
        ),
    ),
    checks=(FOREGROUND, "nnunet_ext.preprocessing.checks.scribbles:IgnoreLabelCheck"),
)
