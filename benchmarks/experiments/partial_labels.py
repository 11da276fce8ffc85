"""Labels that are missing in some cases: the heart, as if its cases came from several datasets."""

from collections.abc import Collection
from functools import partial
from typing import Any

from benchmarks.data.acdc import ORIGIN, patient_of, scan_groups, write_masks
from benchmarks.data.folds import PatientFolds
from benchmarks.data.missing_labels import PretendedSources
from benchmarks.data.raw import pseudo_labelled
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.engine.presets import COARSE, STOCK

OURS = "nnUNetTrainerPartialLabels"
SEPARATE, BOUND = "one model per source", "nnU-Net on all labels of all cases: the bound"


def stock_methods(data: PretendedSources, steps: int, longer: Collection[str]) -> tuple[Method, ...]:
    """Stock nnU-Net with all labels and in every way that it can be used without them.

    Those that are named by `longer` are also trained for as long as the models of all parts together.
    """
    number, everything = data.complete.number, data.sources[-1]

    def stock(name: str, **options: Any) -> Method:
        lengths = (steps, len(data.parts) * steps) if name in longer else ()
        return Method(name, STOCK, family="stock", **{"steps": lengths, **options})

    return (
        stock("full labels", data=data.complete, description=BOUND, steps=(steps, 2 * steps)),
        stock("background", data=data.merged, description="nnU-Net, missing labels taken for background"),
        stock(
            "whole cases",
            data=data.with_labels(number + 2, "Whole", everything),
            description="nnU-Net on the cases that have every label",
        ),
        *(
            stock(
                f"{SEPARATE}: {', '.join(labels)}",
                data=data.with_labels(number + 3 + at, f"Source{at}", labels),
                description=f"nnU-Net for {', '.join(labels)} alone, on every case that has them",
                labels=tuple(labels),
                part_of=SEPARATE,
            )
            for at, labels in enumerate(data.parts)
        ),
    )


def our_methods(data: PretendedSources, at: int, family: str, addition: str = "", **options: Any) -> tuple[Method, ...]:
    """Ours with the learning rate of a family, and stock nnU-Net on what our model has completed.

    Args:
        at: how far the numbers of the completed datasets are from that of the complete one.
        addition: to the names.
        options: of the first one.
    """
    ours = partial(Method, trainer=OURS, data=data.merged, family=family)
    name = f"partial labels{addition}"
    plain = ours(name, description="nnUNetTrainerPartialLabels on all cases", **options)
    make = partial(pseudo_labelled, source=plain.data.number)
    completed = Dataset(data.complete.number + at, "Completed", make, plans_of=data.complete, teacher=plain)
    return (
        plain,
        ours(
            f"with exclusion{addition}",
            settings={"partial_labels.exclusion_weight": 1.0},
            description="the same with the exclusion loss",
        ),
        Method(
            f"completed{addition}",
            STOCK,
            completed,
            {},
            f"nnU-Net on all cases, with what is missing labelled by `{name}` where it is sure, and ignored elsewhere",
            family="stock",
        ),
    )


def comparisons(addition: str = "", *, are_primary: bool) -> tuple[Comparison, ...]:
    """Ours beside stock nnU-Net, and its variants beside it."""
    ours, completed = f"partial labels{addition}", f"completed{addition}"
    return (
        *(
            Comparison(ours, name, margin=0.01, is_primary=are_primary)
            for name in ("background", "whole cases", SEPARATE)
        ),
        Comparison("full labels", ours),
        Comparison(f"with exclusion{addition}", ours),
        *(Comparison(completed, name, margin=0.01) for name in (ours, SEPARATE, "whole cases")),
        Comparison("full labels", completed),
    )


def longer(steps: int, parts: int, beside: Collection[str], addition: str = "") -> tuple[Comparison, ...]:
    """Ours with as many steps as the models of all parts together, `beside` others; full labels with twice as many."""
    ours, total = f"partial labels{addition}", parts * steps
    return (
        Comparison(ours, SEPARATE, margin=0.01, steps=(total, steps)),
        *(Comparison(ours, name, margin=0.01, steps=(total, total)) for name in beside),
        Comparison(f"completed{addition}", ours, margin=0.01, steps=(steps, total)),
        Comparison("full labels", "full labels", steps=(2 * steps, steps)),
    )


HEART = PretendedSources(
    Dataset(881, "Heart", write_masks),
    groups=scan_groups,
    folds=PatientFolds(scan_groups, pilot_train=4, most_tested=16, pilot_size=16),
    # each label is missing in half of the cases, and a quarter has every label
    sources=(("RV",), ("MYO",), ("LV",), ("RV", "MYO", "LV")),
    pattern="patient[0-9]+",
)
STEPS, PARTS = 2000, len(HEART.parts)
SAME_RATE = ", stock's rate"
AS_LONG = ("whole cases",)

EXPERIMENT = Experiment(
    name="partial_labels",
    title="Labels missing in some cases: the heart",
    description=f"{HEART.description} Added when all three seeds had been scored at 2,000 steps: `full labels` at "
    "4,000; `completed`; and ours at the learning rate that was found for stock, as one pilot with one seed had chosen "
    "another by a difference of 0.006, at 2,000 steps and at as many as the models of all sources have together. Added "
    "after that: `whole cases` with as many steps as ours.",
    originals=(ORIGIN,),
    folds=HEART.folds,
    methods=(
        *stock_methods(HEART, STEPS, AS_LONG),
        *our_methods(HEART, 10, "ours"),
        *our_methods(HEART, 20, "stock", SAME_RATE, steps=(STEPS, PARTS * STEPS)),
    ),
    tests=(Test("all labels", HEART.complete),),
    comparisons=(
        *comparisons(are_primary=True),
        *comparisons(SAME_RATE, are_primary=False),
        *longer(STEPS, PARTS, AS_LONG, SAME_RATE),
        Comparison(f"partial labels{SAME_RATE}", "partial labels"),
    ),
    network=COARSE,
    sizes=(24,),
    steps=(STEPS,),
    pilot=Pilot(first=3e-3, steps=1000),
    patient_of=patient_of,
)
