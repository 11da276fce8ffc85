"""Learning from cases of which only some labels were annotated (arXiv 2007.03868)."""

from collections.abc import Collection

from pydantic import Field

from nnunet_ext.advice import Advice
from nnunet_ext.messages import some
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
    entropy_weight: float = Field(
        0.0,
        ge=0,
        description="`nnUNetTrainerMixedSupervision`: factor of the mean entropy of voxels that nobody annotated: "
        "ignored ones and those of unlabelled cases. 0 leaves it out, and unlabelled cases too.",
    )


def without_prediction(cases: Collection[str], stage: str) -> str:
    """What to do about cases of a cascade that were annotated for nothing, and that its first stage did not predict."""
    return (
        f"{some(cases)}: annotated for nothing and not predicted by {stage}, as no fold validates on them. To leave "
        f"them out, set partial_labels.entropy_weight to 0. To learn from them, train fold all of {stage}, which "
        f"predicts every case, and then run nnUNetv2_train --val for each other fold of {stage}, whose predictions it "
        "has replaced."
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
            "learning from cases with missing labels, with MixUp or CutMix",
            needs=f"{LISTS}; a batch of at least two",
            paper="arXiv 2007.03868",
        ),
        TrainerEntry(
            "nnUNetTrainerMixedSupervision",
            "learning from dense, scribbled, partially labelled and unlabelled cases together",
            needs=f"{LISTS}; the ignore label for what nobody annotated in scribbled cases",
            paper="arXiv 2007.03868",
        ),
    ),
    checks=(FOREGROUND, "nnunet_ext.preprocessing.checks.partial_labels:PartialLabelsCheck"),
    page="partial-labels",
    advice=(
        Advice(
            "nnUNetTrainerPartialLabels",
            lambda facts: facts.partial > 0 and not facts.is_mixed,
            why="One model learns from all cases, each for the labels that it was annotated for.",
            evidence="Hearts, each label annotated in half of 24 patients, 2,000 steps, 3 seeds: Dice +0.256 (+0.189 "
            "to +0.316) beside missing labels as background, but -0.005 (-0.033 to +0.031) beside a model for each "
            "label and +0.017 (-0.002 to +0.037) beside the cases with every label, both open. Added later: with as "
            "many steps as the three models together, +0.045 (+0.024 to +0.075) beside these. So multiply num_epochs "
            "by the number of models that it replaces. Hippocampus, two labels: no gain shown.",
            verdict="mixed",
            results="docs/techniques/partial-labels.md#results",
        ),
        Advice(
            "nnUNetTrainerMixedSupervision",
            lambda facts: facts.is_mixed and not facts.has_regions,
            why="One model learns from dense, scribbled, partially labelled and unlabelled cases together.",
            evidence="Not measured: whether the mixture beats the dense cases alone is not known.",
            verdict="not measured",
            results="docs/techniques/partial-labels.md#mixed-supervision",
        ),
    ),
)
