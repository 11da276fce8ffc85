"""Prior scans: the heart at the end of systole, given the end of diastole with its mask."""

from functools import partial

from benchmarks.data.acdc import ORIGIN, pairs, patient_groups, write_current, write_withheld
from benchmarks.data.folds import PatientFolds
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Network, Pilot, Test
from benchmarks.engine.presets import STOCK

DUAL, MIXED = "nnUNetTrainerDualEncoder", "nnUNetTrainerDualEncoderMixUp"
DROPOUT = {"dual_encoder.prior_dropout": 0.1}
LABELS = Dataset(841, "ACDCPriorLabels", pairs)
SOURCE = "Dataset841_ACDCPriorLabels"
IMAGE = Dataset(842, "ACDCPriorImage", partial(pairs, options=["--no-prior-labels"]), plans_of=LABELS)
CURRENT = Dataset(843, "ACDCCurrent", partial(write_current, source=SOURCE), plans_of=LABELS)
WITHHELD = Dataset(844, "ACDCPriorWithheld", partial(write_withheld, source=SOURCE))
HALF_WITHHELD = Dataset(845, "ACDCPriorHalfWithheld", partial(write_withheld, source=SOURCE, share=0.5))


def dual(fusion: str, width: float = 1.0) -> Method:
    """The dual encoder with one way of fusing and one width of the prior's encoder."""
    name = f"dual encoder {fusion}" + (f" width {width:g}" if width != 1 else "")
    settings = {"dual_encoder.fusion": fusion, "dual_encoder.context_width": width, **DROPOUT}
    return Method(name, DUAL, LABELS, settings, f"{DUAL}, fusion `{fusion}`", family="dual encoder")


WITH_LABELS = (
    Method("early concatenation", STOCK, LABELS, description="nnU-Net on all channels"),
    Method("early concatenation + MixUp", "nnUNetTrainerMixUp", LABELS, family="early concatenation"),
    *(dual(fusion, width) for width in (1.0, 0.5) for fusion in ("gated", "add", "concat")),
    Method(
        "dual encoder gated + MixUp", MIXED, LABELS, {"dual_encoder.fusion": "gated", **DROPOUT}, family="dual encoder"
    ),
)
SEE_LABELS = tuple(method.name for method in WITH_LABELS)

EXPERIMENT = Experiment(
    name="longitudinal",
    title="Prior scans: the heart at the end of systole, given the end of diastole",
    description="Cine MRI of the heart. The current scan is the end of systole, the prior one the end of diastole of "
    "the same patient with its mask, without registration: what differs is the heart's motion, not disease.",
    originals=(ORIGIN,),
    folds=PatientFolds(patient_groups, pilot_train=4, most_tested=16),
    methods=(
        Method("no prior", STOCK, CURRENT, description="nnU-Net on the current image alone"),
        Method("early concatenation without labels", STOCK, IMAGE, family="early concatenation without labels"),
        *WITH_LABELS,
        Method(
            "dual encoder gated without labels",
            DUAL,
            IMAGE,
            {"dual_encoder.fusion": "gated", **DROPOUT},
            family="dual encoder",
        ),
    ),
    tests=(
        Test("prior"),
        Test("prior withheld", WITHHELD, methods=SEE_LABELS),
        Test("half of the priors withheld", HALF_WITHHELD, methods=SEE_LABELS),
    ),
    columns=(
        ("prior", "aggregated_dice"),
        ("prior", "dice"),
        ("prior withheld", "dice"),
        ("half of the priors withheld", "dice"),
    ),
    comparisons=(
        Comparison("dual encoder add", "early concatenation", is_primary=True, test="half of the priors withheld"),
        *(Comparison(name, "no prior") for name in ("early concatenation", "dual encoder gated", "dual encoder add")),
        *(Comparison(f"dual encoder {fusion}", "early concatenation") for fusion in ("gated", "add", "concat")),
    ),
    network=Network("2d"),
    sizes=(16, None),
    steps=(200,),
    steps_in_epoch=20,
    pilot=Pilot(first=1e-2),
)
