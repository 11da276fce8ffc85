"""Precision, recall and F1 at many thresholds of the probability: as an evaluation writes them, and in a scores table.

In a scores table they are of no case and no label, with metrics such as ``lesion recall at 0.1``: what was found of a
model's cases, over what there is.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

POINTS = "operating_points.csv"  # name of an evaluation's file
PARTS = {"recall": ("found", "reference"), "precision": ("right", "predicted")}
NAME = r"^(?P<level>\w+) (?P<rate>recall|precision) at (?P<threshold>.+)$"


def read_points(folder: Path) -> pd.DataFrame:
    """The points of an evaluation with ``--thresholds``; nnU-Net's own decision, which has none, is not among them."""
    points = pd.read_csv(folder / POINTS)
    return points[points.threshold.notna()]


def rows_of_points(points: pd.DataFrame) -> pd.DataFrame:
    """Their rows in a scores table."""
    at = points.level + " {} at " + points.threshold.map("{:g}".format)
    rows = [
        pd.DataFrame({"metric": at.str.replace("{}", rate), "numerator": points[part], "denominator": points[whole]})
        for rate, (part, whole) in PARTS.items()
    ]
    of_no_case = dict.fromkeys(("references", "case", "patient", "label"), "")
    return pd.concat(rows, ignore_index=True).assign(**of_no_case)


def mean_curve(scores: pd.DataFrame, level: str) -> pd.DataFrame:
    """Recall, precision and F1 at each threshold, the means over the seeds.

    Where a seed predicts nothing, its F1 counts as 0, and it has no precision: the mean is over the others.

    Args:
        scores: those of one run on one test.
        level: ``voxel`` or ``lesion``.
    """
    named = scores.join(scores.metric.str.extract(NAME))
    named = named[named.level == level]
    named = named.assign(threshold=named.threshold.astype(float), value=named.numerator / named.denominator)
    rates = named.pivot(index=["seed", "threshold"], columns="rate", values="value").reindex(columns=list(PARTS))
    rates["f1"] = (2 * rates.recall * rates.precision / (rates.recall + rates.precision)).fillna(0.0)
    return rates.groupby("threshold").mean().reset_index()
