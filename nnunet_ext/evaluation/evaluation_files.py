"""The scores as evaluation.json, tables and text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ext.checkpoints.trained_model import TrainedModel, folds_of
from nnunet_ext.evaluation.bootstrap import LEVEL, SEED, Estimate, Interval
from nnunet_ext.evaluation.largest_component import PIECES
from nnunet_ext.evaluation.metrics import (
    AGGREGATED_DICE,
    DICE,
    LESIONS_RECALL,
    NSD,
    VOLUME_PREDICTED,
    VOLUME_REFERENCE,
    Metric,
)
from nnunet_ext.evaluation.scores_table import SCORES, wide_table, without_formulas, write_scores
from nnunet_ext.evaluation.scoring import Result
from nnunet_ext.files import write_json, write_text
from nnunet_ext.messages import aligned, some
from nnunet_ext.nnunet_names import FINAL
from nnunet_ext.preprocessing.raw.instances import COMPONENTS
from nnunet_ext.version import __version__

JSON, CSV = "evaluation.json", "evaluation.csv"
INTERVAL_RULE = (
    "intervals are 95 % percentile bootstrap intervals over patients. Each resample draws as many patients as there "
    "are, with replacement and with all their cases, and computes the figures anew. Resamples in which a figure is "
    "undefined are left out. A mean over labels is over those that the resample defines. An interval is null if fewer "
    "than two patients count. With few patients intervals are too narrow. They do not show what another training would "
    "give."
)


def _plain(value: Any) -> Any:
    """What JSON can hold: undefined numbers are null, intervals are lists."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Interval):
        return [value.low, value.high]
    return None if isinstance(value, float) and math.isnan(value) else value


def _lesions(result: Result) -> dict[Any, dict[str, dict[str, Any]]]:
    """Counts and rates of instances, of each case and label and (under the case None) of all cases."""
    cases, labels = (*result.cases.cases, None), list(result.labels.keys)
    entries: dict[Any, dict[str, dict[str, Any]]] = {case: {label: {} for label in labels} for case in cases}
    for metric in (one for one in result.options.figures if one.group == LESIONS_RECALL.group):
        parts = result.parts[metric.name]
        for case, row in zip(cases, [*parts, parts.sum(axis=0)]):
            for label, sums in zip(labels, row):
                entries[case][label] |= dict(zip(metric.parts or (), map(int, sums[0])))
                entries[case][label][metric.name.removeprefix("lesions_")] = float(metric.aggregate(sums))
    return entries


def _volumes(result: Result) -> dict[str, dict[str, dict[str, float]]]:
    """By case and label, in mm³."""
    metrics = {"reference": VOLUME_REFERENCE, "predicted": VOLUME_PREDICTED, "both": AGGREGATED_DICE}
    numerators = np.stack([result.parts[metric.name][:, :, 0, 0] for metric in metrics.values()], axis=-1)
    numerators /= [1, 1, 2]  # the numerator of Dice is twice the shared volume
    numerators[result.parts[VOLUME_REFERENCE.name][:, :, 0, 1] == 0] = math.nan  # not annotated
    return {
        case: {label: dict(zip(metrics, volumes)) for label, volumes in zip(result.labels.keys, row)}
        for case, row in zip(result.cases.cases, numerators.tolist())
    }


def _label_entry(result: Result, label: str, lesions: Mapping[Any, Any] | None) -> dict[str, Any]:
    """The figures of one label over the cases."""
    entry: dict[str, Any] = {}
    estimates = result.estimates[label]
    for metric in result.options.figures:
        if metric.group != LESIONS_RECALL.group:
            entry[metric.figure] = estimates[metric.name].value
        if metric.counted:
            entry[f"cases_with_{metric.counted}"] = result.count(metric, label)
    entry["cases_without_dice"] = result.annotated[label] - entry["cases_with_dice"]
    if result.annotated[label] < len(result.cases.cases):
        entry["cases_not_annotated"] = len(result.cases.cases) - result.annotated[label]
    if lesions is not None:
        entry["lesions"] = lesions[None][label]
    if result.resamples:
        entry["intervals"] = {one.figure: estimates[one.name].interval for one in result.options.figures}
    return entry


