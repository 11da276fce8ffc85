"""Precision against recall over thresholds as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from nnunet_ext.evaluation.lesions import DetectionCounts
from nnunet_ext.evaluation.operating_points import Curve, best_threshold
from nnunet_ext.evaluation.scoring import Result
from nnunet_ext.files import written_whole

STYLE = {"text.parse_math": False, "font.size": 9, "figure.facecolor": "white", "axes.facecolor": "white"}
COLOURS = {"voxel": "#1f5fa8", "lesion": "#b8480e"}
COLUMNS = 4  # panels in a row
INCHES = 4.0
PIXELS_PER_INCH = 110
WRITING = (0.13, 0.045)  # width and height of a threshold, as shares of a panel


def draw_operating_points(file: Path, results: Sequence[Result]) -> None:
    """Write a PNG with a panel for each set of cases and label.

    A curve joins the operating points of ascending thresholds, which are written beside them where there is room. The
    best F1 has a ring, and nnU-Net's own decision is a diamond.

    Args:
        file: ends in .png; its folder must exist.
        results: the scores with operating points.
    """
    panels = [(result, label) for result in results for label in result.labels.keys]
    columns = min(COLUMNS, max(len(result.labels.keys) for result in results))
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
    points = result.points[label]
    written: list[tuple[float, float]] = []
    for level, curve in points.curves.items():
        _curve(ax, level, curve, written)
        if _is_defined(points.own[level]):
            place = (points.own[level].recall, points.own[level].precision)
            ax.plot(*place, "D", color=COLOURS[level], markersize=6, label=f"{level}s, nnU-Net's decision")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=7, loc="best", framealpha=0.8)
    else:
        ax.text(0.5, 0.5, "in no reference, or never predicted", ha="center", transform=ax.transAxes)


def _curve(ax: Any, level: str, curve: Curve, written: list[tuple[float, float]]) -> None:
    """Draw one curve; `written` are the places that have a threshold beside them already, and gets the new ones."""
    points = {
        threshold: (counts.recall, counts.precision) for threshold, counts in curve.items() if _is_defined(counts)
    }
    if not points:
        return
    colour = COLOURS[level]
    ax.plot(*zip(*points.values()), "-o", color=colour, markersize=3, linewidth=1.2, label=f"{level}s")
    best = best_threshold(curve)
    if best is not None:
        title = f"{level}s, best F1: {curve[best].f1:.3f} at {best:g}"
        ax.plot(*points[best], "o", color=colour, markersize=10, fillstyle="none", markeredgewidth=1.5, label=title)
    for threshold in sorted(points, key=lambda one: one != best):  # the best one first: it is always written
        place = points[threshold]
        if threshold == best or not any(_cover(place, other) for other in written):
            ax.annotate(f"{threshold:g}", place, (4, 4), textcoords="offset points", color=colour, fontsize=7)
            written.append(place)


def _cover(place: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether what is written at two places could not be read."""
    return all(abs(one - two) < size for one, two, size in zip(place, other, WRITING))


def _is_defined(counts: DetectionCounts) -> bool:
    """Whether there is both a recall and a precision."""
    return bool(counts.reference and counts.predicted)
