"""summary.json, nnU-Net's scores of predictions."""

import re
from pathlib import PurePath, PurePosixPath, PureWindowsPath

from pydantic import BaseModel, ConfigDict, StrictStr, field_validator

NUMBERS = re.compile(r"\(?\s*\d+\s*(,\s*\d+\s*)*,?\s*\)?")


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
                    f"{key[:40]!r} was found where the value of a label is expected, such as '1' or '(1, 2)'"
                )
            if "Dice" not in metrics:
                raise ValueError(f"label {key} has no Dice")
        return value


class Summary(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="allow")

    metric_per_case: list[Scored] = []


def path_of(text: str) -> PurePath:
    """A path that was written on this system or on another one."""
    is_windows = "\\" in text and "/" not in text
    return PureWindowsPath(text) if is_windows else PurePosixPath(text)
