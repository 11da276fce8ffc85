"""Learning from partially annotated instances (arXiv 2408.09411)."""

from pydantic import Field

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import FOREGROUND, Section, Technique, TrainerEntry


class DBDMPSettings(Section):
    """Learning from partially annotated instances with dynamically mixed pseudo labels (arXiv 2408.09411)."""

    dropout: float = Field(
        0.5, ge=0, lt=1, description="Channel dropout of every feature that the auxiliary decoder receives."
    )
    supervised_weight: float = Field(0.25, ge=0, description="Factor of the supervised terms of each branch.")
    tversky_weight: float = Field(1.0, ge=0, description="Factor of the Tversky loss among the supervised terms.")
    tversky_alpha: float = Field(0.4, gt=0, description="Weight of false positives in the Tversky loss.")
    tversky_beta: float = Field(0.6, gt=0, description="Weight of false negatives in the Tversky loss.")
    ce_weight: float = Field(0.8, ge=0, description="Factor of the cross-entropy in the symmetric cross-entropy.")
    rce_weight: float = Field(
        1.0, ge=0, description="Factor of the reverse cross-entropy in the symmetric cross-entropy."
    )
    partial_ce_weight: float = Field(
        1.0, ge=0, description="Factor of the cross-entropy over annotated voxels among the supervised terms."
    )
    pseudo_label_weight: float = Field(
        1.0, ge=0, description="Factor of the pseudo-label term at the end of the ramp. 0 leaves it out."
    )
    ramp_epochs: int = Field(99, ge=0, description="Epochs over which the pseudo-label term rises to its factor.")
    temperature: float = Field(
        0.3,
        gt=0,
        description="Temperature that sharpens the pseudo labels; nothing is sharpened from 0.5 on, with more than two "
        "classes from 0.37 on.",
    )


DBDMP = Technique(
    "dbdmp",
    settings=DBDMPSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerDBDMP",
            "learning from partially annotated instances with dynamically mixed pseudo labels",
            needs="labels in which some instances of a case are annotated and others are not",
            paper="arXiv 2408.09411",
        ),
    ),
    checks=(FOREGROUND, "nnunet_ext.preprocessing.checks.partial_instances:PartialInstancesCheck"),
    page="partial-instances",
    advice=(
        Advice(
            "nnUNetTrainerDBDMP",
            lambda facts: facts.missing_instances and not facts.has_regions,
            why="It finds more lesions, with many false alarms: for a reader who reviews the findings, not for "
            "volumes.",
            evidence="42 tiles of 4 patients, 360 steps, 3 seeds: 0.69 of the lesions found where stock finds 0.37, "
            "but Dice 0.356 against stock's 0.492, lesion F1 0.152 against 0.327, and nine of ten findings are false. "
            "Stock at a lower threshold, which also finds more, was not measured. By an earlier version. Each seed "
            "tested one patient, which is too few for a verdict.",
            verdict="mixed",
            results="docs/techniques/partial-instances.md#results",
            when_short="dbdmp.ramp_epochs={third}",
            epochs=300,
            time=1.73,
            memory=1.57,
        ),
    ),
)
