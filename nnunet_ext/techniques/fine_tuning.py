"""Fine-tuning of a trained model with few cases."""

import os
from pathlib import Path

from pydantic import Field

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import Section, Technique, TrainerEntry

START = "a trained model to start from"


class FineTuningSettings(Section):
    """Fine-tuning of a trained model with few cases: where it starts from, for every strategy."""

    source: str | None = Field(
        None,
        description="What to start from: a checkpoint, or a model's folder, of nnU-Net, of `nnunet_ext adapt-weights` "
        "or of public weights; read and adapted as that command does. `~` and environment variables are expanded. "
        "Unset: what `-pretrained_weights` gives.",
    )
    keep_heads: bool = Field(
        True,
        description="Keep the source's segmentation heads for labels of the same name. Needs `source`: nnU-Net's "
        "`-pretrained_weights` never loads heads.",
    )
    allow_random_start: bool = Field(
        False, description="Train although there is nothing to start from (an error otherwise)."
    )
    l2_sp: float = Field(
        0.0,
        ge=0,
        description="L2-SP: adds this times the sum of (w - w0)^2 over the weights that the source has to the loss, in "
        "place of their weight decay (arXiv 1802.01483).",
    )
    copied_lr_factor: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Factor of the learning rate of the weights that come from the source; random ones keep the whole "
        "rate.",
    )
    warmup_epochs: int = Field(
        0,
        ge=0,
        description="Epochs in which the learning rate rises linearly, before it decays; fewer than num_epochs.",
    )
    lora_rank: int = Field(32, ge=1, description="`nnUNetTrainerLoRA`: rank r of the adapters.")
    lora_alpha: float = Field(16.0, gt=0, description="`nnUNetTrainerLoRA`: alpha; the adapters' factor is alpha / r.")
    lora_dropout: float = Field(0.1, ge=0, lt=1, description="`nnUNetTrainerLoRA`: dropout of the adapters' input.")

    @property
    def source_file(self) -> Path | None:
        """`source` as a whole path on this machine."""
        return None if self.source is None else Path(os.path.expandvars(self.source)).expanduser().absolute()


FINE_TUNING = Technique(
    "fine_tuning",
    settings=FineTuningSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerFineTune",
            "fine-tuning of every weight, from another model",
            needs=START,
            paper="arXiv 2503.00748",
        ),
        TrainerEntry("nnUNetTrainerHeadOnly", "fine-tuning of the segmentation heads", needs=START),
        TrainerEntry("nnUNetTrainerDecoderOnly", "fine-tuning of the decoder", needs=START),
        TrainerEntry("nnUNetTrainerBiasOnly", "fine-tuning of biases and heads", needs=START, paper="arXiv 2106.10199"),
        TrainerEntry(
            "nnUNetTrainerNormOnly", "fine-tuning of normalisations and heads", needs=START, paper="arXiv 2003.00152"
        ),
        TrainerEntry(
            "nnUNetTrainerLoRA",
            "fine-tuning of low-rank adapters, biases and heads",
            needs=f"{START}; the library peft",
            paper="arXiv 2106.09685",
        ),
    ),
    advice=(
        Advice(
            "nnUNetTrainerFineTune",
            lambda facts: facts.is_few_dense,
            why="Where there is a model for a similar task, start from it, and compare with random weights.",
            evidence="The heart with a simulated other contrast, 5 cases, 1,000 steps of AdamW, one source model of "
            "the same dataset, 3 seeds: Dice 0.836 against 0.778 from random weights, +0.058 (+0.034 to +0.086), and "
            "against 0.812 from random weights with 3,000 steps, +0.024 (+0.001 to +0.058); with 1 case +0.118, with "
            "10 +0.041. No public model was measured. It forgets the source: 0.144 of 0.878 is left, and between two "
            "phases of the heart 0.841 of 0.877.",
            verdict="better",
            results="docs/techniques/fine-tuning.md#results",
            commands=(
                "nnunet_ext plan --like SOURCE.pth -d {number}{plans} -c {base} --new-plans nnUNetPlans_source",
                "nnUNetv2_preprocess -d {number} -plans_name nnUNetPlans_source -c {base}_like",
                "nnunet_ext configure -d {number} -p nnUNetPlans_source -c {base}_like --name {base}_tuned "
                "fine_tuning.source=SOURCE.pth{epochs}",
                "nnUNetv2_train {number} {base}_tuned 0 -tr nnUNetTrainerFineTune -p nnUNetPlans_source{device}",
            ),
            epochs=50,
            has_own_network=True,
            needs="a trained model, here SOURCE.pth; docs/recipes/public-weights.md names public ones",
        ),
    ),
)
