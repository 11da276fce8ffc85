"""What the experiment on prior scans compares: methods, datasets, and runs in the order of their weight."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.acdc import Inputs, Method, Pilot, Run, ordered_runs, pilots_of

LABELS = Inputs(841, "PriorLabels", "current image, prior image, three prior label channels")
IMAGE = Inputs(842, "PriorImage", "current image, prior image")
CURRENT = Inputs(843, "Current", "current image")
WITHHELD = Inputs(844, "PriorWithheld", "current image, and zeros in all prior channels")
TRAINING_INPUTS = (LABELS, IMAGE, CURRENT)


STOCK, DUAL = "nnUNetTrainerConfigurable", "nnUNetTrainerDualEncoder"


def dual_encoder(fusion: str, *, width: float = 1.0, is_primary: bool = True) -> Method:
    """The dual encoder with one way of fusing and one width of the prior's encoder."""
    name, settings = f"dual encoder {fusion}", {"dual_encoder.fusion": fusion, "dual_encoder.context_width": width}
    what = f"{DUAL}, fusion `{fusion}`"
    if width != 1:
        name, what = f"{name} width {width:g}", f"{what}, context_width {width:g}"
    return Method(name, "dual encoder", DUAL, LABELS, what, settings, is_primary)


NO_PRIOR = Method("no prior", "no prior", STOCK, CURRENT, "nnU-Net on the current image alone")
EARLY = Method("early concatenation", "early concatenation", STOCK, LABELS, "nnU-Net on all channels")
GATED = dual_encoder("gated")
METHODS = (
    NO_PRIOR,
    EARLY,
    Method(
        "early concatenation without labels",
        EARLY.family,
        STOCK,
        IMAGE,
        "nnU-Net on current and prior image",
    ),
    GATED,
    dual_encoder("add"),
    dual_encoder("concat"),
    dual_encoder("gated", width=0.5),
    Method(
        "dual encoder gated without labels",
        GATED.family,
        DUAL,
        IMAGE,
        f"{DUAL}, fusion `gated`, on current and prior image",
        GATED.settings,
    ),
    Method("early concatenation + MixUp", EARLY.family, "nnUNetTrainerMixUp", LABELS, "MixUp on all channels"),
    Method(
        "dual encoder gated + MixUp",
        GATED.family,
        "nnUNetTrainerDualEncoderMixUp",
        LABELS,
        "nnUNetTrainerDualEncoderMixUp, fusion `gated`",
        GATED.settings,
    ),
    dual_encoder("add", width=0.5, is_primary=False),
    dual_encoder("concat", width=0.5, is_primary=False),
)
PILOTING = (NO_PRIOR, EARLY, GATED)
REFERENCES = (NO_PRIOR, EARLY)
"""What the others are compared with."""


def is_withheld_later(run: Run) -> bool:
    """Whether the model is also scored with its prior channels at zero."""
    return run.method.inputs == LABELS


def planned_runs(until: str, seeds: int) -> list[Run]:
    """The runs of a stage and of all before it, in the order in which they are done."""
    return ordered_runs(METHODS, until, seeds)


def planned_pilots(lrs: Sequence[float]) -> list[Pilot]:
    """The trainings that choose the learning rates."""
    return pilots_of(PILOTING, lrs)
