"""Pre-training on cases without labels: the heart, with few labelled patients."""

from collections.abc import Sequence
from functools import partial

from benchmarks.data.acdc import ORIGIN, patient_of, scan_groups, write_masks
from benchmarks.data.folds import PatientFolds
from benchmarks.data.raw import unlabelled
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Fold, Method, Pilot, Test
from benchmarks.experiments.scribbles import COARSE

STOCK = "nnUNetTrainerConfigurable"
FOLDS = PatientFolds(scan_groups, pilot_train=4, most_tested=16)
STEPS, PRETRAINING_STEPS = 2000, 4000


def everyone(sizes: Sequence[int | None], seeds: Sequence[int]) -> list[Fold]:
    """The folds of the labelled patients with all that may be trained on: none is tested."""
    return FOLDS([None] * len(sizes), seeds)


LABELLED = Dataset(901, "HeartLabelled", write_masks)
UNLABELLED = Dataset(902, "HeartUnlabelled", partial(unlabelled, name=ORIGIN), folds=everyone, plans_of=LABELLED)


def pretrained(name: str, trainer: str, description: str) -> Method:
    """A pre-training on all patients of the fold, and nnU-Net on the labelled ones, started from it."""
    # nnU-Net's learning rate: nothing is chosen for a task that is not the one that counts
    start = Method(f"{name} alone", trainer, UNLABELLED, lr=1e-2, steps=(PRETRAINING_STEPS,), is_scored=False)
    return Method(name, STOCK, LABELLED, {}, f"nnU-Net, started from {description}", start=start)


TECHNIQUES = {
    "Models Genesis": ("nnUNetTrainerModelsGenesis", "a network that learned to undo corruptions"),
    "Volume Fusion": ("nnUNetTrainerVolumeFusion", "a network that learned to tell how crops were blended"),
    "MAE": ("nnUNetTrainerMAE", "an encoder that learned to restore masked blocks"),
}

EXPERIMENT = Experiment(
    name="pretraining",
    title="Pre-training without labels: the heart with few labelled patients",
    description="Of the training patients of a fold, 5 or 10 have labels, both phases of each. A pre-training sees the "
    "images of all of them, about 80, and the training that starts from it the labelled ones. Both are tested on "
    "patients whom neither has seen. `scratch` is trained for as long as the others, and for as long as they and their "
    "pre-training together.",
    originals=(ORIGIN,),
    folds=FOLDS,
    methods=(
        Method(
            "scratch",
            STOCK,
            LABELLED,
            {},
            "nnU-Net from random weights on the labelled patients",
            steps=(STEPS, STEPS + PRETRAINING_STEPS),
        ),
        *(pretrained(name, *about) for name, about in TECHNIQUES.items()),
    ),
    tests=(Test("masks", LABELLED, metrics=("dice", "surface")),),
    columns=(("masks", "dice"), ("masks", "assd"), ("masks", "hd95")),
    comparisons=(
        *(Comparison(name, "scratch", margin=0.01, is_primary=True) for name in TECHNIQUES),
        *(Comparison(name, "scratch", steps=(STEPS, STEPS + PRETRAINING_STEPS)) for name in TECHNIQUES),
        *(Comparison(name, "scratch", size=10) for name in TECHNIQUES),
        *(Comparison(name, "scratch", "hd95", margin=0.2, is_relative=True) for name in TECHNIQUES),
        Comparison("Volume Fusion", "Models Genesis"),
        Comparison("Volume Fusion", "MAE"),
    ),
    network=COARSE,
    sizes=(5, 10),
    steps=(STEPS,),
    pilot=Pilot(first=3e-3, steps=1000),
    patient_of=patient_of,
)
