"""An experiment on generated data that takes seconds: two methods, two seeds, a pilot, a start and a teacher."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from benchmarks.data.folds import PatientFolds, grouped
from benchmarks.data.raw import linked
from benchmarks.engine.experiment import Comparison, Dataset, Draw, Experiment, Method, Network, Pilot, Test
from nnunet_ext.files import write_json

CASES = [f"p{patient}_{scan}" for patient in range(8) for scan in range(2)]
STOCK = "nnUNetTrainerConfigurable"


def patient_of(case: str) -> str:
    return case[:2]


def write_slices(folder: Path, draw: Draw) -> None:
    """Bright squares in noise."""
    rng = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for case in CASES:
        label = np.zeros((2, 32, 32), dtype=np.uint8)
        x, y = rng.integers(4, 16, 2)
        label[:, x : x + 10, y : y + 8] = 1
        image = label + rng.normal(0, 0.2, label.shape)
        for array, name in ((image.astype(np.float32), f"imagesTr/{case}_0000"), (label, f"labelsTr/{case}")):
            written = sitk.GetImageFromArray(array)
            written.SetSpacing((1.0, 1.0, 5.0))
            sitk.WriteImage(written, str(folder / f"{name}.nii.gz"))
    content = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "square": 1}}
    write_json(folder / "dataset.json", {**content, "numTraining": len(CASES), "file_ending": ".nii.gz"})


def groups() -> list[dict[str, list[str]]]:
    """Four groups of two patients."""
    return grouped([CASES[4 * number : 4 * number + 4] for number in range(4)], patient_of)


def link_again(folder: Path, draw: Draw) -> None:
    """Stands for what a teacher's model labels."""
    assert draw.model is not None
    assert (draw.model / f"fold_{draw.fold}" / "checkpoint_final.pth").is_file()
    linked(folder, draw, name="Dataset990_Squares")


DATA = Dataset(990, "Squares", write_slices)
TEACHER = Method("stock", STOCK, DATA)

EXPERIMENT = Experiment(
    name="tiny",
    title="Squares",
    description="Bright squares in noise.",
    originals=(),
    folds=PatientFolds(groups, tested=2),
    methods=(
        TEACHER,
        Method("MixUp", "nnUNetTrainerMixUp", DATA, lr=1e-2, start=TEACHER, seeds=(0,)),
        Method("taught", STOCK, Dataset(991, "Taught", link_again, plans_of=DATA, teacher=TEACHER), family="stock"),
    ),
    tests=(Test("squares"),),
    comparisons=(Comparison("taught", "stock", margin=0.5, is_primary=True),),
    network=Network("2d", changes={"patch_size": [32, 32], "batch_size": 2}, stages=3),
    seeds=(0, 1),
    steps=(6,),
    steps_in_epoch=2,
    pilot=Pilot(rates=(1e-3, 1e-2, 1e-1), first=1e-2),
    patient_of=patient_of,
)
