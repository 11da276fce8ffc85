"""What the experiment on partially annotated instances found: figures of the runs that are finished, and the tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.partial_instances_grid import (
    DENSE,
    DESCRIPTIONS,
    KEEPS,
    METHODS,
    MORE_SEEDS,
    ORIGIN,
    PILOT_FOLD,
    REFERENCES,
    SEEDS,
    Method,
    Run,
    planned_runs,
)
from benchmarks.pilot import Scores, pilot_content, pilot_table
from benchmarks.provenance import markdown_table, with_interval
from benchmarks.resampling import RESAMPLES
from benchmarks.steps import epoch_seconds
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.evaluation.bootstrap import drawn_counts, ratio
from nnunet_ext.plans.settings import KEY

Table = npt.NDArray[np.float64]
"""A row for each case, a column for each of `COLUMNS`; or sums of such rows, the columns last."""

LABEL = "lesion"
BOOTSTRAP_SEED = 0
MEANS = ("dice", "assd", "hd95")
COUNTS = ("reference", "found", "predicted", "right")
COLUMNS = (*MEANS, *(f"cases_with_{name}" for name in MEANS), *COUNTS)


def column(sums: Table, name: str) -> npt.NDArray[np.float64]:
    """One of `COLUMNS`."""
    return sums[..., COLUMNS.index(name)]


def mean_of(name: str) -> Callable[[Table], npt.NDArray[np.float64]]:
    """The mean over the cases that have a value."""
    return lambda sums: ratio(column(sums, name), column(sums, f"cases_with_{name}"))


def recall(sums: Table) -> npt.NDArray[np.float64]:
    """Share of the reference's lesions that were found."""
    return ratio(column(sums, "found"), column(sums, "reference"))


def precision(sums: Table) -> npt.NDArray[np.float64]:
    """Share of the predicted lesions that are right; NaN if none is predicted."""
    return ratio(column(sums, "right"), column(sums, "predicted"))


def f1(sums: Table) -> npt.NDArray[np.float64]:
    """Harmonic mean of recall and precision; 0 where nothing was found."""
    found, right = recall(sums), np.nan_to_num(precision(sums))
    return np.where(found + right > 0, ratio(2 * found * right, found + right), 0 * found)


MEASURES: Mapping[str, Callable[[Table], npt.NDArray[np.float64]]] = {
    **{name: mean_of(name) for name in MEANS},
    "recall": recall,
    "precision": precision,
    "f1": f1,
}
TITLES = {
    "dice": "Dice",
    "assd": "ASSD, mm",
    "hd95": "HD95, mm",
    "recall": "recall",
    "precision": "precision",
    "f1": "lesion F1",
}


@dataclass(frozen=True)
class Trained:
    """What a finished run left.

    Attributes:
        cases: names of the cases it was scored on.
        table: their rows; of the means, a value that is not defined is NaN.
        lr: the learning rate that it was trained with.
        seconds: of all its epochs.
    """

    cases: tuple[str, ...]
    table: Table
    lr: float
    seconds: float

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], checkpoint: Path) -> Trained:
        """Read evaluation and checkpoint."""
        content = read_checkpoint(checkpoint)
        cases, table = case_table(evaluation)
        lr = float(content[KEY]["settings"]["initial_lr"])
        return cls(cases, table, lr, sum(epoch_seconds(content["logging"])))


def case_table(evaluation: Mapping[str, Any]) -> tuple[tuple[str, ...], Table]:
    """The cases of an evaluation.json and their rows."""
    (part,) = evaluation["datasets"]
    cases = tuple(part["dice"])
    rows = []
    for case in cases:
        values = [part[name][case][LABEL] for name in MEANS]
        means = [math.nan if value is None else float(value) for value in values]
        lesions = part["lesions"][case][LABEL]
        rows.append([*means, *(float(value == value) for value in means), *(float(lesions[name]) for name in COUNTS)])
    return cases, np.array(rows)


def dense_dice(evaluation: Mapping[str, Any]) -> float:
    """Mean Dice against all lesions, NaN if no case has one."""
    value = evaluation["datasets"][0]["labels"][LABEL]["dice_mean"]
    return math.nan if value is None else float(value)


