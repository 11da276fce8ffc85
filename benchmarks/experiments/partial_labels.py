"""Labels that are missing in some cases: the heart, as if its cases came from several datasets."""

from functools import partial
from typing import Any

from benchmarks.data.acdc import ORIGIN, patient_of, scan_groups, write_masks
from benchmarks.data.folds import PatientFolds
from benchmarks.data.missing_labels import PretendedSources
from benchmarks.data.raw import pseudo_labelled
from benchmarks.engine.experiment import Comparison, Dataset, Experiment, Method, Pilot, Test
from benchmarks.experiments.scribbles import COARSE

STOCK, OURS = "nnUNetTrainerConfigurable", "nnUNetTrainerPartialLabels"
SEPARATE = "one model per source"


def methods(data: PretendedSources, steps: int) -> tuple[Method, ...]:
    """Stock nnU-Net with all labels and in every way that it can be used without them, and ours."""
    number, *parts, everything = data.complete.number, *dict.fromkeys(data.sources)
    merged, whole = data.merged(number + 1), data.with_labels(number + 2, "Whole", everything)
    separate = [data.with_labels(number + 3 + at, f"Source{at}", labels) for at, labels in enumerate(parts)]
    ours = partial(Method, trainer=OURS, data=merged, family="ours")
    plain = ours(
        "partial labels",
        description="nnUNetTrainerPartialLabels on all cases",
        steps=(steps, len(parts) * steps),
    )
    completed = Dataset(
        number + 10,
        "Completed",
        partial(pseudo_labelled, source=merged.number),
        plans_of=data.complete,
        teacher=plain,
    )
    return (
        Method(
            "full labels",
            STOCK,
            data.complete,
            {},
            "nnU-Net on all labels of all cases: the bound",
            family="stock",
            steps=(steps, 2 * steps),
        ),
        Method("background", STOCK, merged, {}, "nnU-Net, missing labels taken for background", family="stock"),
        Method("whole cases", STOCK, whole, {}, "nnU-Net on the cases that have every label", family="stock"),
        *(
            Method(
                f"{SEPARATE}: {', '.join(labels)}",
                STOCK,
                dataset,
                {},
                f"nnU-Net for {', '.join(labels)} alone, on every case that has them",
                family="stock",
                labels=tuple(labels),
                part_of=SEPARATE,
            )
            for labels, dataset in zip(parts, separate)
        ),
        plain,
        ours(
            "with exclusion",
            settings={"partial_labels.exclusion_weight": 1.0},
            description="the same with the exclusion loss",
        ),
        Method(
            "completed",
            STOCK,
            completed,
            {},
            "nnU-Net on all cases, with what is missing labelled by `partial labels` where it is sure, and ignored "
            "elsewhere",
            family="stock",
        ),
    )


def experiment(data: PretendedSources, *, steps: int, **other: Any) -> Experiment:
    """The comparison on a dataset."""
    parts = len(set(data.sources)) - 1  # one has every label
    shown = "; ".join(", ".join(labels) for labels in data.sources)
    return Experiment(
        folds=data.folds,
        description=f"Patients are dealt out evenly to pretended sources with the labels {shown}. All models train on "
        "the same patients, and are scored against every label of others. Added when two seeds of the heart had been "
        "scored, and nothing of the hippocampus: `partial labels` trained for as many steps as the models of all "
        "sources together, and `full labels` trained for twice as long. Added when all three seeds of the heart had "
        "been scored at 2,000 steps, and nothing of the hippocampus but pilots: `completed`.",
        methods=methods(data, steps),
        steps=(steps,),
        tests=(Test("all labels", data.complete),),
        comparisons=(
            *(
                Comparison("partial labels", name, margin=0.01, is_primary=True)
                for name in ("background", "whole cases", SEPARATE)
            ),
            Comparison("full labels", "partial labels"),
            Comparison("with exclusion", "partial labels"),
            Comparison("partial labels", SEPARATE, margin=0.01, steps=(parts * steps, steps)),
            Comparison("full labels", "full labels", steps=(2 * steps, steps)),
            *(Comparison("completed", name, margin=0.01) for name in ("partial labels", SEPARATE)),
            Comparison("completed", "partial labels", margin=0.01, steps=(steps, parts * steps)),
            Comparison("full labels", "completed"),
        ),
        sizes=(24,),
        pilot=Pilot(first=3e-3, steps=1000),
        **other,
    )


EXPERIMENT = experiment(
    PretendedSources(
        Dataset(881, "Heart", write_masks),
        groups=scan_groups,
        folds=PatientFolds(scan_groups, pilot_train=4, most_tested=16, pilot_size=16),
        # each label is missing in half of the cases, and a quarter has every label
        sources=(("RV",), ("MYO",), ("LV",), ("RV", "MYO", "LV")),
        pattern="patient[0-9]+",
    ),
    name="partial_labels",
    title="Labels missing in some cases: the heart",
    originals=(ORIGIN,),
    network=COARSE,
    steps=2000,
    patient_of=patient_of,
)
