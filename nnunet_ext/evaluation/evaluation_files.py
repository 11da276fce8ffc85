"""The scores of a model as evaluation.json, evaluation.csv and text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from nnunet_ext.checkpoints.trained_model import TrainedModel
from nnunet_ext.evaluation.bootstrap import LEVEL, Interval
from nnunet_ext.evaluation.intervals import SEED
from nnunet_ext.evaluation.lesions import DetectionCounts
from nnunet_ext.evaluation.overlap import Overlap
from nnunet_ext.evaluation.scoring import Result
from nnunet_ext.evaluation.text_table import aligned
from nnunet_ext.files import write_csv, write_json
from nnunet_ext.version import __version__

RULE = (
    "A case where a label is in neither reference nor prediction has no Dice for it (null). It is left out of the "
    "label's mean and counted under cases_without_dice. foreground_mean is the mean of the labels' means. "
    "aggregated_dice of a label (DSCagg) is twice the volume that reference and prediction share, summed over all "
    "cases, by the sum of both their volumes. It is null if no case has the label in either, and "
    "foreground_aggregated_dice is the mean of the others. volumes are in cubic mm, for single slices in square mm, or "
    "in pixels for images without a spacing; ignored voxels do not count."
)
INTERVAL_RULE = (
    "intervals are 95 % percentile bootstrap intervals over patients: each resample draws as many patients as there "
    "are, with replacement and with all their cases, and computes the figures anew. One where a figure is undefined is "
    "left out, and a mean over labels is over those that it defines. Null if fewer than two patients count. With a few "
    "patients intervals are too narrow; what another training would give they do not tell."
)
SURFACE_RULE = (
    "ASSD and HD95 are in mm, or in pixels for images without a spacing. A case where a label is missing in reference "
    "or prediction has none for it (null) and is left out of the label's means, which are over cases_with_distance: "
    "read them beside Dice, which counts a missed label as 0. What is predicted on ignored voxels is taken away first."
)
NSD_RULE = (
    "NSD of a case, normalized surface Dice, is the share of the voxels at both surfaces that are at most the label's "
    "tolerance away from the other surface. tolerances are in mm, or in pixels for images without a spacing. Voxels "
    "are counted; implementations that weigh by area give other numbers. As with Dice, NSD is 0 if a label is in "
    "reference or prediction alone, and null if it is in neither: such a case is left out of nsd_mean, as of "
    "dice_mean. What is predicted on ignored voxels is taken away first."
)
LESION_RULE = (
    "The reference's instances are those of the maps under instances; without, and for labels that a map leaves out, "
    "connected components, as those of the prediction are. One of the reference is found if at least the share overlap "
    "of its voxels is predicted; a predicted one is right if at least that share of its voxels is in the reference. "
    "Ignored voxels do not count. Recall is null without an instance in the reference, precision without a predicted "
    "one, F1 without either; F1 is 0 if only one side has instances. A label's lesions are the sums over all cases, "
    "and the rates of these sums."
)
VOLUME_COLUMNS = ("reference", "predicted", "both")
LESION_COLUMNS = ("reference", "found", "predicted", "right", "recall", "precision", "f1")


@dataclass(frozen=True)
class Figure:
    """A figure of each label in the table.

    Attributes:
        title: how the table calls it.
        name: how its interval is called.
        value: takes the scores on a set of cases and a label's name.
    """

    title: str
    name: str
    value: Callable[[Result, str], float]


DICE = Figure("Dice", "dice_mean", lambda result, label: result.dice[label].mean)
AGGREGATED = Figure("aggregated Dice", "aggregated_dice", lambda result, label: result.aggregated_dice(label))
DISTANCES = (
    Figure("ASSD in mm", "assd_mean", lambda result, label: result.mean_distances(label).assd),
    Figure("HD95 in mm", "hd95_mean", lambda result, label: result.mean_distances(label).hd95),
)
NSD = Figure("NSD", "nsd_mean", lambda result, label: result.mean_nsd(label))
LESION_RATES = (
    Figure("instance recall", "lesions_recall", lambda result, label: result.pooled_lesions(label).recall),
    Figure("instance precision", "lesions_precision", lambda result, label: result.pooled_lesions(label).precision),
    Figure("instance F1", "lesions_f1", lambda result, label: result.pooled_lesions(label).f1),
)


def _or_null(value: float) -> float | None:
    return None if math.isnan(value) else value


def _intervals(intervals: Mapping[str, Interval | None]) -> dict[str, list[float] | None]:
    return {name: None if one is None else [one.low, one.high] for name, one in intervals.items()}


def _lesions(counts: DetectionCounts) -> dict[str, float | None]:
    return {name: _or_null(getattr(counts, name)) for name in LESION_COLUMNS}


def _volumes(overlap: Overlap) -> dict[str, float]:
    """In mm³."""
    return {name: getattr(overlap, name) * overlap.voxel_size for name in VOLUME_COLUMNS}


def _label_entry(result: Result, label: str) -> dict[str, Any]:
    """The scores of one label over the cases."""
    scores = result.dice[label]
    entry: dict[str, Any] = {
        "dice_mean": _or_null(scores.mean),
        "cases_with_dice": scores.count,
        "cases_without_dice": len(scores.dice) - scores.count,
        "aggregated_dice": _or_null(result.aggregated_dice(label)),
    }
    if result.metrics.surface:
        means = result.mean_distances(label)
        entry["assd_mean"] = _or_null(means.assd)
        entry["hd95_mean"] = _or_null(means.hd95)
        entry["cases_with_distance"] = result.cases_with_distance(label)
    if result.metrics.tolerances:
        entry["nsd_mean"] = _or_null(result.mean_nsd(label))
    if result.metrics.lesions:
        entry["lesions"] = _lesions(result.pooled_lesions(label))
    if result.intervals is not None:
        entry["intervals"] = _intervals(result.intervals.labels[label])
    return entry


def _by_case(result: Result, value: Callable[[str, str], Any]) -> dict[str, dict[str, Any]]:
    """Something of each case and label."""
    return {case: {label: value(case, label) for label in result.dice} for case in result.cases.cases}


def _result_entry(result: Result) -> dict[str, Any]:
    """The scores on one set of cases."""
    entry: dict[str, Any] = {"dataset": result.cases.dataset, "cases": result.cases.selection}
    if result.cases.references is not None:
        entry["references"] = result.cases.references
    if result.metrics.tolerances:
        entry["tolerances"] = {label: result.metrics.tolerances[label] for label in result.dice}
    if result.metrics.lesions:
        entry["instances"] = "components" if result.cases.instances is None else result.cases.instances.name
        entry["overlap"] = result.metrics.overlap
    entry["number_of_cases"] = len(result.cases.cases)
    if result.intervals is not None:
        entry["number_of_patients"] = result.intervals.number_of_patients
    entry["foreground_mean"] = _or_null(result.foreground_mean)
    entry["foreground_aggregated_dice"] = _or_null(result.foreground_aggregated_dice)
    if result.intervals is not None:
        entry["intervals"] = _intervals(result.intervals.means)
    entry |= {
        "labels": {label: _label_entry(result, label) for label in result.dice},
        "not_scored": {
            "only_in_model": list(result.labels.only_model),
            "only_in_dataset": list(result.labels.only_dataset),
        },
        "dice": _by_case(result, lambda case, label: _or_null(result.dice[label].dice[case])),
        "volumes": _by_case(result, lambda case, label: _volumes(result.overlaps[label][case])),
    }
    if result.metrics.surface:
        entry["assd"] = _by_case(result, lambda case, label: _or_null(result.surface[label][case].assd))
        entry["hd95"] = _by_case(result, lambda case, label: _or_null(result.surface[label][case].hd95))
    if result.metrics.tolerances:
        entry["nsd"] = _by_case(result, lambda case, label: _or_null(result.nsd[label][case]))
    if result.metrics.lesions:
        entry["lesions"] = _by_case(result, lambda case, label: _lesions(result.lesions[label][case]))
    return entry


def _rule(result: Result) -> str:
    """How the scores are made, as far as they were asked for."""
    rules = [RULE]
    if result.intervals is not None:
        rules.append(INTERVAL_RULE)
    if result.metrics.surface:
        rules.append(SURFACE_RULE)
    if result.metrics.tolerances:
        rules.append(NSD_RULE)
    if result.metrics.lesions:
        rules.append(LESION_RULE)
    return " ".join(rules)


def as_json(model: TrainedModel, results: Sequence[Result], *, mirroring: bool) -> dict[str, Any]:
    """The content of evaluation.json."""
    intervals = results[0].intervals
    bootstrap = None if intervals is None else {"resamples": intervals.resamples, "seed": SEED, "level": LEVEL}
    return {
        "model": model.folder.name,
        "trained_on": model.folder.resolve().parent.name,
        "folds": list(model.folds),
        "checkpoint": model.checkpoint,
        "mirroring": mirroring,
        "versions": {"nnunet_ext": __version__, "nnunetv2": metadata.version("nnunetv2")},
        "rule": _rule(results[0]),
        **({} if bootstrap is None else {"bootstrap": bootstrap}),
        "datasets": [_result_entry(result) for result in results],
    }


def _csv_row(result: Result, case: str, label: str, *, references: bool) -> dict[str, str | int | float]:
    """One case and label, with the folder of the references if asked; NaN where a score is undefined."""
    row: dict[str, str | int | float] = {
        "dataset": result.cases.dataset,
        "cases": result.cases.selection,
        **({"references": result.cases.references or ""} if references else {}),
        "case": case,
        **({} if result.intervals is None else {"patient": result.intervals.patients[case]}),
        "label": label,
        "dice": result.dice[label].dice[case],
        **{f"volume_{name}": volume for name, volume in _volumes(result.overlaps[label][case]).items()},
    }
    if result.metrics.surface:
        distances = result.surface[label][case]
        row |= {"assd": distances.assd, "hd95": distances.hd95}
    if result.metrics.tolerances:
        row["nsd"] = result.nsd[label][case]
    if result.metrics.lesions:
        counts = result.lesions[label][case]
        row |= {f"lesions_{name}": getattr(counts, name) for name in LESION_COLUMNS}
    return row


def write_results(out: Path, model: TrainedModel, results: Sequence[Result], *, mirroring: bool) -> None:
    """Write evaluation.json and evaluation.csv; the latter has an empty cell where a case has no score."""
    write_json(out / "evaluation.json", as_json(model, results, mirroring=mirroring))
    several = len({result.cases.references for result in results}) > 1
    rows = [
        _csv_row(result, case, label, references=several)
        for result in results
        for case in result.cases.cases
        for label in result.dice
    ]
    write_csv(out / "evaluation.csv", rows)


def results_table(results: Sequence[Result]) -> str:
    """Scores as text: rows for each label's Dice and their mean, then for each other metric, a column for each set.

    A score has its interval, if there is one, in brackets.
    """
    labels = dict.fromkeys(label for result in results for label in result.dice)

    def scores(figure: Figure, label: str) -> list[str]:
        return [_label_cell(result, figure, label) if label in result.dice else "-" for result in results]

    def means(name: str, value: Callable[[Result], float]) -> list[str]:
        return [_cell(value(one), None if one.intervals is None else one.intervals.means[name]) for one in results]

    rows = [[DICE.title, *(result.cases.title for result in results)]]
    rows.append(["cases", *(str(len(result.cases.cases)) for result in results)])
    rows += [[label, *scores(DICE, label)] for label in labels]
    rows.append(["mean", *means("foreground_mean", lambda result: result.foreground_mean)])
    rows += [[f"{label}: {AGGREGATED.title}", *scores(AGGREGATED, label)] for label in labels]
    mean = means("foreground_aggregated_dice", lambda result: result.foreground_aggregated_dice)
    rows.append([f"mean: {AGGREGATED.title}", *mean])
    asked = results[0].metrics
    for figure in DISTANCES if asked.surface else ():
        rows += [[f"{label}: {figure.title}", *scores(figure, label)] for label in labels]
    if asked.tolerances:
        rows += [[f"{label}: {NSD.title} at {asked.tolerances[label]:g} mm", *scores(NSD, label)] for label in labels]
    for figure in LESION_RATES if asked.lesions else ():
        rows += [[f"{label}: {figure.title}", *scores(figure, label)] for label in labels]
    return aligned(rows)


def _label_cell(result: Result, figure: Figure, label: str) -> str:
    interval = None if result.intervals is None else result.intervals.labels[label][figure.name]
    return _cell(figure.value(result, label), interval)


def _cell(value: float, interval: Interval | None) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.3f}" if interval is None else f"{value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def remarks(result: Result) -> list[str]:
    """What the table does not show of one set of cases: labels that were not scored, and cases without a score."""
    lines = []
    name, total = result.cases.title, len(result.cases.cases)
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
    return lines + _remarks_on_aggregated_dice(result) + _remarks_on_intervals(result)


def _remarks_on_aggregated_dice(result: Result) -> list[str]:
    """Which labels have none."""
    absent = [label for label in result.overlaps if math.isnan(result.aggregated_dice(label))]
    if not absent:
        return []
    return [f"{result.cases.title}: no case has {', '.join(absent)}: not in the mean of aggregated Dice"]


def _remarks_on_intervals(result: Result) -> list[str]:
    """What is in brackets, and where there is nothing."""
    if result.intervals is None:
        return []
    name, patients = result.cases.title, result.intervals.number_of_patients
    if patients == 1:
        return [f"{name}: all cases are of one patient, so there are no intervals"]
    lines = [f"{name}: in brackets {100 * LEVEL:.0f} % bootstrap intervals over {patients} patients"]
    for label in result.dice:
        if not math.isnan(result.aggregated_dice(label)) and result.intervals.labels[label][AGGREGATED.name] is None:
            lines.append(f"{name}: only one patient has {label}, so it has no interval")
    return lines
