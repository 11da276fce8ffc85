"""Pre-training on cases without labels: the heart, with few labelled patients."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from benchmarks.data.acdc import ORIGIN, patient_of, scan_groups, self_taught, write_masks
from benchmarks.data.folds import PatientFolds
from benchmarks.data.raw import unlabelled
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Fold, Method, Pilot, Test
from benchmarks.engine.presets import ADAMW, COARSE, STOCK

FOLDS = PatientFolds(scan_groups, pilot_train=4, most_tested=16)
STEPS, PRETRAINING_STEPS = 2000, 4000
SELF_TRAINING_STEPS, ALL_STEPS = 2 * STEPS, STEPS + PRETRAINING_STEPS
SIZES, SEEDS = (5, 10), (0, 1, 2)


def everyone(sizes: Sequence[int | None], seeds: Sequence[int]) -> list[Fold]:
    """The folds of the labelled patients with all that may be trained on: none is tested."""
    return FOLDS([None] * len(sizes), seeds)


LABELLED = Dataset(901, "HeartLabelled", write_masks)
UNLABELLED = Dataset(902, "HeartUnlabelled", partial(unlabelled, name=ORIGIN), folds=everyone, plans_of=LABELLED)
ALL_LABELLED = Dataset(903, "HeartAllLabelled", write_masks, folds=everyone, plans_of=LABELLED)


def pretrained(name: str, trainer: str, description: str) -> Method:
    """A pre-training on all patients of the fold, and nnU-Net on the labelled ones, started from it."""
    # the preset's learning rate: nothing is chosen for a task that is not the one that counts
    options: dict[str, Any] = {"lr": 2e-3, "steps": (PRETRAINING_STEPS,), "sizes": SIZES[:1], "is_scored": False}
    start = Method(f"{name} alone", trainer, UNLABELLED, **options)
    return Method(name, STOCK, LABELLED, {}, f"nnU-Net, started from {description}", start=start)


TECHNIQUES = {
    "Models Genesis": ("nnUNetTrainerModelsGenesis", "a network that learned to undo corruptions"),
    "Volume Fusion": ("nnUNetTrainerVolumeFusion", "a network that learned to tell how crops were blended"),
    "MAE": ("nnUNetTrainerMAE", "an encoder that learned to restore masked blocks"),
}


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
)
LONGER = replace(
    SCRATCH, name="scratch, longer", family="scratch", sizes=SIZES[:1], steps=(SELF_TRAINING_STEPS, ALL_STEPS)
)
PRETRAINED = {name: pretrained(name, *about) for name, about in TECHNIQUES.items()}
WARM = Method(
    "Volume Fusion, warmed up",
    "nnUNetTrainerFineTune",
    LABELLED,
    {"fine_tuning.warmup_epochs": lambda epochs: round(epochs / 5), "fine_tuning.copied_lr_factor": 0.3},
    "the same, with a slow start and a third of the learning rate for what was pre-trained",
    family="Volume Fusion",
    start=PRETRAINED["Volume Fusion"].start,
    start_by="fine_tuning.source",
)
SELF_TRAINED = (
    self_training("self-training", 910, SCRATCH),
    self_training("Volume Fusion + self-training", 930, PRETRAINED["Volume Fusion"]),
    self_training("Models Genesis + self-training", 920, PRETRAINED["Models Genesis"]),
)
CANDIDATES = (*TECHNIQUES, WARM.name, *(method.name for method in SELF_TRAINED))
# compared with a training from scratch that is as long as teacher and student, or as pre-training and training
EQUAL_STEPS = {name: SELF_TRAINING_STEPS if name == "self-training" else ALL_STEPS for name in CANDIDATES}
DECIDING = ("Models Genesis", "Volume Fusion", "self-training")
"""A masked autoencoder has been shown to gain from tens of thousands of scans only, and a pre-training with
self-training is longer than what it is compared with: these decide nothing."""


def beside_scratch(name: str, **options: Any) -> Comparison:
    """A technique and a longer training from scratch."""
    return Comparison(name, LONGER.name, margin=0.01, steps=(STEPS, EQUAL_STEPS[name]), **options)


EXPERIMENT = Experiment(
    name="pretraining",
    title="Pre-training without labels: the heart with few labelled patients",
    description="Of the training patients of a fold, 5 or 10 have labels, both phases of each. A pre-training sees the "
    "images of all 64 of them, 128 scans, and the training that starts from it the labelled ones. Both are tested on "
    "patients whom neither has seen. `scratch` is trained for as long as the others, and `scratch, longer` for as long "
    "as they and their teacher or pre-training together, but for a pre-training with self-training, which has both. "
    "Added when the first two seeds of `Models Genesis` had been scored: `Models Genesis + self-training`; when all "
    "had been: `scratch, longer` beside itself.",
    originals=(ORIGIN,),
    folds=FOLDS,
    methods=(
        SCRATCH,
        LONGER,
        *PRETRAINED.values(),
        *SELF_TRAINED,
        WARM,
        Method("all labels", STOCK, ALL_LABELLED, {}, "nnU-Net on the labels of all: the bound", sizes=SIZES[:1]),
    ),
    tests=(Test("masks", LABELLED, metrics=("dice", "surface")),),
    columns=(("masks", "dice"), ("masks", "assd"), ("masks", "hd95")),
    comparisons=(
        *(beside_scratch(name, is_primary=True) for name in DECIDING),
        *(beside_scratch(name) for name in CANDIDATES if name not in DECIDING),
        *(Comparison(name, "scratch", size=size) for size in SIZES for name in CANDIDATES),
        *(Comparison(name, "scratch", "hd95", margin=0.2, is_relative=True) for name in CANDIDATES),
        *(Comparison(f"{name} + self-training", "self-training") for name in ("Volume Fusion", "Models Genesis")),
        Comparison("Volume Fusion", "Models Genesis"),
        Comparison("Volume Fusion", "MAE"),
        Comparison(WARM.name, "Volume Fusion"),
        Comparison("all labels", "scratch"),
        *(Comparison(LONGER.name, "scratch", steps=(steps, STEPS)) for steps in LONGER.steps),
        Comparison(LONGER.name, LONGER.name, steps=(ALL_STEPS, SELF_TRAINING_STEPS)),
    ),
    network=COARSE,
    sizes=SIZES,
    seeds=SEEDS,
    steps=(STEPS,),
    pilot=Pilot(first=3e-3, seeds=(0, 1), steps=1000),
    settings=ADAMW,
    patient_of=patient_of,
)
