"""Wrong labels where a network can learn them by heart: the heart, few patients, errors in two fifths of the labels."""

from dataclasses import replace
from functools import partial

from benchmarks.data.acdc import scan_groups
from benchmarks.data.folds import PatientFolds
from benchmarks.data.label_noise import made_wrong
from benchmarks.engine.experiment import Comparison
from benchmarks.experiments.label_noise import EXPERIMENT as MANY
from benchmarks.experiments.label_noise import LENGTHS, RIGHT
from benchmarks.experiments.label_noise import WRONG as A_FIFTH

METHODS = {method.name: method for method in MANY.methods}
PATIENTS, RATE = 8, 0.4
WRONG = replace(A_FIFTH, make=partial(made_wrong, source=RIGHT.number, rate=RATE, size=5.0))

EXPERIMENT = replace(
    MANY,
    name="label_noise_few",
    title="Wrong labels that can be learned by heart: the heart, few patients",
    description=f"As `label_noise`, of whose 64 patients a network did not learn the errors: {PATIENTS} patients to "
    f"train on, and {RATE:.0%} of their labels wrong. An epoch is about two passes over the data. ADELE has its "
    "defaults, and all methods the learning rate that is searched for stock. It is run to the end if stock of seed 0 "
    "has learned the errors: its predictions of what it was trained on agree more with the wrong labels than with the "
    "right ones, and the bound is at least 0.03 above it. Without that there is nothing to correct.",
    folds=PatientFolds(scan_groups, pilot_train=4, most_tested=16),
    sizes=(PATIENTS,),
    methods=(
        replace(METHODS["stock"], data=WRONG),
        replace(METHODS["ADELE early"], name="ADELE", data=WRONG),
        replace(METHODS["right labels"], family="stock"),
    ),
    steps_in_epoch=25,
    comparisons=(
        Comparison("ADELE", "stock", margin=0.01, is_primary=True),
        Comparison("ADELE", "stock", "hd95", margin=0.2, is_relative=True),
        # a shorter training learns fewer errors
        Comparison("ADELE", "stock", steps=LENGTHS),
        Comparison("stock", "stock", steps=LENGTHS),
        Comparison("right labels", "stock"),
        Comparison("right labels", "ADELE"),
    ),
)
