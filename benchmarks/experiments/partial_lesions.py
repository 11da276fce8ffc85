"""Partially annotated instances where stock has converged, each method at its own operating point."""

from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.data.folds import PatientFolds
from benchmarks.data.lesions import ORIGIN, completed, groups, patient_of, simulated
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import STOCK
from benchmarks.experiments.partial_instances import RAMP

DBDMP = "nnUNetTrainerDBDMP"
DENSE = Dataset(920, "MSLesionsDense", partial(simulated, options=["--keep", "1"]))
SOME = Dataset(930, "MSLesionsKeep30", partial(simulated, options=["--keep", "0.3"]), per_seed=True, plans_of=DENSE)
ONE = Dataset(940, "MSLesionsKeepOne", partial(simulated, options=["--keep", "0"]), per_seed=True, plans_of=DENSE)


def dbdmp(name: str, description: str, data: Dataset = SOME, **options: Any) -> Method:
    """DBDMP on partial labels."""
    settings = RAMP | options.pop("settings", {})
    return Method(name, DBDMP, data, settings, description, family="DBDMP", **options)


def taught(name: str, number: int, teacher: Method) -> Method:
    """Stock on the labels that a model of DBDMP has completed."""
    make = partial(completed, number=teacher.data.number)
    data = Dataset(number, f"MSLesionsCompleted{number}", make, plans_of=DENSE, teacher=teacher)
    return Method(name, STOCK, data, {}, f"nnU-Net on the labels that `{teacher.name}` has completed", family="stock")


OF_SOME = dbdmp("DBDMP", "nnUNetTrainerDBDMP, 30 % of the lesions annotated")
OF_ONE = dbdmp("DBDMP, one lesion", "nnUNetTrainerDBDMP, one lesion of each tile annotated", ONE)
PRETRAINING = Method("pre-training", "nnUNetTrainerModelsGenesis", SOME, lr=2e-3, is_scored=False)
LENGTHS = (1000, 2000)
INSTANCES = ("--instances", "instancesTr")
AT_THRESHOLDS = Test("pilot", DENSE, metrics=("dice", "lesions"), options=(*INSTANCES, "--thresholds"))
PILOT = Pilot(first=1e-2, seeds=(0, 1), test=AT_THRESHOLDS, level="lesion", steps=LENGTHS[0])

EXPERIMENT = Experiment(
    name="partial_lesions",
    title="Partially annotated lesions at their operating points",
    description="Tiles of FLAIR volumes of four patients with multiple sclerosis. 30 % of the lesions of a tile, or "
    "one, stay annotated; the others become background. A seed has its own draw and tests one patient against all "
    "lesions. A fourth patient chooses learning rates and thresholds. Three patients are too few for claims about "
    "others.",
    originals=(ORIGIN,),
    folds=PatientFolds(groups),
    methods=(
        Method("stock", STOCK, SOME, {}, "nnU-Net, 30 % of the lesions annotated", family="stock", steps=LENGTHS),
        OF_SOME,
        Method("all lesions", STOCK, DENSE, {}, "nnU-Net on all lesions: the bound", family="stock", steps=LENGTHS),
        taught("completed", 950, OF_SOME),
        Method(
            "stock, one lesion",
            STOCK,
            ONE,
            {},
            "nnU-Net, one lesion of each tile annotated",
            family="stock",
            steps=LENGTHS,
        ),
        OF_ONE,
        taught("completed, one lesion", 960, OF_ONE),
        dbdmp("DBDMP pre-trained", "started from nnUNetTrainerModelsGenesis on the same images", start=PRETRAINING),
        dbdmp("no pseudo labels", "without the pseudo labels' term", settings={"dbdmp.pseudo_label_weight": 0.0}),
    ),
    tests=(
        Test(
            "lesions",
            DENSE,
            metrics=("dice", "surface", "lesions"),
            options=INSTANCES,
            decided_by="lesion",
        ),
        replace(AT_THRESHOLDS, name="lesions at all thresholds", methods=("stock", OF_SOME.name, "all lesions")),
    ),
    columns=tuple(
        ("lesions", metric) for metric in ("lesions_f1", "lesions_recall", "lesions_precision", "dice", "hd95")
    ),
    comparisons=(
        Comparison("DBDMP", "stock", "lesions_f1", margin=0.01, is_primary=True),
        Comparison("DBDMP, one lesion", "stock, one lesion", "lesions_f1", margin=0.01),
        # a stock training as long as teacher and student together
        Comparison("completed", "stock", "lesions_f1", steps=LENGTHS),
        Comparison("completed, one lesion", "stock, one lesion", "lesions_f1", steps=LENGTHS),
        *(Comparison(name, "DBDMP", "lesions_f1") for name in ("DBDMP pre-trained", "no pseudo labels")),
        Comparison("all lesions", "stock", "lesions_f1"),
        Comparison("stock", "stock", "lesions_f1", steps=LENGTHS[::-1]),
        Comparison("all lesions", "all lesions", "lesions_f1", steps=LENGTHS[::-1]),
    ),
    steps=LENGTHS[:1],
    pilot=PILOT,
    patient_of=patient_of,
)
