"""The scores of a model as evaluation.json, evaluation.csv and text."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunet_ext.evaluation.lesions import LesionCounts
from nnunet_ext.evaluation.model_evaluation import Model
from nnunet_ext.evaluation.scoring import Metrics, Result
from nnunet_ext.evaluation.text_table import aligned
from nnunet_ext.files import write_json, written_whole
from nnunet_ext.version import __version__

RULE = (
    "A case where a label is in neither reference nor prediction has no Dice for it (null). It is left out of the "
    "label's mean and counted under cases_without_dice. foreground_mean is the mean of the labels' means."
)
SURFACE_RULE = (
    "ASSD and HD95 are in mm, or in pixels for images without a spacing. A case where a label is missing in reference "
    "or prediction has none for it (null) and is left out of the label's means, which are over cases_with_distance: "
    "read them beside Dice, which counts a missed label as 0. What is predicted on ignored voxels is taken away first."
)
LESION_RULE = (
    "The reference's instances are those of the maps under instances; without, and for labels that a map leaves out, "
    "connected components, as those of the prediction are. One of the reference is found if at least the share overlap "
    "of its voxels is predicted; a predicted one is right if at least that share of its voxels is in the reference. "
    "Ignored voxels do not count. Recall is null without an instance in the reference, precision without a predicted "
    "one, F1 without either; F1 is 0 if only one side has instances. A label's lesions are the sums over all cases, "
    "and the rates of these sums."
)
LESION_COLUMNS = ("reference", "found", "predicted", "right", "recall", "precision", "f1")

Score = Callable[[Result, str], float]
"""Takes the scores on a set of cases and a label's name."""

DISTANCES: dict[str, Score] = {
    "ASSD in mm": lambda result, label: result.mean_distances(label).assd,
    "HD95 in mm": lambda result, label: result.mean_distances(label).hd95,
}
LESION_RATES: dict[str, Score] = {
    "instance recall": lambda result, label: result.pooled_lesions(label).recall,
    "instance precision": lambda result, label: result.pooled_lesions(label).precision,
    "instance F1": lambda result, label: result.pooled_lesions(label).f1,
}


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _lesions(counts: LesionCounts) -> dict[str, float | None]:
    return {name: _or_null(getattr(counts, name)) for name in LESION_COLUMNS}


def _label_entry(result: Result, label: str) -> dict[str, Any]:
    """The scores of one label over the cases."""
    scores = result.dice[label]
    entry: dict[str, Any] = {
        "dice_mean": _or_null(scores.mean),
        "cases_with_dice": scores.count,
        "cases_without_dice": len(scores.dice) - scores.count,
    }
    if result.metrics.surface:
        means = result.mean_distances(label)
        entry["assd_mean"] = _or_null(means.assd)
        entry["hd95_mean"] = _or_null(means.hd95)
        entry["cases_with_distance"] = result.cases_with_distance(label)
    if result.metrics.lesions:
        entry["lesions"] = _lesions(result.pooled_lesions(label))
    return entry


def _by_case(result: Result, value: Callable[[str, str], Any]) -> dict[str, dict[str, Any]]:
    """Something of each case and label."""
    return {case: {label: value(case, label) for label in result.dice} for case in result.cases.cases}


def _result_entry(result: Result) -> dict[str, Any]:
    """The scores on one set of cases."""
    entry: dict[str, Any] = {"dataset": result.cases.dataset, "cases": result.cases.selection}
    if result.cases.references is not None:
        entry["references"] = result.cases.references
    if result.metrics.lesions:
        entry["instances"] = "components" if result.cases.instances is None else result.cases.instances.name
        entry["overlap"] = result.metrics.overlap
    entry |= {
        "number_of_cases": len(result.cases.cases),
        "foreground_mean": _or_null(result.foreground_mean),
        "labels": {label: _label_entry(result, label) for label in result.dice},
        "not_scored": {
            "only_in_model": list(result.labels.only_model),
            "only_in_dataset": list(result.labels.only_dataset),
        },
        "dice": _by_case(result, lambda case, label: _or_null(result.dice[label].dice[case])),
    }
    if result.metrics.surface:
        entry["assd"] = _by_case(result, lambda case, label: _or_null(result.surface[label][case].assd))
        entry["hd95"] = _by_case(result, lambda case, label: _or_null(result.surface[label][case].hd95))
    if result.metrics.lesions:
        entry["lesions"] = _by_case(result, lambda case, label: _lesions(result.lesions[label][case]))
    return entry


