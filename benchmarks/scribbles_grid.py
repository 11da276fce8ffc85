"""What the experiment on scribbles compares: methods, datasets, and runs in the order of their weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.acdc import Inputs, Method, Pilot, Run, ordered_runs, pilots_of

SCRIBBLES = Inputs(851, "Scribbles", "scribbles")
DENSE = Inputs(852, "Dense", "full masks")
TRAINING_INPUTS = (SCRIBBLES, DENSE)

NNUNET, TDNET = "nnUNetTrainerConfigurable", "nnUNetTrainerTDNet"
EQUAL: Mapping[str, Any] = {"weight_decay": 3e-5}
"""nnU-Net's, where a trainer's own default is another."""


def tdnet(change: str, description: str, settings: Mapping[str, Any], *, is_primary: bool = False) -> Method:
    """TDNet with something changed."""
    return Method(
        f"TDNet {change}", "TDNet", TDNET, SCRIBBLES, f"TDNet {description}", {**EQUAL, **settings}, is_primary
    )


STOCK = Method(
    "stock, ignore label",
    "stock, ignore label",
    NNUNET,
    SCRIBBLES,
    "nnU-Net's own way: Dice and cross-entropy of the voxels that are not `ignore`",
)
PARTIAL_CE = Method(
    "partial CE",
    "partial CE",
    "nnUNetTrainerPartialCE",
    SCRIBBLES,
    "nnUNetTrainerPartialCE: cross-entropy of the scribbled voxels alone",
)
FULL = Method(
    "full supervision", "full supervision", NNUNET, DENSE, "nnU-Net on the full masks of the same cases: the bound"
)
DMPLS = Method(
    "DMPLS",
    "DMPLS",
    "nnUNetTrainerDMPLS",
    SCRIBBLES,
    "nnUNetTrainerDMPLS: two decoders and pseudo labels mixed of both",
    EQUAL,
)
PLAIN_TDNET = Method(
    "TDNet",
    "TDNet",
    TDNET,
    SCRIBBLES,
    "nnUNetTrainerTDNet: three decoders of dilation 1, 3 and 6 and their consistency",
    EQUAL,
)
METHODS = (
    STOCK,
    PARTIAL_CE,
    PLAIN_TDNET,
    DMPLS,
    FULL,
    tdnet("same dilation", "with dilation 1 in all decoders", {"tdnet.dilations": [1, 1, 1]}, is_primary=True),
    Method(
        "partial CE + entropy",
        PARTIAL_CE.family,
        PARTIAL_CE.trainer,
        SCRIBBLES,
        "partial CE and 0.1 times the mean entropy of the other voxels",
        {"partial_ce.entropy_weight": 0.1},
    ),
    tdnet("without MPCC", "without the consistency of projections", {"tdnet.mpcc_weight": 0.0}),
    tdnet("without weights", "whose voxels all count alike in USPC", {"tdnet.uncertainty_weights": False}),
    tdnet("not detached", "whose gradient flows through the decoders' mean", {"tdnet.detach_target": False}),
)
PILOTING = (STOCK, PARTIAL_CE, PLAIN_TDNET, DMPLS, FULL)
REFERENCES = (STOCK, PARTIAL_CE)
"""What the others are compared with."""


def planned_runs(until: str, seeds: int) -> list[Run]:
    """The runs of a stage and of all before it, in the order in which they are done."""
    return ordered_runs(METHODS, until, seeds)


def planned_pilots(lrs: Sequence[float]) -> list[Pilot]:
    """The trainings that choose the learning rates."""
    return pilots_of(PILOTING, lrs)
