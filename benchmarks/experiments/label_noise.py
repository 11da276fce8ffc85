"""Wrong labels: the heart with errors in a fifth of its labels."""

from functools import partial

from benchmarks.data.acdc import ORIGIN, patient_of, scan_groups, write_masks
from benchmarks.data.folds import PatientFolds
from benchmarks.data.label_noise import made_wrong
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import ADAMW, COARSE, STOCK

ADELE = "nnUNetTrainerADELE"
LENGTHS = (4000, 2000)
"""Longer than in the other experiments of these images: errors are learned by heart late. A shorter training learns
fewer of them, and is the simplest correction."""
EARLY = "corrected as early as the learning curve allows, by the present rule, five fits in a row"
RIGHT = Dataset(900, "HeartRight", write_masks)
WRONG = Dataset(
    901, "HeartWrong", partial(made_wrong, source=RIGHT.number, rate=0.2, size=5.0), plans_of=RIGHT, per_seed=True
)

EXPERIMENT = Experiment(
    name="label_noise",
    title="Wrong labels: the heart with errors in a fifth of its labels",
    description="Right ventricle, myocardium and left ventricle in cine MRI. Each label of each training case is wrong "
    "with a probability of 20 %: dilated, eroded or shifted by 5 mm, or swapped for another one. That is much: little "
    "is left of an eroded myocardium. The errors are drawn anew for each seed. All models train on the same patients, "
    "and are scored against the right labels of others. An epoch is about one pass over the data.",
    originals=(ORIGIN,),
    folds=PatientFolds(scan_groups, pilot_train=4, most_tested=16, pilot_size=16),
    methods=(
        Method("stock", STOCK, WRONG, {}, "nnU-Net on the wrong labels", steps=LENGTHS),
        # until the first correction it is nnU-Net's own training, with its learning rate
        Method(
            "ADELE",
            ADELE,
            WRONG,
            {"adele.min_epochs": lambda epochs: round(epochs / 3)},
            "corrected once a class's learning curve has flattened, after a third of the training at the earliest, by "
            "an earlier rule, a single fit",
            family="stock",
        ),
        Method("ADELE early", ADELE, WRONG, {}, EARLY, family="stock"),
        Method("right labels", STOCK, RIGHT, {}, "nnU-Net on the right labels: the bound"),
    ),
    tests=(Test("right", RIGHT, metrics=("dice", "surface")),),
    columns=(("right", "dice"), ("right", "assd"), ("right", "hd95")),
    comparisons=(
        Comparison("ADELE", "stock", margin=0.01, is_primary=True),
        Comparison("ADELE", "stock", "hd95", margin=0.2, is_relative=True),
        Comparison("ADELE", "ADELE early"),
        Comparison("ADELE early", "stock", margin=0.01),
        Comparison("ADELE", "stock", steps=LENGTHS),
        Comparison("stock", "stock", steps=LENGTHS),
        Comparison("right labels", "stock"),
        Comparison("right labels", "ADELE"),
    ),
    network=COARSE,
    more_seeds=(3, 4),
    steps=LENGTHS[:1],
    steps_in_epoch=100,
    pilot=Pilot(rates=(2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2), first=2e-3, seeds=(0, 1), steps=1000),
    settings=ADAMW,
    patient_of=patient_of,
)