def _rule(metrics: Metrics) -> str:
    """How the scores are made, as far as they were asked for."""
    rules = [RULE]
    if metrics.surface:
        rules.append(SURFACE_RULE)
    if metrics.lesions:
        rules.append(LESION_RULE)
    return " ".join(rules)


def as_json(model: Model, results: Sequence[Result], *, mirroring: bool) -> dict[str, Any]:
    """The content of evaluation.json."""
    return {
        "model": model.folder.name,
        "trained_on": model.folder.resolve().parent.name,
        "folds": list(model.folds),
        "checkpoint": model.checkpoint,
        "mirroring": mirroring,
        "versions": {"nnunet_ext": __version__, "nnunetv2": metadata.version("nnunetv2")},
        "rule": _rule(results[0].metrics),
        "datasets": [_result_entry(result) for result in results],
    }


def _csv_row(result: Result, case: str, label: str) -> dict[str, str | int | float]:
    """One case and label; nothing where a score is undefined."""
    row: dict[str, str | int | float] = {
        "dataset": result.cases.dataset,
        "cases": result.cases.selection,
        "case": case,
        "label": label,
        "dice": result.dice[label].dice[case],
    }
    if result.metrics.surface:
        distances = result.surface[label][case]
        row |= {"assd": distances.assd, "hd95": distances.hd95}
    if result.metrics.lesions:
        counts = result.lesions[label][case]
        row |= {f"lesions_{name}": getattr(counts, name) for name in LESION_COLUMNS}
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


def write_results(out: Path, model: Model, results: Sequence[Result], *, mirroring: bool) -> None:
    """Write evaluation.json and evaluation.csv; the latter has an empty cell where a case has no score."""
    write_json(out / "evaluation.json", as_json(model, results, mirroring=mirroring))
    rows = [_csv_row(result, case, label) for result in results for case in result.cases.cases for label in result.dice]
    with written_whole(out / "evaluation.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def results_table(results: Sequence[Result]) -> str:
    """Scores as text: rows for each label's Dice and their mean, then for each other metric, a column for each set."""
    labels = dict.fromkeys(label for result in results for label in result.dice)
    rows = [["Dice", *(result.cases.name for result in results)]]
    rows.append(["cases", *(str(len(result.cases.cases)) for result in results)])

    def scores(label: str, value: Score) -> list[str]:
        return [_cell(value(result, label)) if label in result.dice else "-" for result in results]

    rows += [[label, *scores(label, lambda result, name: result.dice[name].mean)] for label in labels]
    rows.append(["mean", *(_cell(result.foreground_mean) for result in results)])
    metrics: dict[str, Score] = {}
    if results[0].metrics.surface:
        metrics |= DISTANCES
    if results[0].metrics.lesions:
        metrics |= LESION_RATES
    rows += [[f"{label}: {title}", *scores(label, value)] for title, value in metrics.items() for label in labels]
    return aligned(rows)


def _cell(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def remarks(result: Result) -> list[str]:
    """What the table does not show of one set of cases: labels that were not scored, and cases without a score."""
    lines = []
    name, total = result.cases.name, len(result.cases.cases)
    others = [f"{label} (only in the model)" for label in result.labels.only_model]
    others += [f"{label} (only in the dataset)" for label in result.labels.only_dataset]
    if others:
        lines.append(f"{name}: not scored: {', '.join(others)}")
    for label, scores in result.dice.items():
        if empty := total - scores.count:
            lines.append(
                f"{name}: {empty} of {total} cases have {label} in neither reference nor prediction and do not count "
                "in its mean"
            )
        if result.metrics.surface and (without := total - result.cases_with_distance(label)):
            lines.append(
                f"{name}: {without} of {total} cases lack {label} in reference or prediction and do not count in its "
                "ASSD and HD95"
            )
    return lines
