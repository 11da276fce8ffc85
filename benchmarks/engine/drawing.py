"""Figures of an experiment, drawn from its scores table."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from benchmarks.engine.experiment import Experiment
from benchmarks.engine.statistics import Estimate, Figures
from nnunet_ext.files import written_whole

MARKERS = "osD^vPX<>*"


def draw_trade_off(experiment: Experiment, scores: pd.DataFrame, folder: Path) -> None:
    """Write ``NAME.png``, where the experiment declares a trade-off: a curve of each method, with 95 % intervals.

    Models that are not scored are left out.
    """
    if experiment.trade_off is None:
        return
    asked, figures = experiment.trade_off, Figures(scores)
    picture = Figure(figsize=(7, 5), layout="constrained")
    axes = picture.add_subplot(xlabel=f"{asked.metric}, {asked.gained}", ylabel=f"{asked.metric}, {asked.kept}")
    for (name, methods), marker in zip(asked.curves.items(), MARKERS):
        runs = [experiment.run_of(method) for method in methods]
        found = [[figures.estimate(run, test, asked.metric) for test in (asked.gained, asked.kept)] for run in runs]
        points = [pair for pair in found if all(one.value == one.value for one in pair)]
        if not points:
            continue
        across, upwards = zip(*points)
        x, y = ([one.value for one in axis] for axis in (across, upwards))
        (line,) = axes.plot(x, y, marker=marker, label=name)
        axes.errorbar(x, y, xerr=_errors(across), yerr=_errors(upwards), fmt="none", ecolor=line.get_color(), alpha=0.3)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    with written_whole(folder / f"{experiment.name}.png") as temporary:
        picture.savefig(temporary, format="png", dpi=120)


def _errors(estimates: Sequence[Estimate]) -> list[list[float]]:
    """Distances from figures to the ends of their intervals, as matplotlib takes them."""
    below, above = zip(*((one.value - one.low, one.high - one.value) for one in estimates))
    return [list(below), list(above)]
