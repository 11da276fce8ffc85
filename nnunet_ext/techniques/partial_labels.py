"""Learning from cases of which only some labels were annotated (arXiv 2007.03868)."""

from pydantic import Field

from nnunet_ext.techniques import FOREGROUND, Section, Technique, TrainerEntry

LISTS = "lists in dataset.json of the labels that each case was annotated for, as `nnunet_ext merge` writes them"


class PartialLabelsSettings(Section):
    """Learning from cases of which only some labels were annotated (arXiv 2007.03868)."""

    exclusion_weight: float = Field(
        0.0,
        ge=0,
        description="Factor of the exclusion loss: labels that were not annotated must not lie over annotated "
        "foreground. 0 leaves it out. Not for regions.",
    )


PARTIAL_LABELS = Technique(
    "partial_labels",
    settings=PartialLabelsSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerPartialLabels",
            "learning from cases of which only some labels were annotated",
            needs=LISTS,
            paper="arXiv 2007.03868",
        ),
        TrainerEntry(
            "nnUNetTrainerPartialLabelsMixUp",
            "the same with MixUp or CutMix",
            needs=f"{LISTS}; a batch of at least two",
            paper="arXiv 2007.03868",
        ),
    ),
    checks=(FOREGROUND, "nnunet_ext.preprocessing.checks.partial_labels:PartialLabelsCheck"),
    page="partial-labels",
)
