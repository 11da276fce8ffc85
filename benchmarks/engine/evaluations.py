"""Scores of an experiment: from what ``nnunet_ext evaluate`` writes to the table of all runs, compressed as CSV."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd

from nnunet_ext.evaluation.scores_table import COLUMNS, read_scores
from nnunet_ext.files import written_whole

DIGITS = 6
VALUES = ("dice", "assd", "hd95", "nsd")
RATIOS = {
    "aggregated_dice": (lambda row: 2 * row.volume_both, lambda row: row.volume_reference + row.volume_predicted),
    "lesions_recall": (lambda row: row.lesions_found, lambda row: row.lesions_reference),
    "lesions_precision": (lambda row: row.lesions_right, lambda row: row.lesions_predicted),
}


def read_evaluation(folder: Path) -> pd.DataFrame:
    """What ``nnunet_ext evaluate`` found, in the columns of the scores table; the only place that knows its files."""
    file = folder / "evaluation.csv"
    wide = pd.read_csv(file, dtype={"case": str, "label": str, "dataset": str})
    if "metric" in wide:
        return read_scores(file)
    parts = [(name, wide[name], wide[name].notna().astype(float)) for name in VALUES if name in wide]
    for name, (numerator, denominator) in RATIOS.items():
        if "lesions_found" in wide or not name.startswith("lesions"):
            parts.append((name, numerator(wide), denominator(wide)))
    texts = wide.reindex(columns=["dataset", "references", "case", "patient", "label"]).fillna("")
    tables = [
        texts.assign(run="", seed="", metric=name, numerator=numerator.fillna(0.0), denominator=denominator.fillna(0.0))
        for name, numerator, denominator in parts
    ]
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def mean_over_labels(scores: pd.DataFrame, metric: str) -> float:
    """A metric of one model: of each label over the cases, then the mean over the labels that have one."""
    sums = scores[scores.metric == metric].groupby("label")[["numerator", "denominator"]].sum()
    values = sums.numerator / sums.denominator.where(sums.denominator > 0, np.nan)
    return float(values.mean())


def write_table(file: Path, scores: pd.DataFrame) -> None:
    """Write the scores of an experiment."""
    text = scores.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n", float_format=f"%.{DIGITS}g")
    with written_whole(file) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))
