"""What the few-shot experiment compares: methods, runs in the order of their weight, and trainings of the pilot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.domain_shift import PILOT_FOLD, SEEDS, SHOTS, fold_number

STAGES = ("primary", "shots", "full")
PRIMARY_SHOTS = 5


@dataclass(frozen=True)
class Method:
    """A way to come to a model for the target.

    Attributes:
        name: in the results.
        family: methods of one family share the learning rate.
        trainer: class name.
        settings: beside those that all runs share.
        pilots: whether the family's learning rate is chosen by this method.
    """

    name: str
    family: str
    trainer: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    pilots: bool = True

    @property
    def slug(self) -> str:
        """The name as part of a configuration's name."""
        return self.name.lower().replace(" ", "_").replace("=", "")

    @property
    def is_tuned(self) -> bool:
        """Whether it starts from the source model."""
        return self.name != SCRATCH


SCRATCH, REFERENCE = "scratch", "full"


def dgst(mode: str, top_k: int) -> Method:
    """Dynamic gradient sparsification with one entry or more of each kernel."""
    settings = {"dgst.mode": mode, "dgst.top_k": top_k}
    return Method(f"DGST {mode} k={top_k}", f"DGST {mode}", "nnUNetTrainerDGST", settings, pilots=top_k == 1)


METHODS = (
    Method(SCRATCH, SCRATCH, "nnUNetTrainerConfigurable"),
    Method(REFERENCE, REFERENCE, "nnUNetTrainerFineTune"),
    Method("head only", "head only", "nnUNetTrainerHeadOnly"),
    Method("decoder only", "decoder only", "nnUNetTrainerDecoderOnly"),
    Method("bias only", "bias only", "nnUNetTrainerBiasOnly"),
    Method("norm only", "norm only", "nnUNetTrainerNormOnly"),
    Method("LoRA", "LoRA", "nnUNetTrainerLoRA"),
    *(dgst("strict", top_k) for top_k in (1, 2, 5)),
    *(dgst("grad_mask", top_k) for top_k in (1, 2, 5)),
    Method(
        "DGST random k=1",
        "DGST strict",
        "nnUNetTrainerDGST",
        {"dgst.mode": "strict", "dgst.top_k": 1, "dgst.selection": "random"},
        pilots=False,
    ),
)
ALL_SHOTS = (SCRATCH, REFERENCE, "LoRA", "DGST strict k=1", "DGST grad_mask k=1")
"""Methods that the stage ``shots`` also trains with the other numbers of shots."""


@dataclass(frozen=True)
class Run:
    """One training on the target that is evaluated."""

    method: Method
    shots: int
    seed: int

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        return f"{self.method.slug}_{self.shots}shot_s{self.seed}"

    @property
    def fold(self) -> int:
        """Of the target's splits_final.json."""
        return fold_number(self.shots, self.seed)


@dataclass(frozen=True)
class Pilot:
    """One training that is compared with others by its validation cases, to choose a learning rate."""

    method: Method
    lr: float

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        return f"pilot_{self.method.family.lower().replace(' ', '_')}_lr{self.lr:g}"

    @property
    def fold(self) -> int:
        """Of the target's splits_final.json."""
        return PILOT_FOLD


def planned_pilots(lrs: Sequence[float]) -> list[Pilot]:
    """Every family with every learning rate."""
    return [Pilot(method, lr) for method in METHODS if method.pilots for lr in lrs]


def planned_runs(until: str) -> list[Run]:
    """The runs up to a stage, in their order: what matters most comes first, and of that one whole seed after another.

    Args:
        until: one of `STAGES`.
    """
    others = [shots for shots in SHOTS if shots != PRIMARY_SHOTS]
    few = [method for method in METHODS if method.name in ALL_SHOTS]
    stages = {
        "primary": [Run(method, PRIMARY_SHOTS, seed) for seed in SEEDS for method in METHODS],
        "shots": [Run(method, shots, seed) for seed in SEEDS for shots in others for method in few],
        "full": [Run(method, shots, seed) for seed in SEEDS for shots in others for method in METHODS],
    }
    wanted = STAGES[: STAGES.index(until) + 1]
    return list(dict.fromkeys(run for stage in wanted for run in stages[stage]))
