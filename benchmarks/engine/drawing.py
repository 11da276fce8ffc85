"""Figures of an experiment, drawn from its scores table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.engine.experiment import Experiment, Test, TradeOff
from benchmarks.engine.operating_points import mean_curve
from benchmarks.engine.statistics import Estimate, Figures
from nnunet_ext.files import written_whole

MARKERS = "osD^vPX<>*"
CURVES = "_precision_recall.png"
"""How the name of that figure ends."""


def draw_figures(experiment: Experiment, scores: pd.DataFrame, folder: Path) -> None:
    """Write what the experiment asks for; models that are not scored are left out.

    ``NAME.png``: a trade-off, a curve of each method with 95 % intervals. ``NAME_precision_recall.png``: of the tests
    with ``--thresholds``, precision against recall of each run, the means over its seeds.
    """
    if experiment.trade_off is not None:
        _save(trade_off_figure(experiment, experiment.trade_off, scores), folder / f"{experiment.name}.png")
    if tests := [test for test in experiment.tests if test.has_curve]:
        _save(curves_figure(experiment, tests, scores), folder / f"{experiment.name}{CURVES}")


def trade_off_figure(experiment: Experiment, asked: TradeOff, scores: pd.DataFrame) -> Figure:
    """What is kept on one test against what is gained on the other."""
    figures = Figures(scores)
    picture = Figure(figsize=(7, 5), layout="constrained")
    axes = picture.add_subplot(xlabel=f"{asked.metric}, {asked.gained}", ylabel=f"{asked.metric}, {asked.kept}")
    curves = {}
    for name, methods in asked.curves.items():
        runs = [experiment.run_of(method) for method in methods]
        found = [[figures.estimate(run, test, asked.metric) for test in (asked.gained, asked.kept)] for run in runs]
        points = [pair for pair in found if all(one.value == one.value for one in pair)]
        if points:
            curves[name] = points
    seeds = {name: len(points[-1][0].seeds) for name, points in curves.items()}
    for (name, points), marker in zip(curves.items(), MARKERS):
        shown = name if len({*seeds.values()}) == 1 else f"{name}, seeds: {seeds[name]}"
        across, upwards = zip(*points)
        x, y = ([one.value for one in axis] for axis in (across, upwards))
        (line,) = axes.plot(x, y, marker=marker, label=shown)
        axes.errorbar(x, y, xerr=_errors(across), yerr=_errors(upwards), fmt="none", ecolor=line.get_color(), alpha=0.3)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    return picture


def curves_figure(experiment: Experiment, tests: Sequence[Test], scores: pd.DataFrame) -> Figure:
    """Precision against recall at many thresholds, a panel for each test."""
    picture = Figure(figsize=(5.5 * len(tests), 5), layout="constrained")
    labels = dict.fromkeys(one.label for one in experiment.all_trainings())
    for number, test in enumerate(tests, start=1):
        wanted = {"xlim": (0, 1), "ylim": (0, 1), "title": f"{test.level}s, {test.name}"}
        axes = picture.add_subplot(1, len(tests), number, xlabel="recall", ylabel="precision", **wanted)
        for label in labels:
            curve = mean_curve(scores[(scores.run == label) & (scores.dataset == test.name)], test.level)
            if len(curve):
                axes.plot(curve.recall, curve.precision, marker=".", label=label)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    return picture


def _save(picture: Figure, file: Path) -> None:
    with written_whole(file) as temporary:
        picture.savefig(temporary, format="png", dpi=120)


def _errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Distances from figures to the ends of their intervals, as matplotlib takes them."""
    below, above = zip(*((one.value - one.low, one.high - one.value) for one in estimates))
    return [list(below), list(above)]
