"""Correction of wrong labels before the network learns them by heart (arXiv 2110.03740)."""

from pydantic import Field

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import Section, Technique, TrainerEntry


class ADELESettings(Section):
    """Correction of wrong labels before the network learns them by heart (arXiv 2110.03740)."""

    confidence: float = Field(
        0.8, gt=0.5, lt=1, description="Probability above which a prediction takes a label's place, τ in the paper."
    )
    slope_fall: float = Field(
        0.9,
        gt=0,
        lt=1,
        description="Share by which the slope of a class's learning curve must have fallen, in the fits of five "
        "epochs in a row, before its labels are corrected; r in the paper.",
    )
    min_epochs: int = Field(
        5,
        ge=3,
        description="Epochs with an IoU that a class must have since the network first found it, before it can be "
        "corrected. The five fits in a row need 7, so that 3 to 7 are alike.",
    )


ADELE = Technique(
    "adele",
    settings=ADELESettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerADELE",
            "correction of wrong labels before the network learns them by heart",
            needs="dense labels of which some are wrong",
            paper="arXiv 2110.03740",
        ),
    ),
    page="noisy-labels",
    advice=(
        Advice(
            "nnUNetTrainerADELE",
            lambda facts: facts.is_dense and facts.wrong_labels,
            why="It corrects labels while it trains, where there are too many for people to look at.",
            evidence="Hearts, 64 patients, errors in a fifth of the labels: Dice -0.008 (-0.014 to -0.004) beside "
            "stock nnU-Net by an earlier rule (5 seeds), -0.012 (-0.025 to -0.002) by the present one (3 seeds). Stock "
            "did not learn the errors by heart. With 8 patients and errors in two fifths it did: +0.015 (-0.005 to "
            "+0.035), 5 seeds, no gain shown; right labels gain +0.081 (one seed).",
            verdict="worse",
            results="docs/techniques/noisy-labels.md#results",
        ),
    ),
)
