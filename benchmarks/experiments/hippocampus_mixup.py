"""MixUp and CutMix beside stock nnU-Net on the hippocampus."""

from functools import partial

from benchmarks.data.folds import PatientFolds
from benchmarks.data.hippocampus import ORIGIN, groups, person_of
from benchmarks.data.raw import linked
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot
from benchmarks.engine.presets import STOCK

MIXUP = "nnUNetTrainerMixUp"
DATA = Dataset(811, "Hippocampus", partial(linked, name=ORIGIN))
SIZES = (5, 20, None)

EXPERIMENT = Experiment(
    name="hippocampus_mixup",
    title="MixUp beside stock nnU-Net on the hippocampus",
    description="MRI of the hippocampus with two labels, one or both sides of each brain; a seed tests a fifth of the "
    "persons, and sizes count persons. MixUp is to decide beside stock of the same steps, and beside stock with twice "
    "as many, which takes as long.",
    originals=(ORIGIN,),
    folds=PatientFolds(groups, pilot_train=4, pilot_size=20),
    methods=(
        # twice the steps: whether stock has converged, and what it does with the time that MixUp takes
        Method("stock", STOCK, DATA, description="nnU-Net", steps=(1000, 2000)),
        Method("MixUp", MIXUP, DATA, description="MixUp, its defaults"),
        Method("CutMix", MIXUP, DATA, {"mixup.kind": "cutmix"}, "CutMix", family="MixUp"),
    ),
    sizes=SIZES,
    more_seeds=(3, 4),
    patient_of=person_of,
    pilot=Pilot(first=3e-3, seeds=(0, 1), steps=1000),
    comparisons=(
        Comparison("MixUp", "stock", margin=0.01, is_primary=True),
        Comparison("MixUp", "stock", margin=0.01, is_primary=True, steps=(1000, 2000)),
        *(Comparison("MixUp", "stock", size=size) for size in SIZES[1:]),
        *(Comparison("CutMix", "stock", size=size) for size in SIZES),
        *(Comparison("MixUp", "stock", size=size, steps=(1000, 2000)) for size in SIZES[1:]),
        *(Comparison("CutMix", "stock", size=size, steps=(1000, 2000)) for size in SIZES),
        *(Comparison("stock", "stock", size=size, steps=(2000, 1000)) for size in SIZES),
    ),
)