def with_known(table: Table, known: npt.NDArray[np.bool_]) -> Table:
    """A table whose means count only where they are `known`, (cases, means), and are zero elsewhere, for sums."""
    result = table.copy()
    result[:, : len(MEANS)] = np.where(known, table[:, : len(MEANS)], 0.0)
    result[:, len(MEANS) : 2 * len(MEANS)] = known
    return result


def known_means(table: Table) -> npt.NDArray[np.bool_]:
    """Which means each case has, (cases, means)."""
    return ~np.isnan(table[:, : len(MEANS)])


def pooled(table: Table) -> dict[str, float]:
    """Every measure over the cases of one run."""
    sums = with_known(table, known_means(table)).sum(axis=0)
    return {name: float(measure(sums)) for name, measure in MEASURES.items()}


def averaged(samples: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """The mean over the seeds, of those that have a value; NaN where none has."""
    stacked = np.stack(samples)
    known = ~np.isnan(stacked)
    return ratio(np.where(known, stacked, 0.0).sum(axis=0), known.sum(axis=0).astype(float))


def estimates(
    runs: Mapping[Run, Trained], others: Mapping[Run, Trained] | None = None
) -> dict[str, dict[str, float | None]]:
    """Every measure: mean over the seeds, and its 95 % percentile bootstrap interval over the cases of each fold.

    A lesion measure is computed from the lesions of all cases of a seed, drawn case by case. Folds are not resampled.

    Args:
        runs: of one method, one for each seed.
        others: of the method to compare with, the same seeds; the figures are differences, runs - others. ASSD and
            HD95 are then those of the cases where both have one.

    Raises:
        ValueError: if a pair was not scored on the same cases.
    """
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    of_fold: dict[int, tuple[tuple[str, ...], npt.NDArray[np.int64]]] = {}
    partners = list(others.values()) if others is not None else [None] * len(runs)
    values: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in MEASURES}
    for (run, trained), partner in zip(runs.items(), partners):
        # seeds of one fold share their cases, and so the draw
        if run.fold not in of_fold:
            of_fold[run.fold] = trained.cases, drawn_counts(len(trained.cases), rng, resamples=RESAMPLES)
        cases, counts = of_fold[run.fold]
        if trained.cases != cases or (partner is not None and partner.cases != cases):
            raise ValueError("The runs were not scored on the same cases.")
        weights = np.vstack([np.ones(len(cases)), counts])  # the first row is the sample itself
        known = known_means(trained.table)
        if partner is not None:
            known &= known_means(partner.table)
        sums = weights @ with_known(trained.table, known)
        other_sums = None if partner is None else weights @ with_known(partner.table, known)
        for name, measure in MEASURES.items():
            values[name].append(measure(sums) - (0.0 if other_sums is None else measure(other_sums)))
    return {name: _with_percentiles(averaged(samples)) for name, samples in values.items()}


