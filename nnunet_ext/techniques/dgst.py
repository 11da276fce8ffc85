"""Dynamic gradient sparsification training (arXiv 2503.00748)."""

from typing import Literal

from pydantic import Field

from nnunet_ext.advice import Advice
from nnunet_ext.techniques import Section, Technique, TrainerEntry
from nnunet_ext.techniques.fine_tuning import START


class DGSTSettings(Section):
    """Dynamic gradient sparsification training (arXiv 2503.00748)."""

    top_k: int = Field(1, ge=1, description="Entries of each row (output channel) of a kernel that a step may move.")
    mode: Literal["strict", "grad_mask"] = Field(
        "strict",
        description="`strict`: an entry that was not selected stays bit for bit as it is. `grad_mask`: its gradient "
        "is zero, but momentum and weight decay go on moving it.",
    )
    kernel_lr_factor: float = Field(
        1.0,
        gt=0,
        description="Factor of the learning rate of the kernels. An entry moves in few of the steps, and may need a "
        "higher rate than normalisations, biases and heads, which move in all.",
    )
    selection: Literal["top", "random"] = Field(
        "top", description="`top`: the entries with the largest gradients. `random`: random entries, for ablation."
    )


DGST = Technique(
    "dgst",
    settings=DGSTSettings,
    trainers=(
        TrainerEntry(
            "nnUNetTrainerDGST",
            "fine-tuning of a few entries of each kernel, chosen anew in every step",
            needs=START,
            paper="arXiv 2503.00748",
        ),
    ),
    advice=(
        Advice(
            "nnUNetTrainerDGST",
            lambda facts: facts.is_few_dense,
            why="It moves few entries of each kernel. Try it after full fine-tuning, whose configuration it shares.",
            evidence="The heart, 5 cases, 1,000 steps of AdamW, beside full fine-tuning: another phase, Dice -0.004 "
            "(-0.012 to +0.003), 5 seeds; a simulated other contrast, -0.027 (-0.049 to -0.008), 3 seeds, and less of "
            "the source kept; with 1 case no difference is shown.",
            verdict="worse",
            results="docs/techniques/fine-tuning.md#results",
            commands=("nnUNetv2_train {number} {base}_tuned 0 -tr nnUNetTrainerDGST -p nnUNetPlans_source{device}",),
            epochs=50,
            has_own_network=True,
            needs="the configuration of the fine-tuning above",
        ),
    ),
)