def _result_entry(result: Result) -> dict[str, Any]:
    """The scores on one set of cases."""
    options, groups = result.options, result.options.groups
    lesions = _lesions(result) if options.lesions else None
    entry: dict[str, Any] = {"dataset": result.cases.dataset, "cases": result.cases.selection}
    if result.cases.references is not None:
        entry["references"] = result.cases.references
    if options.threshold is not None:
        entry["threshold"] = options.threshold
    if options.largest_component is not None:
        entry["largest_component"] = options.largest_component
    if NSD.group in groups:
        entry["tolerances"] = {label: options.tolerances[label] for label in result.labels.keys}
    if options.lesions:
        entry["instances"] = COMPONENTS if result.cases.instances is None else result.cases.instances.name
        entry["overlap"] = options.overlap
    entry["number_of_cases"] = len(result.cases.cases)
    if result.resamples:
        entry["number_of_patients"] = result.resampling.number_of_patients
    means = {metric.mean: result.means[metric.name] for metric in options.figures if metric.mean}
    entry |= {name: estimate.value for name, estimate in means.items()}
    if result.resamples:
        entry["intervals"] = {name: estimate.interval for name, estimate in means.items()}
    entry["labels"] = {label: _label_entry(result, label, lesions) for label in result.labels.keys}
    entry["not_scored"] = {
        "only_in_model": list(result.labels.only_model),
        "only_in_dataset": list(result.labels.only_dataset),
    }
    entry |= {metric.name: result.values(metric) for metric in options.figures if metric.of_cases}
    entry["volumes"] = _volumes(result)
    if lesions is not None:
        entry["lesions"] = {case: by_label for case, by_label in lesions.items() if case is not None}
    return entry


def origin_of_model(model: TrainedModel, *, mirroring: bool) -> dict[str, Any]:
    """What evaluation.json says about predictions of a model."""
    return {
        "model": model.folder.name,
        "trained_on": model.trained_on,
        "folds": list(model.folds),
        "checkpoint": model.checkpoint,
        "mirroring": mirroring,
    }


def remark_on_folds(model: TrainedModel) -> list[str]:
    """Which folds predicted, if the model has others that are trained; nothing if all of them did."""
    others = [fold for fold in folds_of(model.folder, FINAL) if fold not in model.folds]
    if not others:
        return []
    used = f"fold {model.folds[0]} alone" if len(model.folds) == 1 else f"folds {_listed(model.folds)}"
    return [f"Predicted by {used}. Trained folds that took no part: {_listed(others)}."]


def _listed(folds: Sequence[int | str]) -> str:
    return ", ".join(map(str, folds))


