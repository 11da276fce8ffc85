"""What the experiment on prior scans found: figures of the runs that are finished, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.acdc import LABEL_NAMES, ORIGIN, Run
from benchmarks.acdc_results import (
    TRAINING_HEADER,
    Training,
    by_method,
    cell,
    compared,
    design_lines,
    estimates,
    finished_lines,
    grid_content,
    pilot_lines,
    row_of,
    scores_of,
    seeds_table,
    titled,
    training_cells,
)
from benchmarks.longitudinal_grid import METHODS, NO_PRIOR, REFERENCES, is_withheld_later
from benchmarks.pilot import Scores
from benchmarks.provenance import markdown_table
from benchmarks.seed_estimates import SeedScores, known_mean
from nnunet_ext.evaluation.bootstrap import ratio

Table = npt.NDArray[np.float64]
"""(cases, labels, `COLUMNS`), or sums of such rows over the cases, (resamples, labels, `COLUMNS`)."""

LABELS = tuple(LABEL_NAMES)
COLUMNS = ("twice_both", "total", "dice", "cases_with_dice")
"""2|A∩B| and |A| + |B| in mm³, Dice, and whether it is defined."""

AGGREGATED, DICE = "DSCagg", "Dice"


def of_label(kind: str, label: str) -> str:
    """The name of a measure of one label."""
    return f"{kind} {label}"


KINDS = (AGGREGATED, DICE)
MEASURES = (*KINDS, *(of_label(kind, label) for kind in KINDS for label in LABELS))
SHOWN = (AGGREGATED, DICE, *(of_label(DICE, label) for label in LABELS))
"""The measures that the tables have; the JSON file has all."""


@dataclass(frozen=True)
class Scored:
    """A model's scores on the test patients of its seed.

    Attributes:
        patients: in order; each has one case.
        table: their rows.
    """

    patients: tuple[str, ...]
    table: Table

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> Scored:
        """Take them from an evaluation.json of one set of cases."""
        (part,) = evaluation["datasets"]
        patients = tuple(part["dice"])
        return cls(patients, np.array([[_row(part, case, label) for label in LABELS] for case in patients]))

    def scores(self) -> SeedScores:
        """Every measure."""
        return SeedScores(self.patients, lambda weights: measured(np.tensordot(weights, self.table, axes=1)))

    def minus(self, other: Scored) -> SeedScores:
        """The differences from another model."""
        return self.scores().minus(other.scores())


def _row(part: Mapping[str, Any], case: str, label: str) -> list[float]:
    volumes, dice = part["volumes"][case][label], part["dice"][case][label]
    twice, total = 2 * float(volumes["both"]), float(volumes["reference"]) + float(volumes["predicted"])
    return [twice, total, *((0.0, 0.0) if dice is None else (float(dice), 1.0))]


@dataclass(frozen=True)
class Trained:
    """What a finished run left.

    Attributes:
        scored: its scores.
        withheld: those with zeros in all prior channels; None if there is no prior or it is not done.
        training: how it was trained.
    """

    scored: Scored
    withheld: Scored | None
    training: Training


def measured(sums: Table) -> dict[str, npt.NDArray[np.float64]]:
    """Every measure of sums over patients, by name, (resamples,).

    DSCagg of a label is Σ 2|A∩B| / Σ (|A| + |B|); both kinds are averaged over the labels that have a value.
    """
    columns = {name: sums[..., number] for number, name in enumerate(COLUMNS)}
    by_label = {
        AGGREGATED: ratio(columns["twice_both"], columns["total"]),
        DICE: ratio(columns["dice"], columns["cases_with_dice"]),
    }
    means = {kind: known_mean(values, np.ones_like(values)) for kind, values in by_label.items()}
    return {
        **means,
        **{of_label(kind, label): by_label[kind][..., n] for kind in by_label for n, label in enumerate(LABELS)},
    }


def withheld_row_of(runs: Mapping[Run, Trained], references: Mapping[str, Mapping[Run, Trained]]) -> dict[str, Any]:
    """The figures of one method with few or with all patients, and without the prior if there are any.

    Args:
        runs: its finished runs, at least one.
        references: those of the methods to compare with, by name.
    """
    row = row_of(runs, references)
    without = {run: trained.withheld for run, trained in runs.items() if trained.withheld is not None}
    if without:
        row["withheld"] = {
            "seeds": [run.seed for run in without],
            "measures": estimates(without),
            "by_seed": {str(run.seed): one.scores().values() for run, one in without.items()},
            "minus_with_prior": compared(without, scores_of(runs)),
            "minus_no_prior": compared(without, scores_of(references.get(NO_PRIOR.name, {}))),
        }
    return row


def collected(trained: Mapping[Run, Trained], planned: Sequence[Run], pilots: Scores) -> dict[str, Any]:
    """The figures of what is finished, as plain data; see `grid_content`."""
    content = grid_content(trained, planned, pilots, methods=METHODS, references=REFERENCES, row=withheld_row_of)
    content["missing"] += unscored_lines(trained)
    content["cases"] = {
        run.name: {
            part: cases_of(scored)
            for part, scored in (("with_prior_channels", found.scored), ("withheld", found.withheld))
            if scored is not None
        }
        for run, found in trained.items()
    }
    return content


def cases_of(scored: Scored) -> dict[str, dict[str, dict[str, float | None]]]:
    """What each patient and label adds: 2|A∩B| and |A| + |B| in mm³, and its Dice."""
    return {
        patient: {
            label: {"twice_both": row[0], "total": row[1], "dice": row[2] if row[3] else None}
            for label, row in zip(LABELS, rows.tolist())
        }
        for patient, rows in zip(scored.patients, scored.table)
    }


def unscored_lines(trained: Mapping[Run, Trained]) -> list[str]:
    """Which finished runs still have to be scored without the prior, as a line if there are any."""
    unscored = [run for run, found in trained.items() if is_withheld_later(run) and found.withheld is None]
    return [f"scores without the prior: {by_method(unscored)}"] if unscored else []


def scope_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """What was run and what was not."""
    return [
        f"{ORIGIN}: cine MRI of the heart. The current scan is the end of systole, the prior scan the end of diastole "
        "of the same patient with its dense mask; right ventricle (RV), myocardium (MYO) and left ventricle (LV) of "
        "the current scan are segmented. The prior is resampled onto the current grid by the files' headers, without "
        "registration: what differs is the heart's motion within a beat, not disease.",
        "",
        *design_lines(content, request),
        "The dual encoder's other settings are the defaults, with prior dropout.",
        "",
        *finished_lines(content, request),
    ]


def cells_of(values: Mapping[str, Mapping[str, float | None]], *, signed: bool = False) -> list[str]:
    """The shown measures for a table."""
    return [cell(values[name], signed=signed) for name in SHOWN]


def differences_table(rows: Sequence[Mapping[str, Any]], keys: tuple[str, str]) -> list[str]:
    """A table of differences; nothing if no row has any.

    Args:
        rows: of the results.
        keys: under which a row has them.
    """
    found = {row["method"]: row[keys[0]].get(keys[1]) for row in rows}
    cells = [
        [method, *cells_of(values, signed=True), ", ".join(map(str, values["seeds"]))]
        for method, values in found.items()
        if values
    ]
    return markdown_table(["", *SHOWN, "seeds"], cells) if cells else []


def tables_of(content: Mapping[str, Any], request: Mapping[str, Any], *, is_all: bool) -> list[str]:
    """The tables for few or for all training patients; nothing if no run of it is finished."""
    rows = [row for row in content["rows"] if row["all_patients"] == is_all]
    if not rows:
        return []
    header = ["", *SHOWN, *TRAINING_HEADER]
    cells = [[row["method"], *cells_of(row["measures"]), *training_cells(row)] for row in rows]
    amount = "all" if is_all else request["patients"]
    lines = [f"## Trained on {amount} patients", "", *markdown_table(header, cells), ""]
    for method in REFERENCES:
        lines += titled(f"Minus `{method.name}`:", differences_table(rows, ("minus", method.name)))
    lines += titled("DSCagg of each seed:", seeds_table(rows, AGGREGATED))
    without = [row for row in rows if "withheld" in row]
    cells = [
        [row["method"], *cells_of(row["withheld"]["measures"]), ", ".join(map(str, row["withheld"]["seeds"]))]
        for row in without
    ]
    if without:
        lines += titled("The same models with the prior withheld:", markdown_table(["", *SHOWN, "seeds"], cells))
    lines += titled(
        "Prior withheld minus with the prior:", differences_table(without, ("withheld", "minus_with_prior"))
    )
    others = differences_table(without, ("withheld", "minus_no_prior"))
    return [*lines, *titled(f"Prior withheld minus `{NO_PRIOR.name}`:", others)]


def result_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """The figures as Markdown."""
    return [
        "# Prior scans: the heart at the end of systole, given the end of diastole",
        "",
        *scope_lines(content, request),
        "",
        *(line for is_all in (False, True) for line in tables_of(content, request, is_all=is_all)),
        "DSCagg of a label is the sum of 2|A∩B| over a seed's test patients by the sum of |A| + |B|, in mm³; Dice is",
        "the mean over these patients. Both are means over the three labels, and all figures means over the seeds. In",
        "brackets: the 95 % bootstrap interval over seeds and over the patients of each seed; few seeds show the",
        "spread between trainings only roughly. Differences are pairs of the same seed and patient. Withheld: zeros in",
        "all prior channels of the test images. parameters: entries of the trained network. step: median epoch by its",
        "training steps, with loading, augmentation, a validation batch and whatever else the machine did.",
        "",
        *pilot_lines(
            content,
            [
                "none of them is tested above. A family shares its rate: nnU-Net and MixUp with prior channels have",
                "that of `early concatenation`, all dual encoders that of `dual encoder gated`.",
            ],
        ),
    ]
