"""What the experiment on prior scans found: figures of the runs that are finished, and the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.longitudinal_grid import (
    METHODS,
    NO_PRIOR,
    ORIGIN,
    PILOT_TEST_FOLD,
    PILOT_TRAINING_FOLD,
    REFERENCES,
    Method,
    Run,
)
from benchmarks.pilot import Scores, pilot_content, pilot_table
from benchmarks.provenance import markdown_table, with_interval
from benchmarks.resampling import RESAMPLES
from benchmarks.steps import epoch_seconds
from nnunet_ext.checkpoints.adaptation import aliases
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.evaluation.bootstrap import drawn_counts, percentile_interval, ratio
from nnunet_ext.plans.settings import KEY

Table = npt.NDArray[np.float64]
"""(cases, labels, `COLUMNS`), or sums of such rows over the cases, (resamples, labels, `COLUMNS`)."""

LABELS = ("RV", "MYO", "LV")
BOOTSTRAP_SEED = 0
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
        lr: the learning rate that it was trained with.
        parameters: of the network.
        step_seconds: median over the epochs, of an epoch's time by its training steps.
    """

    scored: Scored
    withheld: Scored | None
    lr: float
    parameters: int
    step_seconds: float

    @classmethod
    def of(cls, scored: Scored, withheld: Scored | None, checkpoint: Path) -> Trained:
        """Read what the checkpoint knows."""
        content = read_checkpoint(checkpoint)
        settings = content[KEY]["settings"]
        return cls(
            scored=scored,
            withheld=withheld,
            lr=float(settings["initial_lr"]),
            parameters=sum(tensor.numel() for _, tensor in aliases(content["network_weights"])),
            step_seconds=median(epoch_seconds(content["logging"])) / int(settings["num_iterations_per_epoch"]),
        )


def measured(sums: Table) -> dict[str, npt.NDArray[np.float64]]:
    """Every measure of sums over patients, by name, (resamples,).

    DSCagg of a label is Σ 2|A∩B| / Σ (|A| + |B|); both kinds are averaged over the labels that have a value.
    """
    columns = {name: sums[..., number] for number, name in enumerate(COLUMNS)}
    by_label = {
        AGGREGATED: ratio(columns["twice_both"], columns["total"]),
        DICE: ratio(columns["dice"], columns["cases_with_dice"]),
    }
    means = {kind: _known_mean(values, np.ones_like(values)) for kind, values in by_label.items()}
    return {
        **means,
        **{of_label(kind, label): by_label[kind][..., n] for kind in by_label for n, label in enumerate(LABELS)},
    }


