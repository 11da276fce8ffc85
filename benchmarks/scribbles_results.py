"""What the experiment on scribbles found: figures of the runs that are finished, and the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.acdc import LABEL_NAMES, ORIGIN, Run
from benchmarks.acdc_results import (
    TRAINING_HEADER,
    Training,
    cell,
    design_lines,
    finished_lines,
    grid_content,
    pilot_lines,
    row_of,
    seeds_table,
    titled,
    training_cells,
)
from benchmarks.pilot import Scores
from benchmarks.provenance import markdown_table
from benchmarks.scribbles_grid import METHODS, REFERENCES
from benchmarks.seed_estimates import SeedScores, known_mean
from nnunet_ext.evaluation.bootstrap import ratio

Array = npt.NDArray[np.float64]

LABELS = tuple(LABEL_NAMES)
AGGREGATED, DICE, ASSD, HD95 = "DSCagg", "Dice", "ASSD", "HD95"
MEANS = {DICE: "dice", ASSD: "assd", HD95: "hd95"}
"""Figures that are means over cases, and what evaluation.json calls them."""

DISTANCES = (ASSD, HD95)
KINDS = (*MEANS, AGGREGATED)


def of_label(kind: str, label: str) -> str:
    """The name of a measure of one label."""
    return f"{kind} {label}"


MEASURES = (*KINDS, *(of_label(kind, label) for kind in KINDS for label in LABELS))
OVERLAP_SHOWN = (DICE, *(of_label(DICE, label) for label in LABELS), AGGREGATED)
DISTANCES_SHOWN = tuple(name for kind in DISTANCES for name in (kind, *(of_label(kind, label) for label in LABELS)))
DIFFERENCES_SHOWN = (DICE, *(of_label(DICE, label) for label in LABELS), *DISTANCES)


@dataclass(frozen=True)
class Scored:
    """A model's scores on the test patients of its seed.

    Attributes:
        cases: in order.
        case_patients: the patient of each.
        means: Dice, ASSD and HD95, (cases, labels, `MEANS`); NaN where there is none.
        volumes: 2|A∩B| and |A| + |B| in mm³, (cases, labels, 2).
    """

    cases: tuple[str, ...]
    case_patients: tuple[str, ...]
    means: Array
    volumes: Array

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], patients: Mapping[str, str]) -> Scored:
        """Take them from an evaluation.json of one set of cases.

        Args:
            evaluation: its content.
            patients: the patient of each case.
        """
        (part,) = evaluation["datasets"]
        cases = tuple(part["dice"])
        means = [[[_number(part[name][case][label]) for name in MEANS.values()] for label in LABELS] for case in cases]
        volumes = [[_volumes(part["volumes"][case][label]) for label in LABELS] for case in cases]
        return cls(cases, tuple(patients[case] for case in cases), np.array(means), np.array(volumes))

    def scores(self) -> SeedScores:
        """Every measure."""
        return self._scores(~np.isnan(self.means))

    def minus(self, other: Scored) -> SeedScores:
        """The differences from another model; Dice and distances of the cases and labels where both have one.

        Raises:
            ValueError: if it was scored on other cases.
        """
        if other.cases != self.cases:
            raise ValueError("The runs were not scored on the same cases.")
        known = ~np.isnan(self.means) & ~np.isnan(other.means)
        return self._scores(known).minus(other._scores(known))

    def without_distance(self) -> int:
        """Cases and labels with no distance, as reference or prediction has nothing of the label."""
        return int(np.isnan(self.means[..., list(MEANS).index(ASSD)]).sum())

    def _scores(self, known: npt.NDArray[np.bool_]) -> SeedScores:
        patients = tuple(dict.fromkeys(self.case_patients))
        is_of = np.array([[one == patient for one in self.case_patients] for patient in patients], dtype=np.float64)
        sums = np.where(known, self.means, 0.0)

        def measure(weights: Array) -> dict[str, Array]:
            counted = weights @ is_of  # all cases of a patient together
            by_label = dict(zip(MEANS, np.moveaxis(_ratio_of_sums(counted, sums, known.astype(np.float64)), -1, 0)))
            by_label[AGGREGATED] = _ratio_of_sums(counted, self.volumes[..., 0], self.volumes[..., 1])
            found = {kind: known_mean(values, np.ones_like(values)) for kind, values in by_label.items()}
            for kind, values in by_label.items():
                found |= {of_label(kind, label): values[:, number] for number, label in enumerate(LABELS)}
            return found

        return SeedScores(patients, measure)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _volumes(volumes: Mapping[str, float]) -> list[float]:
    return [2 * float(volumes["both"]), float(volumes["reference"]) + float(volumes["predicted"])]


def _ratio_of_sums(counted: Array, numerator: Array, denominator: Array) -> Array:
    """Σ numerator / Σ denominator over the cases, each as often as it is counted, (resamples, cases)."""
    return ratio(np.tensordot(counted, numerator, axes=1), np.tensordot(counted, denominator, axes=1))


@dataclass(frozen=True)
class Trained:
    """What a finished run left.

    Attributes:
        scored: its scores.
        training: how it was trained.
    """

    scored: Scored
    training: Training


def distance_row_of(runs: Mapping[Run, Trained], references: Mapping[str, Mapping[Run, Trained]]) -> dict[str, Any]:
    """The figures of one method with few or with all patients, and how often there was no distance.

    Args:
        runs: its finished runs, at least one.
        references: those of the methods to compare with, by name.
    """
    without = sum(found.scored.without_distance() for found in runs.values())
    return {**row_of(runs, references), "without_distance": without}


def collected(trained: Mapping[Run, Trained], planned: Sequence[Run], pilots: Scores) -> dict[str, Any]:
    """The figures of what is finished, as plain data; see `grid_content`."""
    content = grid_content(trained, planned, pilots, methods=METHODS, references=REFERENCES, row=distance_row_of)
    return {**content, "cases": {run.name: cases_of(found.scored) for run, found in trained.items()}}


def cases_of(scored: Scored) -> dict[str, dict[str, dict[str, float | None]]]:
    """What each case and label adds: Dice, ASSD, HD95, and 2|A∩B| and |A| + |B| in mm³."""
    return {
        case: {
            label: {
                **{key: None if math.isnan(value) else value for key, value in zip(MEANS.values(), label_means)},
                "twice_both": label_volumes[0],
                "total": label_volumes[1],
            }
            for label, label_means, label_volumes in zip(LABELS, means, volumes)
        }
        for case, means, volumes in zip(scored.cases, scored.means.tolist(), scored.volumes.tolist())
    }


def cells_of(
    values: Mapping[str, Mapping[str, float | None]], names: Sequence[str], *, signed: bool = False
) -> list[str]:
    """Some measures for a table; lengths with fewer digits."""
    return [cell(values[name], signed=signed, digits=2 if name.startswith(DISTANCES) else 3) for name in names]


def tables_of(content: Mapping[str, Any], request: Mapping[str, Any], *, is_all: bool) -> list[str]:
    """The tables for few or for all training patients; nothing if no run of it is finished."""
    rows = [row for row in content["rows"] if row["all_patients"] == is_all]
    if not rows:
        return []
    amount = "all" if is_all else request["patients"]
    cells = [[row["method"], *cells_of(row["measures"], OVERLAP_SHOWN), *training_cells(row)] for row in rows]
    lines = [f"## Trained on {amount} patients", ""]
    lines += [*markdown_table(["", *OVERLAP_SHOWN, *TRAINING_HEADER], cells), ""]
    cells = [[row["method"], *cells_of(row["measures"], DISTANCES_SHOWN), str(row["without_distance"])] for row in rows]
    lines += titled("Distances, mm:", markdown_table(["", *DISTANCES_SHOWN, "without"], cells))
    for method in REFERENCES:
        lines += titled(f"Minus `{method.name}`:", differences_table(rows, method.name))
    return [*lines, *titled("Dice of each seed:", seeds_table(rows, DICE))]


def differences_table(rows: Sequence[Mapping[str, Any]], reference: str) -> list[str]:
    """A table of differences from a method; nothing if no row has any."""
    cells = [
        [row["method"], *cells_of(values, DIFFERENCES_SHOWN, signed=True), ", ".join(map(str, values["seeds"]))]
        for row in rows
        if (values := row["minus"].get(reference))
    ]
    return markdown_table(["", *DIFFERENCES_SHOWN, "seeds"], cells) if cells else []


def result_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """The figures as Markdown."""
    return [
        f"# Scribbles: the heart in cine MRI, {request['configuration']}",
        "",
        f"{ORIGIN}: cine MRI of the heart at the end of diastole and of systole. Experts drew scribbles on about 2 to "
        "6 % of the voxels, background among them; all others are `ignore`. Right ventricle (RV), myocardium (MYO) and "
        "left ventricle (LV) are segmented. Full masks score every model, choose the learning rates where there are "
        "several, and train the bound; the other trainings do not see them.",
        "",
        *design_lines(content, request),
        "The consistency of TDNet rises over the whole training.",
        "",
        *finished_lines(content, request),
        "",
        *(line for is_all in (False, True) for line in tables_of(content, request, is_all=is_all)),
        "Dice, ASSD and HD95 are means over a seed's test cases, two of each patient, and over the three labels; all",
        "figures are means over the seeds. without: cases and labels that have no distance, as nothing was predicted;",
        "they count with a Dice of 0, and not at all among the distances. DSCagg of a label is the sum of 2|A∩B| over",
        "a seed's test cases by the sum of |A| + |B|, in mm³. In brackets: the 95 % bootstrap interval over seeds and",
        "over the patients of each seed, with both their cases; few seeds show the spread between trainings only",
        "roughly. Differences are pairs of the same seed and case, those of distances where both have one. parameters:",
        "entries of the trained network; all methods predict with as many as `stock, ignore label`. step: median epoch",
        "by its training steps, with loading, augmentation, a validation batch and whatever else the machine did.",
        "",
        *pilot_lines(
            content,
            [
                "none of them is tested above. Methods that differ in settings alone share their rate, that of",
                "`partial CE` or of `TDNet`.",
            ],
        ),
    ]
