"""summary.json, nnU-Net's scores of predictions."""

import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from statistics import fmean
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictStr, field_validator

from nnunet_ext.messages import quoted

NUMBERS = re.compile(r"\(?\s*\d+\s*(,\s*\d+\s*)*,?\s*\)?")
WINDOWS_START = re.compile(r"[A-Za-z]:|[\\/]{2}")  # a drive, or a server

ROUNDING = 1e-6
"""What a Dice may lie outside of 0 to 1 that another tool has computed with fewer digits."""


class Scored(BaseModel):
    """A case: its files and the metrics of each label or region."""

    model_config = ConfigDict(extra="allow")

    reference_file: StrictStr
    prediction_file: StrictStr
    metrics: dict[StrictStr, dict[StrictStr, float | None]]

    @field_validator("metrics")
    @classmethod
    def _labels(cls, value: dict[str, dict[str, float | None]]) -> dict[str, dict[str, float | None]]:
        for key, metrics in value.items():
            if not NUMBERS.fullmatch(key):
                raise ValueError(
                    f"{quoted(key)} was found where the value of a label is expected, such as '1' or '(1, 2)'"
                )
            if "Dice" not in metrics:
                raise ValueError(f"label {key} has no Dice")
            dice = metrics["Dice"]
            if dice is not None and not (math.isnan(dice) or -ROUNDING <= dice <= 1 + ROUNDING):
                raise ValueError(f"label {key} has the Dice {dice!r}; from 0 to 1, null or NaN is expected")
        return value


class Summary(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="allow")

    metric_per_case: list[Scored] = []


def path_of(text: str) -> PurePath:
    """A path that was written on this system or on another one.

    On Windows a path can have both separators, as where a variable is written with slashes and names were joined to it.
    Elsewhere a backslash can be part of a name.
    """
    is_windows = "\\" in text and (os.sep == "\\" or "/" not in text or WINDOWS_START.match(text) is not None)
    return PureWindowsPath(text) if is_windows else PurePosixPath(text)


def of_known_labels(summary: Mapping[str, Any], known: Callable[[str], Mapping[Any, bool]]) -> dict[str, Any]:
    """A summary that counts each label, or region, in the cases alone in which it is known.

    Args:
        summary: as nnU-Net's ``load_summary_json`` returns it.
        known: takes the name of a case's reference file; whether each label or region is known there, by nnU-Net's key.

    Returns:
        A summary with NaN for the metrics of what is not known, and with the means over the rest.
    """
    cases = []
    for scored in summary["metric_per_case"]:
        is_known = known(path_of(scored["reference_file"]).name)
        metrics = {
            key: values if is_known[key] else dict.fromkeys(values, math.nan)
            for key, values in scored["metrics"].items()
        }
        cases.append({**scored, "metrics": metrics})
    mean = {key: means([case["metrics"][key] for case in cases]) for key in summary["mean"]}
    return {**summary, "metric_per_case": cases, "mean": mean, "foreground_mean": means(list(mean.values()))}


def means(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric over those that have it; NaN if none has."""
    known = {name: [one[name] for one in scores if not math.isnan(one[name])] for name in scores[0]}
    return {name: fmean(values) if values else math.nan for name, values in known.items()}
