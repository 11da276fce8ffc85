"""Charts over the epochs as inline SVG, whose colours follow the reader's light or dark scheme."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nnunet_ext.report.training import TrainingRecord

# one colour for each run: stand-ins that the page replaces by its own variables, light or dark
INK, GRID = "#010203", "#010204"
RUN_COLOURS = tuple(f"#0101{number:02x}" for number in range(6))

STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), GRID),
}

CHART_INCHES = (3.7, 2.5)
POINTS = 300  # of a line, at most: neighbouring epochs of a long training are averaged


@dataclass(frozen=True)
class Line:
    """One line of a chart: what it is called, one value per epoch, colour, line style and opacity of matplotlib."""

    name: str
    values: Sequence[float]
    colour: str
    style: str = "-"
    opacity: float = 1.0


def draw_chart(title: str, lines: Sequence[Line], *, limits: tuple[float, float] | None = None) -> Markup:
    """A line chart over epochs as inline SVG, its colours replaced by variables of the page.

    Args:
        title: what the vertical axis shows, for screen readers; the page prints it above the chart.
        lines: what to draw; NaN leaves a gap, a single value shows as a point.
        limits: of the vertical axis; None fits the values.
    """
    with _axes(CHART_INCHES) as (figure, axes):
        for line in lines:
            epochs, values = thinned(line.values)
            look: dict[str, Any] = {"linewidth": 1.6 if line.opacity == 1 else 0.9, "alpha": line.opacity}
            look["marker"] = "o" if np.isfinite(values).sum() == 1 else None
            axes.plot(epochs, values, color=line.colour, linestyle=line.style, **look)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(True, axis="y")
        if limits:
            axes.set_ylim(*limits)
        return _as_svg(figure, f"Line chart over epochs: {title}")


@contextmanager
def _axes(inches: tuple[float, float]) -> Iterator[tuple[Figure, Any]]:
    """A figure and its axes in the style of the page."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=inches, layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        yield figure, axes


def _as_svg(figure: Figure, label: str) -> Markup:
    """A figure as an element of the page: no prolog, no metadata, the page's colours and font."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    body = buffer.getvalue()
    body = body[body.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->\s*|\s+xmlns(:\w+)?=\"[^\"]*\"", "", body, flags=re.DOTALL)
    for size in ("width", "height"):
        body = re.sub(rf"(<svg[^>]*?) {size}=\"[^\"]*\"", r"\1", body, count=1)
    for number, colour in enumerate(RUN_COLOURS):
        body = body.replace(colour, f"var(--run{number})")
    body = body.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{Markup.escape(label)}"', 1))


def run_colour(number: int) -> str:
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def mean_curve(curves: Sequence[Sequence[float]]) -> list[float]:
    """The mean of several curves at each epoch that one of them has a value at; NaN at the others."""
    return [float(value) for value in pd.DataFrame(map(pd.Series, curves)).mean()]


def thinned(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Epochs and values of a curve; of a long one means over neighbouring epochs, at most `POINTS`."""
    width = -(-len(values) // POINTS) or 1
    curve = pd.DataFrame({"epoch": np.arange(len(values), dtype=float), "value": list(values)})
    means = curve.groupby(curve.index // width).mean()
    return means["epoch"].tolist(), means["value"].tolist()


def draw_charts(runs: Sequence[Sequence[TrainingRecord]]) -> list[dict[str, Any]]:
    """Charts of the loss, the pseudo Dice, and every term of a technique: title, note on how to read it, and SVG.

    A term is a key with a slash, such as ``loss/mixup``: nnU-Net's own keys have none. Of the shares that moved only
    that of all parameters has a chart; the others are in a table. Of a run with several trainings a strong line shows
    the mean, and faint ones show each.
    """

    def lines(key: str, style: str = "-", *, only_single: bool = False) -> list[Line]:
        drawn = []
        for number, trainings in enumerate(runs):
            curves = [one.curves[key] for one in trainings if np.isfinite(one.curves.get(key, [])).any()]
            several = len(curves) > 1
            if several and not only_single:
                drawn += [Line(key, curve, run_colour(number), style, opacity=0.25) for curve in curves]
            if curves and not (several and only_single):
                drawn.append(Line(key, mean_curve(curves), run_colour(number), style))
        return drawn

    patches = "random validation patches; solid: moving average, dotted: each epoch"
    wanted = [
        ("Loss", "solid: training, dashed: validation", lines("train_losses") + lines("val_losses", "--"), None),
        ("Pseudo Dice", patches, lines("ema_fg_dice") + lines("mean_fg_dice", ":", only_single=True), (0.0, 1.0)),
        ("Learning rate", "", lines("lrs"), None),
    ]
    terms = dict.fromkeys(key for trainings in runs for one in trainings for key in one.curves if "/" in key)
    shown = [term for term in sorted(terms) if not term.startswith("moved/") or term == "moved/all"]
    wanted += [(term, "", lines(term), None) for term in shown]
    return [
        {"title": title, "note": note, "svg": draw_chart(title, drawn, limits=limits)}
        for title, note, drawn, limits in wanted
        if drawn
    ]


def draw_strips(title: str, runs: Sequence[tuple[int, Sequence[float]]]) -> Markup:
    """A strip for each run, by number and values, with a point for each case and a bar at their median, as SVG."""
    with _axes((1.4 * CHART_INCHES[0], 0.5 + 0.3 * len(runs))) as (figure, axes):
        for row, (number, values) in enumerate(runs):
            # spread by a fixed pattern, so that the same report has the same picture
            offsets = (np.arange(len(values)) * 0.618034 % 1 - 0.5) * 0.6
            colour = run_colour(number)
            axes.plot(values, row + offsets, "o", color=colour, markersize=3.2, alpha=0.55, markeredgewidth=0)
            if len(values):
                axes.plot([np.median(values)] * 2, [row - 0.38, row + 0.38], color=colour, linewidth=2.2)
        axes.set_ylim(len(runs) - 0.5, -0.5)
        axes.set_yticks([])
        axes.grid(True, axis="x")
        return _as_svg(figure, f"A point for each case and run: {title}")
