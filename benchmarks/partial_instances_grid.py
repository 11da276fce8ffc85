"""What the experiment on partially annotated instances compares: methods, datasets, and runs in the order of their
weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

STAGES = ("primary", "full")
PRIMARY_KEEP, KEEPS, DENSE = 0.3, (0.3, 0.5), 1.0
SEEDS = (0, 1, 2)
MORE_SEEDS = (3, 4)
TEST_FOLDS = 3
PILOT_FOLD, PILOT_SEED = 3, 3
ORIGIN = "Dataset702_MSLesionPatches"


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        name: in the results, and part of names of configurations.
        family: methods of one family share the learning rate.
        trainer: class name.
        settings: beside those that all runs share.
        is_dense: whether it learns from all instances.
        is_pretrained: whether it starts from the pre-training of its seed.
    """

    name: str
    family: str
    trainer: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)
    is_dense: bool = False
    is_pretrained: bool = False


STOCK = Method("stock", "stock", "nnUNetTrainerConfigurable")
STOCK_FULL = Method("stock_full", "stock", "nnUNetTrainerConfigurable", is_dense=True)
DBDMP = Method("dbdmp", "dbdmp", "nnUNetTrainerDBDMP")
PRETRAINED = Method("dbdmp_pretrained", "dbdmp", "nnUNetTrainerDBDMP", is_pretrained=True)
METHODS = (
    STOCK,
    STOCK_FULL,
    DBDMP,
    PRETRAINED,
    Method("no_pseudo_labels", "dbdmp", "nnUNetTrainerDBDMP", {"dbdmp.pseudo_label_weight": 0.0}),
    Method("one_decoder", "dbdmp", "nnUNetTrainerDBDMPOneDecoder"),
    Method("released_klce", "dbdmp", "nnUNetTrainerDBDMPReleasedKLCE"),
)
PILOTING = (STOCK, DBDMP)
REFERENCES = (STOCK, DBDMP)
"""What the others are compared with."""

DESCRIPTIONS = {
    "stock": "nnU-Net on the partial labels",
    "stock_full": "nnU-Net on the labels with every instance: what could be reached",
    "dbdmp": "nnUNetTrainerDBDMP on the partial labels",
    "dbdmp_pretrained": "the same, started from nnUNetTrainerModelsGenesis on the same training images",
    "no_pseudo_labels": "DBDMP without the pseudo-label term",
    "one_decoder": "DBDMP with one decoder, which makes its own pseudo labels",
    "released_klce": "DBDMP with the pseudo-label term as it was first released: background is the target everywhere",
}


@dataclass(frozen=True)
class Labels:
    """A dataset that is derived from the original.

    Attributes:
        keep: share of the instances that stay annotated.
        seed: of the draw; 0 where all stay.
    """

    keep: float
    seed: int

    @property
    def number(self) -> int:
        """nnU-Net's id."""
        return 700 + round(100 * self.keep) + self.seed

    @property
    def name(self) -> str:
        """nnU-Net's name."""
        draw = "Dense" if self.keep == DENSE else f"Keep{100 * self.keep:.0f}Seed{self.seed}"
        return f"Dataset{self.number}_MSLesions{draw}"


@dataclass(frozen=True)
class Run:
    """One training that is evaluated.

    Attributes:
        method: how.
        keep: share of the instances that are annotated.
        seed: of the draw of these instances and of the training; it decides the fold.
    """

    method: Method
    keep: float
    seed: int

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        share = "" if self.method.is_dense else f"_keep{100 * self.keep:.0f}"
        return f"{self.method.name}{share}_s{self.seed}"

    @property
    def fold(self) -> int:
        """Of splits_final.json: one patient is validated."""
        return fold_of(self.seed)

    @property
    def labels(self) -> Labels:
        """What it is trained on."""
        return Labels(DENSE, 0) if self.method.is_dense else Labels(self.keep, self.seed)


@dataclass(frozen=True)
class Pilot:
    """One training that is compared with others, on a patient who is in no test, to choose a learning rate."""

    method: Method
    lr: float
    seed: int = PILOT_SEED

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        return f"pilot_{self.method.name}_lr{self.lr:g}"

    @property
    def fold(self) -> int:
        """Of splits_final.json."""
        return PILOT_FOLD

    @property
    def labels(self) -> Labels:
        """What it is trained on."""
        return Labels(PRIMARY_KEEP, PILOT_SEED)


@dataclass(frozen=True)
class Pretraining:
    """One training without labels."""

    seed: int

    @property
    def name(self) -> str:
        """Of its configuration, folders and steps."""
        return f"pretraining_s{self.seed}"

    @property
    def fold(self) -> int:
        """Of splits_final.json: that of the runs that start from it."""
        return fold_of(self.seed)

    @property
    def labels(self) -> Labels:
        """The dataset whose images it sees; they are the same in all."""
        return Labels(PRIMARY_KEEP, self.seed)

    @property
    def trainer(self) -> str:
        """Class name."""
        return "nnUNetTrainerModelsGenesis"


def fold_of(seed: int) -> int:
    """The fold of a seed: each of the first three has a patient of its own."""
    return seed % TEST_FOLDS


def planned_runs(until: str) -> list[Run]:
    """The runs of a stage and of all before it, in the order in which they are done: one whole seed after another.

    Args:
        until: one of `STAGES`.
    """
    others = [keep for keep in KEEPS if keep != PRIMARY_KEEP]
    primary = [Run(method, DENSE if method.is_dense else PRIMARY_KEEP, seed) for seed in SEEDS for method in METHODS]
    if until == "primary":
        return primary
    partial = [method for method in METHODS if not method.is_dense]
    second = [Run(method, keep, seed) for seed in SEEDS for keep in others for method in partial]
    more = [Run(method, keep, seed) for seed in MORE_SEEDS for keep in KEEPS for method in REFERENCES]
    return [*primary, *second, *more]


def planned_pilots(lrs: Sequence[float]) -> list[Pilot]:
    """The trainings that choose the learning rates."""
    return [Pilot(method, lr) for method in PILOTING for lr in lrs]


def datasets_of(runs: Sequence[Run | Pilot]) -> list[Labels]:
    """The datasets that runs are trained on, each once."""
    return list(dict.fromkeys(run.labels for run in runs))
