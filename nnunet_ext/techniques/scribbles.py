"""Learning from scribbles: partial cross-entropy, DMPLS (arXiv 2203.02106) and TDNet (arXiv 2309.09730)."""

from typing import Literal, TypeAlias

from pydantic import Field, field_validator

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import Section, Technique, TrainerEntry

NEEDS = "scribbles, and the ignore label where nobody annotated"
CHECKS = ("nnunet_ext.preprocessing.checks.scribbles:ScribbleCheck",)

Supervision: TypeAlias = Literal["partial_ce", "dice_ce"]
SUPERVISION: Supervision = "partial_ce"
SUPERVISION_HELP = (
    "What each branch learns from the annotated voxels: `partial_ce`, cross-entropy (the paper's), or `dice_ce`, "
    "nnU-Net's own Dice and cross-entropy."
)


class PartialCESettings(Section):
    """Cross-entropy over scribbled voxels, for stock networks."""

    entropy_weight: float = Field(
        0.0, ge=0, description="Factor of the mean entropy of the voxels that nobody annotated. 0 leaves it out."
    )


PARTIAL_CE = Technique(
    "partial_ce",
    settings=PartialCESettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerPartialCE",
            "cross-entropy over scribbles, and minimal entropy elsewhere if asked",
            needs=NEEDS,
        ),
    ),
    checks=CHECKS,
    page="scribbles",
)


class DMPLSSettings(Section):
    """Two decoders that learn from scribbles and from pseudo labels mixed of both (arXiv 2203.02106)."""

    dropout: float = Field(
        0.5, ge=0, lt=1, description="Channel dropout of every feature that the auxiliary decoder receives."
    )
    supervision: Supervision = Field(SUPERVISION, description=SUPERVISION_HELP)
    pseudo_label_weight: float = Field(0.5, ge=0, description="Factor of the Dice loss against the pseudo labels.")
    pseudo_label_dice: Literal["squared", "foreground"] = Field(
        "squared",
        description="`squared`: Dice of all classes with squared probabilities in the denominator (the authors' code). "
        "`foreground`: soft Dice of the foreground classes, as in nnU-Net.",
    )
    ramp_epochs: int = Field(
        0, ge=0, description="Epochs over which the pseudo-label term rises to its factor. 0: no ramp (the paper's)."
    )


DMPLS = Technique(
    "dmpls",
    settings=DMPLSSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerDMPLS",
            "scribble supervision with pseudo labels mixed of two decoders",
            needs=NEEDS,
            paper="arXiv 2203.02106",
        ),
    ),
    checks=CHECKS,
    page="scribbles",
)


class TDNetSettings(Section):
    """Three decoders that learn from scribbles and from each other (arXiv 2309.09730)."""

    dilations: list[int] = Field(
        [1, 3, 6],
        min_length=2,
        description="Dilation of each decoder, except in its deepest stage. The first must be 1: this decoder is the "
        "plans' own, and it alone predicts.",
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="The bottleneck's dropout before the other decoders is drawn from 0 to this."
    )
    supervision: Supervision = Field(SUPERVISION, description=SUPERVISION_HELP)
    uspc_weight: float = Field(
        10.0, ge=0, description="Factor of the pixel-wise consistency at the end of the ramp. 0 leaves it out."
    )
    mpcc_weight: float = Field(
        1.0, ge=0, description="Factor of the class consistency of projections at the end of the ramp. 0 leaves it out."
    )
    uncertainty_weights: bool = Field(
        True, description="Whether voxels count less in the pixel-wise consistency where the decoders' mean is unsure."
    )
    detach_target: bool = Field(
        True, description="Whether the decoders' mean is a fixed target, through which no gradient flows."
    )
    ramp_epochs: int | None = Field(
        None, ge=0, description="Epochs over which both consistency terms rise. Unset: the whole training."
    )

    @field_validator("dilations")
    @classmethod
    def _check_dilations(cls, dilations: list[int]) -> list[int]:
        if dilations[0] != 1 or min(dilations) < 1:
            raise ValueError("the first dilation is 1, and the others are at least 1")
        return dilations


TDNET = Technique(
    "tdnet",
    settings=TDNetSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerTDNet",
            "scribble supervision by the consistency of three dilated decoders",
            needs=NEEDS,
            paper="arXiv 2309.09730",
        ),
    ),
    checks=CHECKS,
    page="scribbles",
    advice=(
        Advice(
            "nnUNetTrainerTDNet",
            lambda facts: facts.scribbled > 0 and not (facts.is_mixed or facts.has_regions),
            why="Three decoders that have to agree fill in what lies between the strokes.",
            evidence="Hearts with scribbles, 2,000 steps, 5 seeds: Dice 0.771, and 0.779 with "
            "tdnet.supervision=dice_ce; stock nnU-Net with the ignore label 0.773, and 0.807 with twice the "
            "steps. Without islands: 0.819 with dice_ce, stock 0.803, and 0.829 with twice the steps.",
            verdict="not shown",
            results="docs/techniques/scribbles.md#results",
            commands=(
                "nnunet_ext configure -d {number}{plans} -c {c} --name {c}_dice_ce tdnet.supervision=dice_ce",
                "nnUNetv2_train {number} {c}_dice_ce 0 -tr nnUNetTrainerTDNet{plans}{device}",
            ),
            epochs=240,
            time=2.82,
            memory=2.13,
        ),
    ),
)
