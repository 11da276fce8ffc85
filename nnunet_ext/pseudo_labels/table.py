"""The table of what was labelled in each case, and which cases to look at."""

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

DRAWN = 5  # cases with a picture


def pseudo_label_table(
    kept: Mapping[str, Mapping[str, Any]], least_share: float, always: Collection[str]
) -> pd.DataFrame:
    """The table of pseudo_labels.csv: a row for each case, by what was counted; NaN for an undefined share.

    Args:
        kept: what was counted, by case.
        least_share: of the foreground that a model sees; cases below it are left out.
        always: cases that are not.
    """
    table = pd.DataFrame(kept.values()).astype({"foreground_share": float})
    table.insert(0, "case", list(kept))
    is_below = table["foreground_share"] < least_share  # never where it is undefined
    table["left_out"] = is_below & ~table["case"].isin(always)
    voxels = pd.DataFrame(table.pop("voxels").to_list()).add_prefix("voxels_")
    return pd.concat([table, voxels], axis=1)


def doubtful_cases(table: pd.DataFrame) -> list[str]:
    """The cases in which the least of the foreground that a model sees was labelled as such, the least sure first."""
    kept = table[~table["left_out"]].dropna(subset="foreground_share")
    return kept.sort_values("foreground_share", kind="stable")["case"].to_list()[:DRAWN]
