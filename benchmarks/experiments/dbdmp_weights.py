"""Which weights of its supervised terms DBDMP wants: a search on the patient who is in no test."""

from dataclasses import replace

from benchmarks.engine.experiment import Method
from benchmarks.experiments.partial_lesions import EXPERIMENT as PARTIAL_LESIONS
from benchmarks.experiments.partial_lesions import PILOT, dbdmp

WEIGHTS = tuple((pce, rce) for pce in (0.0, 0.1, 0.3, 1.0) for rce in (0.5, 1.0))


def weighted(pce: float, rce: float) -> Method:
    """DBDMP with these weights."""
    settings = {"dbdmp.partial_ce_weight": pce, "dbdmp.rce_weight": rce}
    name = f"pce {pce:g} rce {rce:g}"
    return replace(dbdmp(name, f"`partial_ce_weight` {pce:g}, `rce_weight` {rce:g}", settings=settings), family=name)


EXPERIMENT = replace(
    PARTIAL_LESIONS,
    name="dbdmp_weights",
    title="Weights of DBDMP's supervised terms",
    description="DBDMP on tiles of FLAIR volumes of three patients with multiple sclerosis, in which 30 % of the "
    "lesions are annotated, scored on a fourth patient, who is in no test. Each pair of weights has its own threshold.",
    methods=tuple(weighted(*weights) for weights in WEIGHTS),
    tests=(),
    columns=(),
    comparisons=(),
    seeds=(),
    pilot=replace(PILOT, rates=(1e-2,)),
)