def as_json(origin: Mapping[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """The content of evaluation.json."""
    first = results[0]
    rules = dict.fromkeys(metric.rule for metric in first.options.figures)
    bootstrap = {"bootstrap": {"resamples": first.resamples, "seed": SEED, "level": LEVEL}} if first.resamples else {}
    return {
        **origin,
        "versions": {"nnunet_ext": __version__, "nnunetv2": metadata.version("nnunetv2")},
        "rule": " ".join([*rules, *([INTERVAL_RULE] if first.resamples else [])]),
        **bootstrap,
        "datasets": [_plain(_result_entry(result)) for result in results],
    }


def scores_table(run: str, results: Sequence[Result]) -> pd.DataFrame:
    """The scores on all sets of cases as one table; `run` is what the predictions are called in it."""
    return pd.concat(
        result.scores.assign(
            run=run,
            seed="",
            dataset=result.cases.name,
            references=result.cases.references or "",
            patient=result.scores["case"].map(dict(result.resampling.patients)),
        )
        for result in results
    )


def write_results(out: Path, origin: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Write the scores table, evaluation.csv for spreadsheets, and evaluation.json, into an existing folder.

    `origin` says where the predictions come from: `origin_of_model`, or their folder as ``predictions``.
    """
    run = str(origin.get("model") or Path(origin["predictions"]).name)
    scores = scores_table(run, results)
    write_scores(out / SCORES, scores)
    write_text(out / CSV, without_formulas(wide_table(scores)).to_csv(index=False, lineterminator="\n"))
    write_json(out / JSON, as_json(origin, results))


def results_table(results: Sequence[Result]) -> str:
    """Scores as text: rows for each label's Dice and their mean, then for each other metric, a column for each set.

    A score has its interval, if there is one, in brackets.
    """
    options = results[0].options
    rows = [[DICE.title, *(result.cases.title for result in results)]]
    rows.append(["cases", *(str(len(result.cases.cases)) for result in results)])
    for label in dict.fromkeys(label for result in results for label in not_annotated(result)):
        rows.append([f"cases annotated for {label}", *(str(result.annotated.get(label, "-")) for result in results)])
    for metric in options.figures:
        for label in dict.fromkeys(label for result in results for label in result.labels.keys):
            tolerance = f" at {options.tolerances[label]:g} mm" if metric is NSD else ""
            estimates = (result.estimates.get(label, {}).get(metric.name) for result in results)
            rows.append([_row_title(label, metric) + tolerance, *map(_cell, estimates)])
        if metric.mean:
            rows.append([_row_title("mean", metric), *(_cell(result.means[metric.name]) for result in results)])
    return aligned(rows)


def not_annotated(result: Result) -> list[str]:
    """The labels that some cases were not annotated for."""
    return [label for label, number in result.annotated.items() if number < len(result.cases.cases)]


def _row_title(row: str, metric: Metric) -> str:
    return row if metric is DICE else f"{row}: {metric.heading()}"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or math.isnan(estimate.value):
        return "-"
    interval = estimate.interval
    return f"{estimate.value:.3f}" + ("" if interval is None else f" [{interval.low:.3f}, {interval.high:.3f}]")


def remarks(result: Result) -> list[str]:
    """What the table does not show of one set of cases: labels that were not scored, cases without a score."""
    name, total, threshold = result.cases.title, len(result.cases.cases), result.options.threshold
    others = [f"{label} (only in the model)" for label in result.labels.only_model]
    others += [f"{label} (only in the dataset)" for label in result.labels.only_dataset]
    lines = [f"{name}: not scored: {', '.join(others)}"] if others else []
    if result.misplaced:
        case, difference = next(iter(result.misplaced.items()))
        lines.append(
            f"{name}: {len(result.misplaced)} of {total} predictions do not lie where their references do. They are "
            f"compared voxel by voxel, with the prediction's spacing. {case}: {difference}"
        )
    if result.unlisted:
        lines.append(
            f"{name}: {len(result.unlisted)} of {total} cases have values that are no label's by dataset.json. They "
            f"count as background. {next(iter(result.unlisted.values()))}"
        )
    if threshold is not None:
        lines.append(f"{name}: a label is every voxel whose probability is at least {threshold:g}")
    if (piece := result.options.largest_component) is not None:
        lines.append(f"{name}: scored is the largest connected component of {PIECES[piece]} alone")
    if partial := not_annotated(result):
        lines.append(f"{name}: a case is scored only for labels that it was annotated for: not all for {some(partial)}")
    for label in result.labels.keys:
        for metric in result.options.figures:
            if metric.uncounted and (without := result.annotated[label] - result.count(metric, label)):
                lines.append(f"{name}: {without} of {total} cases {metric.uncounted.format(label=label)}")
    aggregated = {label: one[AGGREGATED_DICE.name] for label, one in result.estimates.items()}
    if absent := [label for label, one in aggregated.items() if math.isnan(one.value)]:
        lines.append(f"{name}: no case has {', '.join(absent)}: not in the mean of aggregated Dice")
    patients = result.resampling.number_of_patients
    if result.resamples and patients == 1:
        lines.append(f"{name}: all cases are of one patient, so there are no intervals")
    elif result.resamples:
        lines.append(f"{name}: in brackets {100 * LEVEL:.0f} % bootstrap intervals over {patients} patients")
        single = [label for label, one in aggregated.items() if label not in absent and one.interval is None]
        lines += [f"{name}: only one patient has {label}, so it has no interval" for label in single]
    return lines
