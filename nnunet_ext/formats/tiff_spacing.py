"""The JSON file beside a TIFF volume that holds its spacing: ``case.json`` for ``case_0000.tif`` and ``case.tif``."""

from pathlib import Path

from pydantic import BaseModel, Field

from nnunet_ext.formats.plans import Length
from nnunet_ext.formats.typed import read_typed

ENDINGS = (".tif", ".tiff")


class Spacing(BaseModel):
    """The file."""

    spacing: list[Length] = Field(min_length=3, max_length=3)


def spacing_file(file: Path, *, is_image: bool) -> Path | None:
    """The file that holds the spacing of a TIFF volume, where nnU-Net's Tiff3DIO looks for it.

    Args:
        file: an image or a label map.
        is_image: whether its name ends in its channel, as that of a label map does not.

    Returns:
        None for other formats, and if there is no such file; then nnU-Net takes voxels of 1 x 1 x 1 mm.
    """
    if not is_tiff(file):
        return None
    stem = file.name[: file.name.rindex(".")]
    stem = stem[: -len("_0000")] if is_image else stem
    beside = file.with_name(f"{stem}.json")
    return beside if stem and beside.is_file() else None


def is_tiff(file: Path) -> bool:
    """Whether a file is called like a TIFF."""
    return file.name.lower().endswith(ENDINGS)


def check_spacing(file: Path, *, is_image: bool) -> None:
    """Raise a UserError if an image or label map is a TIFF volume whose spacing is not as nnU-Net reads it."""
    if beside := spacing_file(file, is_image=is_image):
        read_typed(Spacing, beside, maker="nnU-Net")


def given_spacing(file: Path) -> list[float]:
    """The spacing in mm of a TIFF volume, (Z, Y, X), as nnU-Net reads it; (1, 1, 1) without a file beside it.

    The resolution in the TIFF itself is that of a print, and nnU-Net does not look at it.

    Args:
        file: an image or a label map; its name tells which only if it ends in no channel.
    """
    for is_image in (False, True):
        if beside := spacing_file(file, is_image=is_image):
            return read_typed(Spacing, beside, maker="nnU-Net").spacing
    return [1.0, 1.0, 1.0]


def lacks_spacing(file: Path) -> bool:
    """Whether a label map is a TIFF without such a file."""
    return is_tiff(file) and spacing_file(file, is_image=False) is None
