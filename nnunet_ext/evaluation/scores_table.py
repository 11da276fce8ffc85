"""The scores table: one row for each run, case, label and metric.

A score is a quotient whose two parts are kept, so that a figure over cases is computed from sums: aggregated Dice sums
both parts over the cases, a mean sums the values and counts them. A plain value has the denominator 1; an undefined one
is 0 / 0, which adds nothing to either sum.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from nnunet_ext.errors import UserError
from nnunet_ext.files import write_text

COLUMNS = ("run", "seed", "dataset", "references", "case", "patient", "label", "metric", "numerator", "denominator")
NUMBERS = ("numerator", "denominator")


def write_scores(file: Path, scores: pd.DataFrame) -> None:
    """Write a scores table as CSV, its numbers so that reading gives them back bit for bit.

    Args:
        file: where.
        scores: with the columns `COLUMNS`, in any order; further columns are not written.
    """
    write_text(file, scores.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n"))


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
        raise UserError(
            f"{file} cannot be read as a scores table: {error}. Make it anew with nnunet_ext evaluate."
        ) from None
    missing = [column for column in COLUMNS if column not in scores]
    if missing:
        raise UserError(
            f"{file} is no scores table: it lacks the columns {', '.join(missing)}. Make it anew with "
            "nnunet_ext evaluate."
        )
    return scores[list(COLUMNS)]
