"""MixUp and CutMix (arXiv 2412.14846), and CarveMix (arXiv 2108.06883)."""

from typing import Literal

from pydantic import Field

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import Section, Technique, TrainerEntry


class MixUpSettings(Section):
    """MixUp, CutMix (arXiv 2412.14846) and CarveMix (arXiv 2108.06883) of the patches in a batch."""

    kind: Literal["mixup", "cutmix", "carvemix"] = Field(
        "mixup",
        description="`mixup` blends two patches and their labels, `cutmix` pastes a box of half the patch, `carvemix` "
        "pastes the foreground with a random margin.",
    )
    mode: Literal["additional", "alternate"] = Field(
        "additional",
        description="`additional` adds the mixed loss to the usual one (a second forward pass); `alternate` replaces "
        "the usual loss by it in a share of the steps (one forward pass).",
    )
    alpha: float = Field(0.4, gt=0, description="The mixing ratio is drawn from Beta(alpha, alpha), per sample.")
    weight: float = Field(1.0, ge=0, description="Factor of the mixed loss.")
    probability: float | None = Field(
        None, ge=0, le=1, description="Share of steps that mix. Default: 1 for `additional`, 0.5 for `alternate`."
    )


MIXUP = Technique(
    "mixup",
    settings=MixUpSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerMixUp",
            "MixUp, CutMix or CarveMix of patches beside the usual loss",
            needs="nothing; a batch of at least two",
            paper="arXiv 2412.14846",
        ),
    ),
    advice=(
        Advice(
            "nnUNetTrainerMixUp",
            lambda facts: facts.is_few_dense,
            why="Mixing patches is a regularisation that needs no other data. Expect a small gain at most.",
            evidence="Hippocampus, 160 cases, one seed, 1,000 steps: Dice +0.005 (0.001 to 0.009), at twice the "
            "arithmetic; half of the tested cases have the other side of their brain in training. With few cases it "
            "was not measured.",
            verdict="not measured",
            results="docs/techniques/mixup.md#results",
            time=2.0,
            memory=1.04,
        ),
    ),
)
