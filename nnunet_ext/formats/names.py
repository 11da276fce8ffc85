"""Names that come from data and become names of files: one component of a path, and nothing else."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.messages import quoted

LONGEST = 200
"""Bytes of a name. File systems take 255; what nnU-Net and this package append must fit as well."""

RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
"""Names that are devices on Windows, with any ending."""

NOT_ON_WINDOWS = '<>:"|?*'


def composed(text: str) -> str:
    """A text in the one form of Unicode, NFC, in which names are compared.

    ``ë`` may be one character, or ``e`` and a mark: a table from a spreadsheet has the one, names of files that were
    made on macOS the other.
    """
    return unicodedata.normalize("NFC", text)


def file_key(name: str) -> str:
    """The same for all names that are one file on some system.

    macOS and Windows take names for one whatever their case, macOS also whatever their form of Unicode.
    """
    return composed(composed(name).casefold())


def problem_with_name(name: Any, *, windows: bool = os.name == "nt") -> str:
    """Why a name cannot be that of a file; empty if it can.

    Args:
        name: anything that was read from a file.
        windows: apply the rules of Windows too.
    """
    if not isinstance(name, str):
        return f"it is {type(name).__name__}, not text"
    if not name.strip():
        return "it is empty"
    if "/" in name or "\\" in name:
        return "it holds a path"
    if name in (".", ".."):
        return "it is a folder"
    if any(ord(character) < 32 or 127 <= ord(character) < 160 for character in name):
        return "it holds control characters"
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "it is no text in UTF-8"
    if size > LONGEST:
        return f"it has {size} bytes, and at most {LONGEST} are possible"
    if windows and (name.partition(".")[0].strip().lower() in RESERVED or name[-1] in ". "):
        return "Windows has no file of that name"
    if windows and any(character in name for character in NOT_ON_WINDOWS):
        return f"Windows allows none of {NOT_ON_WINDOWS}"
    return ""


def case_names(folder: Path, ending: str) -> list[str]:
    """The cases that files of a folder are named after, in order, but for hidden files; see `check_names`."""
    names = [file.name for file in folder.iterdir() if not file.name.startswith(".")]  # macOS leaves ._case.nii.gz
    cases = sorted(name.removesuffix(ending) for name in names if name.endswith(ending))
    check_names(cases, what="case", where=folder)
    return cases


def check_names(names: Iterable[Any], *, what: str, where: object) -> None:
    """See that names can be those of files.

    Args:
        names: to be looked at.
        what: they name, for the message, such as ``case``.
        where: they come from.

    Raises:
        UserError: naming the place, the name and what is wrong with it.
    """
    for name in names:
        if problem := problem_with_name(name):
            raise UserError(f"{where}: {quoted(name)} cannot be the name of a {what}: {problem}. Rename it.")
