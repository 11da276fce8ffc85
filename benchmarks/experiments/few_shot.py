"""Fine-tuning with few cases after a domain shift: every way of this package beside a training from the start."""

from functools import partial

from benchmarks.data.domain_shift import DESCRIPTIONS, HIPPOCAMPUS, write_source, write_target
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test

SHIFT, STOCK = HIPPOCAMPUS, "nnUNetTrainerConfigurable"
SOURCE = Dataset(804, "Source", partial(write_source, shift=SHIFT), folds=SHIFT.source_folds)
TARGET = Dataset(805, "Shifted", partial(write_target, shift=SHIFT), plans_of=SOURCE)
SOURCE_MODEL = Method("source model", STOCK, SOURCE, description="not tuned", lr=2e-3, steps=(1000,), is_shared=True)


def tuned(name: str, trainer: str, family: str = "", **settings: object) -> Method:
    """A trainer that starts from the source model."""
    named = {key.replace("__", "."): value for key, value in settings.items()}
    return Method(name, trainer, TARGET, named, family=family, start=SOURCE_MODEL, start_by="fine_tuning.source")


def dgst(mode: str, top_k: int, selection: str = "gradient") -> Method:
    """DGST with one entry or more of each kernel."""
    settings = {"dgst__mode": mode, "dgst__top_k": top_k}
    if selection == "random":
        return tuned("DGST random k=1", "nnUNetTrainerDGST", f"DGST {mode}", **settings, dgst__selection=selection)
    return tuned(f"DGST {mode} k={top_k}", "nnUNetTrainerDGST", f"DGST {mode}", **settings)


EXPERIMENT = Experiment(
    name="few_shot",
    title="Fine-tuning with few cases: hippocampus",
    description="A source model is tuned on few cases of a target. The target is other cases with "
    f"{DESCRIPTIONS[SHIFT.name]}. Both are tested on the same 30 cases, which no training and no choice has seen.",
    originals=(SHIFT.origin,),
    folds=SHIFT.target_folds,
    methods=(
        SOURCE_MODEL,
        Method("scratch", STOCK, TARGET, description="trained on the target's cases alone"),
        tuned("full", "nnUNetTrainerFineTune"),
        tuned("head only", "nnUNetTrainerHeadOnly"),
        tuned("decoder only", "nnUNetTrainerDecoderOnly"),
        tuned("bias only", "nnUNetTrainerBiasOnly"),
        tuned("norm only", "nnUNetTrainerNormOnly"),
        tuned("LoRA", "nnUNetTrainerLoRA"),
        *(dgst("strict", top_k) for top_k in (1, 2, 5)),
        *(dgst("grad_mask", top_k) for top_k in (1, 2, 5)),
        dgst("strict", 1, "random"),
    ),
    tests=(Test("target", TARGET, "test"), Test("source", SOURCE, "test")),
    comparisons=(
        Comparison("DGST strict k=1", "full", is_primary=True),
        Comparison("DGST strict k=1", "full", test="source", is_primary=True),
        *(Comparison(name, "full") for name in ("scratch", "decoder only", "LoRA", "DGST grad_mask k=1")),
        Comparison("DGST strict k=1", "DGST random k=1"),
    ),
    sizes=(5, 1, 10),
    steps=(150,),
    steps_in_epoch=30,
    pilot=Pilot(first=1e-2, test=Test("target validation", TARGET, "val")),
)