def _with_percentiles(samples: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """The first sample with the interval of the others; nulls where there is no value."""
    value, resamples = samples[0], samples[1:][~np.isnan(samples[1:])]
    if math.isnan(value) or not len(resamples):
        return {"value": None, "low": None, "high": None}
    low, high = np.percentile(resamples, [2.5, 97.5])
    return {"value": float(value), "low": float(low), "high": float(high)}


def finished_runs(trained: Mapping[Run, Trained], method: Method, keep: float) -> dict[Run, Trained]:
    """The finished runs of a method, by seed; those on all instances belong to every share."""
    share = DENSE if method.is_dense else keep
    runs = {run: found for run, found in trained.items() if run.method == method and run.keep == share}
    return dict(sorted(runs.items(), key=lambda item: item[0].seed))


def row_of(keep: float, runs: Mapping[Run, Trained], references: Mapping[str, Mapping[Run, Trained]]) -> dict[str, Any]:
    """The figures of one method with one share of annotated instances.

    Args:
        keep: the share.
        runs: its finished runs, at least one.
        references: those of the methods to compare with, by name.
    """
    method = next(iter(runs)).method
    row: dict[str, Any] = {
        "method": method.name,
        "trainer": method.trainer,
        "settings": dict(method.settings),
        "keep": keep,
        "seeds": [run.seed for run in runs],
        "lr": sorted({trained.lr for trained in runs.values()}),
        "median_training_seconds": median(trained.seconds for trained in runs.values()),
        "cases_without_distance": int(sum(np.isnan(column(trained.table, "assd")).sum() for trained in runs.values())),
        "measures": estimates(runs),
        "by_seed": {str(run.seed): _without_nan(pooled(trained.table)) for run, trained in runs.items()},
        "minus": {},
    }
    for name, others in references.items():
        by_seed = {run.seed: (run, trained) for run, trained in others.items()}
        common = {run: trained for run, trained in runs.items() if run.seed in by_seed}
        if name != method.name and common:
            partners = dict(by_seed[run.seed] for run in common)
            row["minus"][name] = {"seeds": [run.seed for run in common], **estimates(common, partners)}
    return row


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def collected(trained: Mapping[Run, Trained], pilots: Scores) -> dict[str, Any]:
    """The figures of what is finished, as plain data.

    Args:
        trained: the finished runs.
        pilots: Dice of the pilot's finished trainings, by family and learning rate.
    """
    rows = []
    for keep in KEEPS:
        if not any(run.keep == keep for run in trained):
            continue
        references = {method.name: finished_runs(trained, method, keep) for method in REFERENCES}
        for method in METHODS:
            if runs := finished_runs(trained, method, keep):
                rows.append(row_of(keep, runs, references))
    return {
        "origin": ORIGIN,
        "methods": DESCRIPTIONS,
        "pilot": pilot_content(pilots),
        "rows": rows,
        "finished_runs": [run.name for run in trained],
        "missing_runs": [run.name for run in planned_runs("full") if run not in trained],
        "missing": missing_lines(trained),
        "cases": {
            run.name: {
                case: _without_nan({name: float(value) for name, value in zip((*MEANS, *COUNTS), _shown_columns(row))})
                for case, row in zip(found.cases, found.table)
            }
            for run, found in trained.items()
        },
    }


def _shown_columns(row: Table) -> list[float]:
    return [*row[: len(MEANS)], *row[2 * len(MEANS) :]]


def missing_lines(trained: Mapping[Run, Trained]) -> list[str]:
    """What of the full grid is not finished: one line for each share with something missing."""
    lines = []
    for keep in (*KEEPS, DENSE):
        planned = [run for run in planned_runs("full") if run.keep == keep]
        missing = [run for run in planned if run not in trained]
        parts = []
        for method in METHODS:
            seeds = [run.seed for run in missing if run.method == method]
            if seeds:
                parts.append(f"{method.name} (seed {', '.join(map(str, seeds))})")
        if parts:
            what = "everything" if len(missing) == len(planned) else ", ".join(parts)
            lines.append(f"{share_name(keep)}: {what}")
    return lines


def share_name(keep: float) -> str:
    """``30 % of the lesions annotated``."""
    return f"{keep:.0%} of the lesions annotated".replace("%", " %", 1)


def cell(values: Mapping[str, float | None], name: str, *, signed: bool = False) -> str:
    """A figure with its interval for a table; lengths with fewer digits."""
    if values["value"] is None:
        return "none"
    return with_interval(
        {key: float(value or 0.0) for key, value in values.items()},
        signed=signed,
        digits=1 if name in ("assd", "hd95") else 3,
    )


def scope_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """What was run and what was not."""
    total = len(content["finished_runs"]) + len(content["missing_runs"])
    lines = [
        f"{ORIGIN}: 42 tiles of 64³ voxels (1 mm) from 6 FLAIR volumes of 4 patients with multiple sclerosis, 2 to 32 "
        "lesions in each. In every tile a part of the lesions, drawn at random and at least one, stays annotated; the "
        "others become background. Each seed has its own draw, its own initial weights and its own patient to be "
        f"tested: seed 0, 1, 2 the patients of fold 0, 1, 2 (seeds {', '.join(map(str, MORE_SEEDS))} of the full grid "
        "those of fold 0 and 1 again). All models are scored against **all** lesions of that patient.",
        "",
        f"Every training has {request['epochs']} epochs of {request['iterations']} steps, with preset `quick` "
        "(patches of 40³, network of 8 base features), AdamW, prediction without mirroring, device "
        f"{request['device']}; the weight of DBDMP's pseudo labels rises over a third of the epochs. The pre-training "
        f"has {request['pretraining_epochs']} such epochs on top.",
        "",
        *(f"- `{method.name}`: {DESCRIPTIONS[method.name]}" for method in METHODS),
        "",
        f"Finished: {len(content['finished_runs'])} of {total} trainings of the full grid ({len(METHODS)} methods, "
        f"{len(SEEDS)} seeds, {' and '.join(f'{100 * keep:.0f} %' for keep in KEEPS)} kept; two more seeds for "
        f"{' and '.join(f'`{method.name}`' for method in REFERENCES)}).",
    ]
    if content["missing"]:
        lines += ["", "Not run:", "", *(f"- {line}" for line in content["missing"])]
    lines += [
        "",
        "Three patients, a small network and short trainings: it shows how the methods compare here, at this number of "
        "steps; full-size networks and trainings of the paper's length were not run.",
    ]
    return lines


def tables_of(content: Mapping[str, Any], keep: float) -> list[str]:
    """The tables for one share; nothing if no run of it is finished."""
    rows = [row for row in content["rows"] if row["keep"] == keep]
    if not rows:
        return []
    header = ["", *TITLES.values(), "empty", "lr", "training", "seeds"]
    cells = [
        [
            row["method"],
            *(cell(row["measures"][name], name) for name in MEASURES),
            str(row["cases_without_distance"]),
            ", ".join(f"{lr:g}" for lr in row["lr"]),
            f"{row['median_training_seconds']:.0f} s",
            ", ".join(map(str, row["seeds"])),
        ]
        for row in rows
    ]
    lines = [f"## {share_name(keep)}", "", *markdown_table(header, cells), ""]
    for reference in REFERENCES:
        compared = [row for row in rows if reference.name in row["minus"]]
        if compared:
            cells = [
                [
                    row["method"],
                    *(cell(row["minus"][reference.name][name], name, signed=True) for name in MEASURES),
                    ", ".join(map(str, row["minus"][reference.name]["seeds"])),
                ]
                for row in compared
            ]
            lines += [f"Minus `{reference.name}`:", "", *markdown_table(["", *TITLES.values(), "seeds"], cells), ""]
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    cells = [[row["method"], *(_by_seed(row, str(seed)) for seed in seeds)] for row in rows]
    lines += [
        "Dice / lesion F1 of each seed:",
        "",
        *markdown_table(["", *(f"seed {seed}" for seed in seeds)], cells),
        "",
    ]
    return lines


def _by_seed(row: Mapping[str, Any], seed: str) -> str:
    values = row["by_seed"].get(seed)
    if values is None:
        return ""
    return " / ".join("none" if values[name] is None else f"{values[name]:.3f}" for name in ("dice", "f1"))


def result_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """The figures as Markdown."""
    tables = [line for keep in KEEPS for line in tables_of(content, keep)]
    return [
        "# Partially annotated instances: multiple sclerosis lesions",
        "",
        *scope_lines(content, request),
        "",
        *tables,
        "Every figure is the mean over the seeds. Dice, ASSD and HD95 are means over a seed's tiles; a tile without",
        "any predicted voxel has no distance and is counted under `empty`. Recall, precision and F1 are of all lesions",
        "of a seed's tiles together. In brackets: the 95 % bootstrap interval over the tiles of each seed's patient.",
        "Tiles of one patient are not independent, and there are three patients: the intervals say how far the figures",
        "depend on the tiles, not how they would be for other patients or other trainings. Differences are pairs of",
        "the same seed and tile; those of distances leave out tiles where one of the two has none. training: median,",
        "other load included, without the pre-training.",
        "",
        "## Choice of the learning rate",
        "",
        f"Dice against all lesions of the patient of fold {PILOT_FOLD}, who is tested in no run (but trained on in",
        "all), trained on the partial labels of the three others. All that learn by nnU-Net's loss share a rate, and",
        "all that learn by DBDMP's; the pre-training has the preset's.",
        "",
        *pilot_table(content["pilot"]),
        "",
    ]