def _known_mean(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The weighted mean over the last axis, of the values that are not NaN; NaN where none counts."""
    known = np.where(np.isnan(values), 0.0, weights)
    return ratio((np.nan_to_num(values) * known).sum(axis=-1), known.sum(axis=-1))


def estimates(
    runs: Mapping[Run, Scored], others: Mapping[Run, Scored] | None = None
) -> dict[str, dict[str, float | None]]:
    """Every measure: mean over the seeds, with its 95 % percentile bootstrap interval over seeds and patients.

    A resample draws seeds, and patients of each seed's test set, with replacement; a measure of a seed is computed from
    the sums over its patients. Seeds that test the same patients share their draw. With few seeds, the spread between
    them shows only roughly.

    Args:
        runs: of one method, one for each seed.
        others: of what to compare with, the same seeds in the same order; the figures are differences, runs - others.

    Raises:
        ValueError: if a pair was not scored on the same patients.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    seed_weights = sample_and_resamples(len(runs), rng)
    draws: dict[tuple[str, ...], npt.NDArray[np.float64]] = {}
    partners = list(others.values()) if others is not None else [None] * len(runs)
    by_seed: list[dict[str, npt.NDArray[np.float64]]] = []
    for scored, partner in zip(runs.values(), partners):
        patients = scored.patients
        if partner is not None and partner.patients != patients:
            raise ValueError("The runs were not scored on the same patients.")
        if patients not in draws:
            draws[patients] = sample_and_resamples(len(patients), rng)
        values = _resampled(scored.table, draws[patients])
        if partner is not None:
            other_values = _resampled(partner.table, draws[patients])
            values = {name: values[name] - other_values[name] for name in MEASURES}
        by_seed.append(values)
    return {
        name: _with_percentiles(_known_mean(np.stack([one[name] for one in by_seed], axis=-1), seed_weights))
        for name in MEASURES
    }


def sample_and_resamples(size: int, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """How often each of some values counts: once in the first row, as drawn in the others, (1 + resamples, `size`)."""
    return np.concatenate([np.ones((1, size)), drawn_counts(size, rng, resamples=RESAMPLES).astype(np.float64)])


def _resampled(table: Table, weights: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    return measured(np.tensordot(weights, table, axes=1))


def _with_percentiles(samples: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """The first sample with the interval of the others; nulls where there is no value."""
    interval = percentile_interval(samples[1:])
    if math.isnan(samples[0]) or interval is None:
        return {"value": None, "low": None, "high": None}
    return {"value": float(samples[0]), "low": interval.low, "high": interval.high}


def pooled(scored: Scored) -> dict[str, float | None]:
    """Every measure of one run."""
    found = _resampled(scored.table, np.ones((1, len(scored.patients))))
    return {name: None if math.isnan(values[0]) else float(values[0]) for name, values in found.items()}


def finished_runs(trained: Mapping[Run, Trained], method: Method, *, is_all: bool) -> dict[Run, Trained]:
    """The finished runs of a method with few or with all patients, by seed."""
    runs = {run: found for run, found in trained.items() if run.method == method and run.is_all == is_all}
    return dict(sorted(runs.items(), key=lambda item: item[0].seed))


def compared(runs: Mapping[Run, Scored], others: Mapping[Run, Scored]) -> dict[str, Any] | None:
    """The differences runs - others of the seeds that both have; None if there is none."""
    by_seed = {run.seed: (run, scored) for run, scored in others.items()}
    common = {run: scored for run, scored in runs.items() if run.seed in by_seed}
    if not common:
        return None
    return {
        "seeds": [run.seed for run in common],
        **estimates(common, dict(by_seed[run.seed] for run in common)),
    }


def row_of(runs: Mapping[Run, Trained], references: Mapping[str, Mapping[Run, Trained]]) -> dict[str, Any]:
    """The figures of one method with few or with all patients.

    Args:
        runs: its finished runs, at least one.
        references: those of the methods to compare with, by name.
    """
    first = next(iter(runs))
    scored = scores_of(runs)
    without = {run: trained.withheld for run, trained in runs.items() if trained.withheld is not None}
    minus = {
        name: difference
        for name, others in references.items()
        if name != first.method.name and (difference := compared(scored, scores_of(others)))
    }
    row: dict[str, Any] = {
        "method": first.method.name,
        "trainer": first.method.trainer,
        "inputs": first.method.inputs.description,
        "settings": dict(first.method.settings),
        "all_patients": first.is_all,
        "seeds": [run.seed for run in runs],
        "lr": sorted({trained.lr for trained in runs.values()}),
        "parameters": next(iter(runs.values())).parameters,
        "median_step_seconds": median(trained.step_seconds for trained in runs.values()),
        "measures": estimates(scored),
        "by_seed": {str(run.seed): pooled(one) for run, one in scored.items()},
        "minus": minus,
    }
    if without:
        row["withheld"] = {
            "seeds": [run.seed for run in without],
            "measures": estimates(without),
            "by_seed": {str(run.seed): pooled(one) for run, one in without.items()},
            "minus_with_prior": compared(without, scored),
            "minus_no_prior": compared(without, scores_of(references.get(NO_PRIOR.name, {}))),
        }
    return row


def scores_of(runs: Mapping[Run, Trained]) -> dict[Run, Scored]:
    """The scores of runs."""
    return {run: trained.scored for run, trained in runs.items()}


def collected(trained: Mapping[Run, Trained], planned: Sequence[Run], pilots: Scores) -> dict[str, Any]:
    """The figures of what is finished, as plain data.

    Args:
        trained: the finished runs.
        planned: those of the full grid.
        pilots: mean Dice of the pilot's finished trainings, by family and learning rate.
    """
    rows = []
    for is_all in (False, True):
        references = {method.name: finished_runs(trained, method, is_all=is_all) for method in REFERENCES}
        for method in METHODS:
            if runs := finished_runs(trained, method, is_all=is_all):
                rows.append(row_of(runs, references))
    return {
        "origin": ORIGIN,
        "methods": {method.name: method.description for method in METHODS},
        "pilot": pilot_content(pilots),
        "rows": rows,
        "finished_runs": [run.name for run in trained],
        "missing_runs": [run.name for run in planned if run not in trained],
        "missing": missing_lines(trained, planned),
        "cases": {
            run.name: {
                part: cases_of(scored)
                for part, scored in (("with_prior_channels", found.scored), ("withheld", found.withheld))
                if scored is not None
            }
            for run, found in trained.items()
        },
    }


def cases_of(scored: Scored) -> dict[str, dict[str, dict[str, float | None]]]:
    """What each patient and label adds: 2|A∩B| and |A| + |B| in mm³, and its Dice."""
    return {
        patient: {
            label: {"twice_both": row[0], "total": row[1], "dice": row[2] if row[3] else None}
            for label, row in zip(LABELS, rows.tolist())
        }
        for patient, rows in zip(scored.patients, scored.table)
    }


def missing_lines(trained: Mapping[Run, Trained], planned: Sequence[Run]) -> list[str]:
    """What of the full grid is not finished: a line for few, one for all patients, and one for what is withheld."""
    lines = []
    for is_all in (False, True):
        wanted = [run for run in planned if run.is_all == is_all]
        missing = [run for run in wanted if run not in trained]
        if missing:
            what = "everything" if len(missing) == len(wanted) else _by_method(missing)
            lines.append(f"{'all' if is_all else 'few'} training patients: {what}")
    unscored = [run for run, found in trained.items() if run.is_withheld_later and found.withheld is None]
    if unscored:
        lines.append(f"scores without the prior: {_by_method(unscored)}")
    return lines


def _by_method(runs: Sequence[Run]) -> str:
    """``dual encoder add (seed 1, 2)``, …"""
    parts = []
    for method in METHODS:
        seeds = [run.seed for run in runs if run.method == method]
        if seeds:
            parts.append(f"{method.name} (seed {', '.join(map(str, dict.fromkeys(seeds)))})")
    return ", ".join(parts)


def cell(values: Mapping[str, float | None], *, signed: bool = False) -> str:
    """A figure with its interval for a table."""
    if values["value"] is None:
        return "none"
    return with_interval({key: float(value or 0.0) for key, value in values.items()}, signed=signed)


def scope_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """What was run and what was not."""
    total = len(content["finished_runs"]) + len(content["missing_runs"])
    network = content["network"]
    patch = " x ".join(map(str, network["patch_size"]))
    lines = [
        f"{ORIGIN}: cine MRI of the heart. The current scan is the end of systole, the prior scan the end of diastole "
        "of the same patient with its dense mask; right ventricle (RV), myocardium (MYO) and left ventricle (LV) of "
        "the current scan are segmented. The prior is resampled onto the current grid by the files' headers, without "
        "registration: what differs is the heart's motion within a beat, not disease.",
        "",
        f"A seed decides the initial weights, the draw of {request['patients']} training patients and the test "
        f"patients: at most {request['test_patients']} of a fold of their own for each of the first three seeds. No "
        "patient is in training and test. All methods of a seed have the same patients.",
        "",
        f"Every training has {request['epochs']} epochs of {request['iterations']} steps, with preset `quick` on "
        f"{request['configuration']} (patches of {patch}, batch {network['batch_size']}, network of 8 base features), "
        f"AdamW, prediction without mirroring, device {request['device']}; the dual encoder's other settings are the "
        "defaults, with prior dropout.",
        "",
        *(f"- `{name}`: {description}" for name, description in content["methods"].items()),
        "",
        f"Finished: {len(content['finished_runs'])} of {total} trainings of the full grid ({len(METHODS)} methods, "
        f"{request['seeds']} seeds, {request['patients']} and all training patients).",
    ]
    if content["missing"]:
        lines += ["", "Not run:", "", *(f"- {line}" for line in content["missing"])]
    lines += [
        "",
        "A small network and short trainings: it shows how the methods compare here, at this number of steps; "
        "full-size networks and trainings of nnU-Net's length were not run.",
    ]
    return lines


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
    header = ["", *SHOWN, "parameters", "step", "lr", "seeds"]
    cells = [
        [
            row["method"],
            *cells_of(row["measures"]),
            f"{row['parameters']:,}",
            f"{row['median_step_seconds']:.2f} s",
            ", ".join(f"{lr:g}" for lr in row["lr"]),
            ", ".join(map(str, row["seeds"])),
        ]
        for row in rows
    ]
    amount = "all" if is_all else request["patients"]
    lines = [f"## Trained on {amount} patients", "", *markdown_table(header, cells), ""]
    for method in REFERENCES:
        lines += titled(f"Minus `{method.name}`:", differences_table(rows, ("minus", method.name)))
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    cells = [[row["method"], *(seed_cell(row["by_seed"].get(str(seed))) for seed in seeds)] for row in rows]
    lines += titled("DSCagg of each seed:", markdown_table(["", *(f"seed {seed}" for seed in seeds)], cells))
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


def titled(title: str, lines: Sequence[str]) -> list[str]:
    """A table under a sentence; nothing if it is empty."""
    return [title, "", *lines, ""] if lines else []


def seed_cell(values: Mapping[str, float | None] | None) -> str:
    """A run's DSCagg for a table."""
    if values is None:
        return ""
    return "none" if values[AGGREGATED] is None else f"{values[AGGREGATED]:.3f}"


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
        "## Choice of the learning rate",
        "",
        f"Mean Dice on patients of fold {PILOT_TEST_FOLD} of the original, trained on patients of its fold "
        f"{PILOT_TRAINING_FOLD}:",
        "none of them is tested above. A family shares its rate: nnU-Net and MixUp with prior channels have that of",
        "`early concatenation`, all dual encoders that of `dual encoder gated`.",
        "",
        *pilot_table(content["pilot"]),
        "",
    ]
