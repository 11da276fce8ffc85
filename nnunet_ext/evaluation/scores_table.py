"""The scores table: one row for each run, case, label and metric.

A score is a quotient whose two parts are kept, so that a figure over cases is computed from sums: aggregated Dice sums
both parts over the cases, a mean sums the values and counts them. A plain value has the denominator 1; an undefined one
is 0 / 0, which adds nothing to either sum.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.bootstrap import SeedScores
from nnunet_ext.evaluation.metrics import Metric
from nnunet_ext.files import write_text

COLUMNS = ("run", "seed", "dataset", "references", "case", "patient", "label", "metric", "numerator", "denominator")
AGAIN = "Make it anew with nnunet_ext evaluate."
SCORES = "scores.csv"  # name of the file
NUMBERS = ("numerator", "denominator")
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what they begin with in spreadsheets
OF_CASES = ("case", "label", "metric", *NUMBERS)  # the columns that differ within a run's set of cases


def case_scores(rows: Iterable[tuple[str, str, str, float, float]]) -> pd.DataFrame:
    """The scores of one set of cases, from rows of the columns `OF_CASES`."""
    return pd.DataFrame(list(rows), columns=list(OF_CASES)).astype(dict.fromkeys(NUMBERS, float))


def labels_with(scores: pd.DataFrame, metric: Metric) -> list[str]:
    """The labels that have a metric, in the table's order."""
    return [str(label) for label in scores.loc[scores["metric"] == metric.summed[0], "label"].unique()]


def seed_scores(scores: pd.DataFrame, metric: Metric, cases: Sequence[str], labels: Sequence[str]) -> SeedScores:
    """What the cases add to a metric's figure, by the scores of one set of cases; a label without it adds nothing."""
    wanted = pd.MultiIndex.from_product([cases, labels, metric.summed])
    numbers = scores.set_index(["case", "label", "metric"])[list(NUMBERS)]
    shape = len(cases), len(labels), len(metric.summed)
    parts = numbers.reindex(wanted, fill_value=0.0).to_numpy(np.float64).reshape(*shape, 2)
    is_scored = wanted.isin(numbers.index).reshape(shape).all(axis=-1)
    return SeedScores(tuple(cases), parts, np.where(is_scored, metric.where_absent, math.nan), is_scored)


def write_scores(file: Path, scores: pd.DataFrame) -> None:
    """Write a table with the columns `COLUMNS` as CSV, its numbers so that reading gives them back bit for bit."""
    write_text(file, scores.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n"))


def wide_table(scores: pd.DataFrame) -> pd.DataFrame:
    """A scores table as spreadsheets need it: a row for each case, a column of values for each label and metric."""
    table = scores.assign(
        column=scores["label"] + " " + scores["metric"],
        value=scores["numerator"] / scores["denominator"].where(scores["denominator"] != 0),
    )
    rows = ["dataset", "references", "case", "patient"]
    wide = table.pivot(index=rows, columns="column", values="value")[table["column"].unique()]
    return wide.reindex(pd.MultiIndex.from_frame(table[rows].drop_duplicates())).reset_index()


def without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """A table whose text no spreadsheet takes for a formula: an apostrophe is put before what begins as one."""

    def escaped(cell: Any) -> Any:
        return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULAS) and not _is_number(cell) else cell

    return table.rename(columns=escaped).apply(lambda column: column.map(escaped))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_scores(file: Path) -> pd.DataFrame:
    """Read a scores table.

    Returns:
        The columns `COLUMNS`; text is empty, not NaN, where a cell is empty.

    Raises:
        UserError: if the file is no scores table.
    """
    text = {column: str for column in COLUMNS if column not in NUMBERS}
    try:
        scores = pd.read_csv(
            file,
            dtype={**text, **dict.fromkeys(NUMBERS, float)},
            keep_default_na=False,
            na_values={column: [""] for column in NUMBERS},
            float_precision="round_trip",
        )
    except (ValueError, OSError) as error:
        raise UserError(f"{file} cannot be read as a scores table: {error}. {AGAIN}") from None
    if missing := [column for column in COLUMNS if column not in scores]:
        raise UserError(f"{file} is no scores table: it lacks the columns {', '.join(missing)}. {AGAIN}")
    if scores[list(NUMBERS)].isna().any(axis=None) or scores.duplicated(list(text)).any():
        raise UserError(
            f"{file} is no scores table: a row has no number, or two rows are of the same run, case, label and metric. "
            f"{AGAIN}"
        )
    if len(infinite := scores[np.isinf(scores[list(NUMBERS)]).any(axis=1)]):
        row = infinite.iloc[0]
        where = f"{row['metric']} of label {row['label']} in case {row['case']}"
        raise UserError(f"{file} is no scores table: a finite number is expected, and {where} is infinite. {AGAIN}")
    return scores[list(COLUMNS)]


def nanmean(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    try:
        return fmean(defined) if defined else math.nan
    except (OverflowError, ValueError):  # of numbers that no score has
        return sum(value / len(defined) for value in defined)
