"""Which momentum and learning rate strict DGST wants: a search on cases that are in no test."""

from benchmarks.data.domain_shift import HIPPOCAMPUS
from benchmarks.engine.experiment import Experiment, Method, Pilot, Test
from benchmarks.experiments.few_shot import FewShot

FEW_SHOT = FewShot(HIPPOCAMPUS)


def sgd(name: str, trainer: str, momentum: float) -> Method:
    """A trainer under SGD."""
    return FEW_SHOT.tuned(f"{name} SGD {momentum:g}", trainer, optimizer="sgd", momentum=momentum)


STRICT, FULL = "DGST", "FineTune"

EXPERIMENT = Experiment(
    name="dgst_grid",
    title="Momentum and learning rate of strict DGST",
    description="The source model of the few-shot experiment, tuned on the 5 pilot cases of the shifted target and "
    "scored on its validation cases, none of which is a test case.",
    originals=(HIPPOCAMPUS.origin,),
    folds=HIPPOCAMPUS.target_folds,
    methods=(
        FEW_SHOT.source_model,
        *(sgd("strict", STRICT, momentum) for momentum in (0.9, 0.99, 0.0)),
        FEW_SHOT.tuned("strict AdamW", STRICT, optimizer="adamw"),
        sgd("full", FULL, 0.99),
        FEW_SHOT.tuned("full AdamW", FULL, optimizer="adamw"),
    ),
    tests=(Test("target validation", FEW_SHOT.target, "val"),),
    seeds=(),
    sizes=(5,),
    steps=(150, 500),
    pilot=Pilot(
        rates=(1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0),
        first={
            "strict SGD 0.9": 0.3,
            "strict SGD 0.99": 0.1,
            "strict SGD 0": 1.0,
            "strict AdamW": 0.1,
            "full SGD 0.99": 3e-2,
            "full AdamW": 1e-2,
        },
        seeds=(0, 1),
    ),
)
