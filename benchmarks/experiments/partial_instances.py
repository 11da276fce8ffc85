"""Partially annotated instances: multiple sclerosis lesions of which 30 % are annotated."""

from functools import partial

from benchmarks.data.folds import PatientFolds
from benchmarks.data.lesions import ORIGIN, completed, groups, patient_of, simulated
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import STOCK

DBDMP = "nnUNetTrainerDBDMP"
DENSE = Dataset(720, "MSLesionsDense", partial(simulated, options=["--keep", "1"]))
PARTIAL = Dataset(730, "MSLesionsKeep30", partial(simulated, options=["--keep", "0.3"]), per_seed=True, plans_of=DENSE)
# the weight of the pseudo labels rises over a third of the training, as in the paper's 99 of 300 epochs
RAMP = {"dbdmp.ramp_epochs": lambda epochs: max(1, round(epochs / 3))}


def dbdmp(name: str, description: str, **settings: float) -> Method:
    """DBDMP with other settings."""
    named = {f"dbdmp.{key}": value for key, value in settings.items()}
    return Method(name, DBDMP, PARTIAL, {**RAMP, **named}, description, family="dbdmp")


PLAIN = dbdmp("dbdmp", "nnUNetTrainerDBDMP on the partial labels")
PRETRAINING = Method("pretraining", "nnUNetTrainerModelsGenesis", PARTIAL, lr=2e-3, is_scored=False)
COMPLETED = Dataset(760, "MSLesionsCompleted", partial(completed, number=PARTIAL.number), plans_of=DENSE, teacher=PLAIN)

EXPERIMENT = Experiment(
    name="partial_instances",
    title="Partially annotated instances: multiple sclerosis lesions",
    description="Tiles of FLAIR volumes of four patients. 30 % of the lesions of a tile, and at least one, stay "
    "annotated; the others become background. A seed has its own draw and tests one patient, against all lesions. "
    "Three patients are too few for claims about others.",
    originals=(ORIGIN,),
    folds=PatientFolds(groups),
    methods=(
        Method("stock", STOCK, PARTIAL, description="nnU-Net on the partial labels"),
        Method("stock_full", STOCK, DENSE, {}, "nnU-Net on all lesions: what could be reached", family="stock"),
        PLAIN,
        Method(
            "dbdmp_pretrained",
            DBDMP,
            PARTIAL,
            RAMP,
            "the same, started from nnUNetTrainerModelsGenesis on the same training images",
            family="dbdmp",
            start=PRETRAINING,
        ),
        dbdmp("no_pseudo_labels", "DBDMP without the pseudo-label term", pseudo_label_weight=0.0),
        dbdmp("partial_ce", "DBDMP and annotated voxels' cross-entropy", partial_ce_weight=0.3, rce_weight=0.5),
        Method("completed", STOCK, COMPLETED, {}, "nnU-Net on the labels that DBDMP has completed", family="stock"),
    ),
    tests=(Test("all lesions", DENSE, metrics=("dice", "surface", "lesions"), options=("--instances", "instancesTr")),),
    columns=tuple(
        ("all lesions", metric) for metric in ("dice", "hd95", "lesions_recall", "lesions_precision", "lesions_f1")
    ),
    comparisons=(
        Comparison("dbdmp", "stock", "lesions_f1", is_primary=True),
        Comparison("dbdmp", "stock"),
        Comparison("completed", "stock", "lesions_f1"),
        *(Comparison(name, "dbdmp") for name in ("dbdmp_pretrained", "no_pseudo_labels", "partial_ce")),
    ),
    steps=(360,),
    steps_in_epoch=30,
    pilot=Pilot(first=1e-2),
    patient_of=patient_of,
)
