"""MixUp, CutMix and CarveMix beside stock nnU-Net on multiple sclerosis lesions."""

from functools import partial

from benchmarks.data.folds import PatientFolds
from benchmarks.data.lesions import ORIGIN, groups, patient_of
from benchmarks.data.raw import linked
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import STOCK

MIXUP = "nnUNetTrainerMixUp"
DATA = Dataset(821, "MSLesions", partial(linked, name=ORIGIN))


def mixing(name: str, kind: str) -> Method:
    """The usual loss and that of mixed patches."""
    return Method(name, MIXUP, DATA, {"mixup.kind": kind}, f"{name}, with the other defaults", family="mixing")


EXPERIMENT = Experiment(
    name="lesion_mixing",
    title="Mixing patches: multiple sclerosis lesions",
    description="Tiles of FLAIR volumes of four patients, all lesions annotated. A seed tests one patient. Three "
    "patients are too few for claims about others.",
    originals=(ORIGIN,),
    folds=PatientFolds(groups),
    methods=(
        # twice the steps: whether stock has converged, and what it does with the time that mixing takes
        Method("stock", STOCK, DATA, description="nnU-Net", steps=(1000, 2000)),
        mixing("CarveMix", "carvemix"),
        mixing("CutMix", "cutmix"),
        mixing("MixUp", "mixup"),
    ),
    tests=(Test("lesions", metrics=("dice", "surface", "lesions"), options=("--instances", "instancesTr")),),
    columns=tuple(("lesions", metric) for metric in ("dice", "hd95", "lesions_f1")),
    comparisons=(
        Comparison("CarveMix", "stock", margin=0.01, is_primary=True),
        Comparison("CarveMix", "stock", "lesions_f1"),
        Comparison("CarveMix", "stock", steps=(1000, 2000)),
        *(Comparison(name, "stock") for name in ("CutMix", "MixUp")),
        Comparison("CarveMix", "CutMix"),
        Comparison("stock", "stock", steps=(2000, 1000)),
    ),
    pilot=Pilot(first=1e-2, seeds=(0, 1), steps=1000),
    patient_of=patient_of,
)
