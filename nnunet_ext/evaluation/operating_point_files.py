"""Precision against recall over thresholds as operating_points.csv, as a picture and as text."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nnunet_ext.evaluation.operating_points import COUNTS, best_point
from nnunet_ext.evaluation.scoring import Result
from nnunet_ext.files import write_text, written_whole
from nnunet_ext.messages import aligned

RATES = ("precision", "recall", "f1")
COLUMNS = ["dataset", "cases", "references", "label", "threshold", "level", *RATES, *COUNTS]
OPTIMISTIC = (
    "A threshold that is chosen on the cases that it is scored on looks better than it is. Choose it on validation "
    "cases, and report its scores on others."
)

STYLE = {"text.parse_math": False, "font.size": 9, "figure.facecolor": "white", "axes.facecolor": "white"}
COLOURS = {"voxel": "#1f5fa8", "lesion": "#b8480e"}
PANELS = 4  # in a row
INCHES = 4.0
PIXELS_PER_INCH = 110
WRITING = (0.13, 0.045)  # width and height of a threshold, as shares of a panel


def write_operating_points(file: Path, results: Sequence[Result]) -> None:
    """Write a CSV with a row for each set of cases, label, level and threshold; an undefined rate is an empty cell."""
    table = pd.concat(
        curve.assign(
            dataset=result.cases.dataset,
            cases=result.cases.selection,
            references=result.cases.references or "",
            label=label,
        )
        for result in results
        for label, _, curve, _ in _curves(result)
    )
    write_text(file, table.to_csv(columns=COLUMNS, index=False, lineterminator="\n"))


def _curves(result: Result) -> Iterator[tuple[str, str, pd.DataFrame, pd.Series]]:
    """For each label and level the points of ascending thresholds, and that of nnU-Net's own decision."""
    for label in result.labels.keys:
        for level, points in result.points[label].groupby("level", sort=False):
            yield label, str(level), points[:-1], points.iloc[-1]


def operating_points_table(result: Result) -> str:
    """The best threshold of each label by F1, with its precision and recall, above those of nnU-Net's decision."""
    rows = [[result.cases.title, "threshold", "precision", "recall", "F1"]]
    for label, level, curve, own in _curves(result):
        best = best_point(curve)
        found = ["-"] * 4 if best is None else [f"{best['threshold']:g}", *_rates(best)]
        rows.append([f"{label}, {level}s: best F1", *found])
        rows.append([f"{label}, {level}s: nnU-Net's decision", "-", *_rates(own)])
    return aligned(rows)


def _rates(point: pd.Series) -> list[str]:
    return ["-" if math.isnan(value) else f"{value:.3f}" for value in point[list(RATES)]]


def remarks_on_operating_points(result: Result) -> list[str]:
    """Where no threshold is the best, and where a better one may lie beyond those that were tried."""
    name, tried = result.cases.title, result.options.thresholds
    lines = []
    for label, level, curve, _ in _curves(result):
        best = best_point(curve)
        if best is None:
            lines.append(f"{name}: no threshold is the best of {label} in {level}s, as F1 is 0 or undefined")
        elif len(tried) > 1 and best["threshold"] in (tried[0], tried[-1]) and not _is_level(curve, best):
            end, beyond = ("lowest", "lower") if best["threshold"] == tried[0] else ("highest", "higher")
            lines.append(f"{name}: for {label} in {level}s the {end} threshold is the best: try {beyond} ones")
    return lines


def _is_level(curve: pd.DataFrame, best: pd.Series) -> bool:
    """Whether the best F1 is also that of another threshold, or 1, so that none beyond is likely to be better."""
    return bool(best["f1"] >= 1 or (curve["f1"] == best["f1"]).sum() > 1)


def draw_operating_points(file: Path, results: Sequence[Result]) -> None:
    """Write a PNG, in a folder that exists, with a panel for each set of cases and label.

    A curve joins the operating points of ascending thresholds, which are written beside them where there is room. The
    best F1 has a ring, and nnU-Net's own decision is a diamond.
    """
    panels = [(result, label) for result in results for label in result.labels.keys]
    columns = min(PANELS, max(len(result.labels.keys) for result in results))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(INCHES * columns, INCHES * rows), dpi=PIXELS_PER_INCH, layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, (result, label) in zip(axes, panels):
            _panel(ax, result, label)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        with written_whole(file) as temporary:
            figure.savefig(temporary, format="png")


def _panel(ax: Any, result: Result, label: str) -> None:
    ax.set_title(f"{label}\n{result.cases.title}", fontsize=9)
    ax.set(xlabel="recall", ylabel="precision", xlim=(-0.03, 1.06), ylim=(-0.03, 1.06), aspect="equal")
    ax.grid(True, color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    written: list[tuple[float, float]] = []
    for level, curve, own in [drawn for of_label, *drawn in _curves(result) if of_label == label]:
        _curve(ax, level, curve.dropna(), written)
        if own["reference"] and own["predicted"]:
            place = (own["recall"], own["precision"])
            ax.plot(*place, "D", color=COLOURS[level], markersize=6, label=f"{level}s, nnU-Net's decision")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7, loc="best", framealpha=0.8)
    else:
        ax.text(0.5, 0.5, "in no reference, or never predicted", ha="center", transform=ax.transAxes)


def _curve(ax: Any, level: str, curve: pd.DataFrame, written: list[tuple[float, float]]) -> None:
    """Draw one curve; `written` are the places that have a threshold beside them already, and gets the new ones."""
    if curve.empty:
        return
    points = {threshold: tuple(place) for threshold, *place in curve[["threshold", "recall", "precision"]].to_numpy()}
    colour, best, row = COLOURS[level], None, best_point(curve)
    ax.plot(*zip(*points.values()), "-o", color=colour, markersize=3, linewidth=1.2, label=f"{level}s")
    if row is not None:
        best = row["threshold"]
        title = f"{level}s, best F1: {row['f1']:.3f} at {best:g}"
        ax.plot(*points[best], "o", color=colour, markersize=10, fillstyle="none", markeredgewidth=1.5, label=title)
    for threshold, place in sorted(points.items(), key=lambda one: one[0] != best):  # the best: it is always written
        distances = np.abs(np.array(written).reshape(-1, 2) - place)
        if threshold == best or not (distances < WRITING).all(axis=1).any():
            ax.annotate(f"{threshold:g}", place, (4, 4), textcoords="offset points", color=colour, fontsize=7)
            written.append(place)
