"""The JSON file beside a TIFF volume that holds its spacing: ``case.json`` for ``case_0000.tif`` and ``case.tif``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field

from nnunet_ext.formats.typed import read_typed

ENDINGS = (".tif", ".tiff")
Length = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False, strict=True)]


class Spacing(BaseModel):
    """The file."""

    spacing: list[Length] = Field(min_length=3, max_length=3)


def check_spacing(file: Path) -> None:
    """Raise a UserError if an image or label map is a TIFF whose spacing is not as nnU-Net reads it."""
    for beside in _beside(file):
        read_typed(Spacing, beside, maker="nnU-Net")


def given_spacing(file: Path) -> list[float] | None:
    """The spacing in mm of a TIFF volume, (Z, Y, X), by the file beside it; None for other images and without one."""
    return next((read_typed(Spacing, beside, maker="nnU-Net").spacing for beside in _beside(file)), None)


def lacks_spacing(file: Path) -> bool:
    """Whether a label map is a TIFF without such a file; then nnU-Net takes voxels of 1 x 1 x 1 mm."""
    return file.name.lower().endswith(ENDINGS) and not any(_beside(file))


def _beside(file: Path) -> Iterator[Path]:
    if file.name.lower().endswith(ENDINGS):
        stem = file.name[: file.name.rindex(".")]
        found = (file.with_name(f"{name}.json") for name in (stem, stem[: -len("_0000")]) if name)
        yield from (one for one in found if one.is_file())
