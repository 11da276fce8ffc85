"""MixUp and CutMix beside stock nnU-Net on the hippocampus."""

from functools import partial

from benchmarks.data.folds import PatientFolds
from benchmarks.data.hippocampus import ORIGIN, groups
from benchmarks.data.raw import linked
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot

STOCK, MIXUP = "nnUNetTrainerConfigurable", "nnUNetTrainerMixUp"
DATA = Dataset(811, "Hippocampus", partial(linked, name=ORIGIN))

EXPERIMENT = Experiment(
    name="hippocampus_mixup",
    title="MixUp beside stock nnU-Net on the hippocampus",
    description="MRI of the hippocampus with two labels, one scan for each patient; a seed tests a fifth of the cases.",
    originals=(ORIGIN,),
    folds=PatientFolds(groups, pilot_train=4, most_tested=20, pilot_size=20),
    methods=(
        # twice the steps: whether stock has converged, and what it does with the time that MixUp takes
        Method("stock", STOCK, DATA, description="nnU-Net", steps=(1000, 2000)),
        Method("MixUp", MIXUP, DATA, description="MixUp, its defaults"),
        Method("CutMix", MIXUP, DATA, {"mixup.kind": "cutmix"}, "CutMix", family="MixUp"),
    ),
    sizes=(None, 20, 5),
    pilot=Pilot(first=3e-3, seeds=(0, 1)),
    comparisons=(
        Comparison("MixUp", "stock", margin=0.01, is_primary=True),
        Comparison("MixUp", "stock", steps=(1000, 2000)),
        Comparison("MixUp", "stock", size=20),
        Comparison("MixUp", "stock", size=5),
        Comparison("CutMix", "stock"),
        Comparison("stock", "stock", steps=(2000, 1000)),
    ),
)
