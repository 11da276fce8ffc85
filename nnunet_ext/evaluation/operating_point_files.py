"""Precision against recall over thresholds as operating_points.csv and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from nnunet_ext.evaluation.lesions import DetectionCounts
from nnunet_ext.evaluation.operating_points import best_threshold
from nnunet_ext.evaluation.scoring import Result
from nnunet_ext.evaluation.text_table import aligned
from nnunet_ext.files import write_csv

COUNTS = ("reference", "found", "predicted", "right")
RATES = ("precision", "recall", "f1")
OPTIMISTIC = (
    "A threshold that is chosen on the cases that it is scored on looks better than it is. Choose it on validation "
    "cases, and report its scores on others."
)


def write_operating_points(file: Path, results: Sequence[Result]) -> None:
    """Write a CSV with a row for each set of cases, label, level and threshold; an undefined rate is an empty cell."""
    rows = [
        {
            "dataset": result.cases.dataset,
            "cases": result.cases.selection,
            "references": result.cases.references or "",
            "label": label,
            "threshold": threshold,
            "level": level,
            **{name: getattr(counts, name) for name in (*RATES, *COUNTS)},
        }
        for result in results
        for label in result.labels.keys
        for level, curve in result.points[label].curves.items()
        for threshold, counts in curve.items()
    ]
    write_csv(file, rows)


def operating_points_table(result: Result) -> str:
    """The best threshold of each label by F1, with its precision and recall, above those of nnU-Net's decision."""
    rows = [[result.cases.title, "threshold", "precision", "recall", "F1"]]
    for label in result.labels.keys:
        points = result.points[label]
        for level, curve in points.curves.items():
            best = best_threshold(curve)
            found = ["-"] * 4 if best is None else [f"{best:g}", *_rates(curve[best])]
            rows.append([f"{label}, {level}s: best F1", *found])
            rows.append([f"{label}, {level}s: nnU-Net's decision", "-", *_rates(points.own[level])])
    return aligned(rows)


def _rates(counts: DetectionCounts) -> list[str]:
    values = (getattr(counts, name) for name in RATES)
    return ["-" if math.isnan(value) else f"{value:.3f}" for value in values]


def remarks_on_operating_points(result: Result) -> list[str]:
    """Where no threshold is the best, and where a better one may lie beyond those that were tried."""
    name, tried = result.cases.title, result.options.thresholds
    lines = []
    for label in result.labels.keys:
        for level, curve in result.points[label].curves.items():
            best = best_threshold(curve)
            if best is None:
                lines.append(f"{name}: no threshold is the best of {label} in {level}s, as F1 is 0 or undefined")
            elif len(tried) > 1 and best in (tried[0], tried[-1]):
                end, beyond = ("lowest", "lower") if best == tried[0] else ("highest", "higher")
                lines.append(f"{name}: for {label} in {level}s the {end} threshold is the best: try {beyond} ones")
    return lines
