"""Prior scans at length: with priors that are missing or badly registered."""

from functools import partial
from typing import Any

from benchmarks.data.acdc import ORIGIN, pairs, patient_groups, write_current, write_misaligned, write_withheld
from benchmarks.data.folds import PatientFolds
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import ADAMW, COARSE, STOCK

DUAL = "nnUNetTrainerDualEncoder"
PAIRS = Dataset(901, "ACDCPriors", pairs)
SOURCE = "Dataset901_ACDCPriors"
# as many parameters as with a second encoder
WIDE_PAIRS = Dataset(905, "ACDCPriorsWide", pairs, plans_of=PAIRS, width=1.3)
CURRENT = Dataset(902, "ACDCCurrent", partial(write_current, source=SOURCE), plans_of=PAIRS)
HALF = Dataset(904, "ACDCHalfOfThePriors", partial(write_withheld, source=SOURCE, share=0.5), plans_of=PAIRS)
MISSING = {
    share: Dataset(
        910 + share // 10, f"ACDCPriorsMissing{share}", partial(write_withheld, source=SOURCE, share=at), plans_of=PAIRS
    )
    for share, at in ((25, 0.25), (75, 0.75), (100, 1.0))
} | {50: HALF}
MISALIGNED = {
    error: Dataset(
        930 + error, f"ACDCPriorsOff{error}mm", partial(write_misaligned, source=SOURCE, millimetres=float(error))
    )
    for error in (5, 10)
}
DROPOUT = 0.5


def fused(name: str, fusion: str, description: str, dropout: float = DROPOUT, **options: Any) -> Method:
    """Current and prior scan, joined in one way."""
    settings: dict[str, Any] = {"dual_encoder.fusion": fusion, "dual_encoder.prior_dropout": dropout}
    chosen = {"data": PAIRS, "family": "early concatenation" if fusion == "early" else "dual encoder", **options}
    return Method(name, DUAL, settings=settings, description=description, **chosen)


def without(share: int, name: str, fusion: str) -> Method:
    """Trained where a share of the cases has no prior, and without dropout."""
    about = f"trained on data without about {share} % of the priors"
    return fused(f"{name}, {share} % of the priors missing", fusion, about, 0.0, data=MISSING[share])


DUALS = tuple(f"dual encoder {fusion}" for fusion in ("add", "concat", "gated", "difference"))
FAIR, ADDED, WIDE = "early concatenation", "dual encoder add", "early concatenation, wider"
LITTLE = "dual encoder add, little dropout"
LENGTHS = (2000, 4000)
SHARES = (25, 50, 75)
TRAINED = (
    fused(FAIR, "early", "nnU-Net's network on all channels, the prior left out in half of the samples", steps=LENGTHS),
    *(
        fused(
            name,
            name.split()[-1],
            f"a second encoder, fusion `{name.split()[-1]}`, the same dropout",
            steps=LENGTHS if name == ADDED else (),
        )
        for name in DUALS
    ),
    fused("early concatenation without dropout", "early", "nnU-Net's network on all channels", dropout=0.0),
    fused(LITTLE, "add", "the prior left out in a tenth of the samples", dropout=0.1),
    fused(WIDE, "early", f"`{FAIR}` with as many parameters as a dual encoder", data=WIDE_PAIRS),
    *(without(share, *named) for share in SHARES for named in ((FAIR, "early"), (ADDED, "add"))),
)
SEE_PRIORS = tuple(method.name for method in TRAINED)
WITH_ALL = ("no prior", *(method.name for method in TRAINED if method.data in (PAIRS, WIDE_PAIRS)))
HALF_MISSING = "50 % of the priors missing"
ADDED_LATER = (
    *(Comparison(ADDED, FAIR, margin=0.01, test=test, steps=LENGTHS) for test in ("all priors", HALF_MISSING)),
    *(Comparison(ADDED, name, margin=0.01) for name in (FAIR, "early concatenation without dropout", "no prior")),
    Comparison(FAIR, "no prior", margin=0.01),
    *(
        Comparison(ADDED, FAIR, margin=0.01, test=test, steps=(LENGTHS[1], LENGTHS[1]))
        for test in ("all priors", HALF_MISSING, "priors off by 10 mm")
    ),
    *(
        Comparison(ADDED, name, margin=0.01, test=test)
        for name in (WIDE, LITTLE)
        for test in ("all priors", HALF_MISSING)
    ),
)

EXPERIMENT = Experiment(
    name="prior_scans",
    title="Prior scans: missing and badly registered priors",
    description="Cine MRI of the heart. The current scan is the end of systole, the prior one the end of diastole of "
    "the same patient with its mask; the heart has moved between them, and nothing is registered. Priors are taken "
    "from about a share of the cases, or moved further in their slices. Added when two seeds had been scored and "
    "looked at: `dual encoder add` beside `early concatenation` where all priors are there, beside twice its steps, "
    "and beside `no prior`. Added when four seeds had been scored: `early concatenation, wider`, "
    "and when all five had been: `dual encoder add, little dropout`, and "
    "`dual encoder add` with 4,000 steps.",
    originals=(ORIGIN,),
    folds=PatientFolds(patient_groups, pilot_train=4, most_tested=16, pilot_size=16),
    methods=(Method("no prior", STOCK, CURRENT, description="nnU-Net on the current image alone"), *TRAINED),
    tests=(
        Test("all priors", methods=WITH_ALL),
        *(Test(f"{share} % of the priors missing", MISSING[share], methods=SEE_PRIORS) for share in sorted(MISSING)),
        *(Test(f"priors off by {error} mm", MISALIGNED[error], methods=SEE_PRIORS) for error in MISALIGNED),
    ),
    columns=(
        ("all priors", "dice"),
        *((f"{share} % of the priors missing", "dice") for share in sorted(MISSING)),
        *((f"priors off by {error} mm", "dice") for error in MISALIGNED),
    ),
    comparisons=(
        Comparison(ADDED, FAIR, margin=0.01, is_primary=True, test=HALF_MISSING),
        *(Comparison(name, FAIR, margin=0.01, test=HALF_MISSING) for name in DUALS[1:]),
        *(Comparison(name, FAIR, test="100 % of the priors missing") for name in DUALS),
        *(Comparison(name, FAIR, test="priors off by 10 mm") for name in DUALS),
        Comparison(FAIR, "early concatenation without dropout", test=HALF_MISSING),
        *(
            Comparison(f"{ADDED}, {missing}", f"{FAIR}, {missing}", test=missing)
            for missing in (f"{share} % of the priors missing" for share in SHARES)
        ),
        Comparison(FAIR, FAIR, test=HALF_MISSING, steps=LENGTHS[::-1]),
        *ADDED_LATER,
    ),
    network=COARSE,
    more_seeds=(3, 4),
    steps=LENGTHS[:1],
    pilot=Pilot(first=3e-3, seeds=(0, 1), steps=1000),
    settings=ADAMW,
)
