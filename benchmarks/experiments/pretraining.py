"""Pre-training on cases without labels: the heart, with few labelled patients."""

from collections.abc import Sequence
from functools import partial

from benchmarks.data.acdc import ORIGIN, patient_of, scan_groups, self_taught, write_masks
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

SIZES, SEEDS = (5, 10), (0, 1, 2)


def labelled_in(fold: int) -> list[str]:
    """The cases with labels."""
    return FOLDS(SIZES, SEEDS)[fold]["train"]


def self_training(name: str, number: int, teacher: Method) -> Method:
    """One round of self-training: nnU-Net, begun as its teacher was, on labels and on what the teacher is sure of."""
    make = partial(self_taught, labelled=labelled_in)
    data = Dataset(number, f"HeartTaught{number}", make, folds=everyone, plans_of=LABELLED, teacher=teacher)
    about = f"nnU-Net, begun as `{teacher.name}`, on all training patients, of whom it labels those without labels"
    return Method(name, STOCK, data, {}, about, family=teacher.name, start=teacher.start)


SCRATCH = Method(
    "scratch",
    STOCK,
    LABELLED,
    {},
    "nnU-Net from random weights on the labelled patients",
    steps=(STEPS, STEPS + PRETRAINING_STEPS),
)
PRETRAINED = {name: pretrained(name, *about) for name, about in TECHNIQUES.items()}
SELF_TRAINED = (
    self_training("self-training", 910, SCRATCH),
    self_training("Volume Fusion + self-training", 930, PRETRAINED["Volume Fusion"]),
)
CANDIDATES = (*TECHNIQUES, *(method.name for method in SELF_TRAINED))
"""What may win over training from scratch; Holm's correction is over all of them."""

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
        SCRATCH,
        *PRETRAINED.values(),
        *SELF_TRAINED,
    ),
    tests=(Test("masks", LABELLED, metrics=("dice", "surface")),),
    columns=(("masks", "dice"), ("masks", "assd"), ("masks", "hd95")),
    comparisons=(
        *(Comparison(name, "scratch", margin=0.01, is_primary=True) for name in CANDIDATES),
        *(Comparison(name, "scratch", steps=(STEPS, STEPS + PRETRAINING_STEPS)) for name in CANDIDATES),
        *(Comparison(name, "scratch", size=10) for name in CANDIDATES),
        *(Comparison(name, "scratch", "hd95", margin=0.2, is_relative=True) for name in CANDIDATES),
        Comparison("Volume Fusion + self-training", "self-training"),
        Comparison("Volume Fusion", "Models Genesis"),
        Comparison("Volume Fusion", "MAE"),
    ),
    network=COARSE,
    sizes=SIZES,
    seeds=SEEDS,
    steps=(STEPS,),
    pilot=Pilot(first=3e-3, seeds=(0, 1), steps=1000),
    patient_of=patient_of,
)
