"""Taking a model out of a zip archive whose maker is not known."""

from __future__ import annotations

import shutil
import stat
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from nnunet_ext.errors import UserError
from nnunet_ext.messages import listed

LARGEST_RATIO = 1000
"""Weights hardly shrink in an archive; text does so by far less than this."""
MOST_ENTRIES, LARGEST_GB = 100_000, 50
"""A model has some dozens of files and a few gigabytes."""


def extract(archive: Path, folder: Path, *, wanted: Callable[[PurePosixPath], bool]) -> list[PurePosixPath]:
    """Take the wanted files out of a zip archive; nothing is written if any entry could leave the folder, which exists.

    Returns:
        What was taken, as paths in the archive and in `folder`.

    Raises:
        UserError: if the archive is damaged or too large, an entry has an absolute path, leads out of the folder, is a
            link or has the name of another one, or if it unpacks to far more than it holds.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            files = [entry for entry in content.infolist() if not entry.is_dir()]
            _refuse_dangerous(archive, files)
            taken = [entry for entry in files if wanted(PurePosixPath(entry.filename))]
            for entry in taken:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(entry) as source, target.open("wb") as handle:
                    shutil.copyfileobj(source, handle)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive} is no zip archive, or it is damaged ({error}). Copy it again.") from None
    except RuntimeError as error:  # an encrypted entry
        raise UserError(f"{archive} cannot be unpacked: {error}") from None
    return [PurePosixPath(entry.filename) for entry in taken]


def _refuse_dangerous(archive: Path, files: Sequence[zipfile.ZipInfo]) -> None:
    size = sum(entry.file_size for entry in files) / 1e9
    if len(files) > MOST_ENTRIES or size > LARGEST_GB:
        raise UserError(
            f"{archive} has {len(files)} files of {size:.1f} GB in all. At most {MOST_ENTRIES} files of {LARGEST_GB} "
            "GB are unpacked, which is far more than a model has. Unpack it yourself if you trust its origin."
        )
    problems = [f"{entry.filename!r}: {problem}" for entry in files if (problem := _danger(entry))]
    # names that differ in case alone are one file on some systems
    counts = Counter(entry.filename.casefold() for entry in files)
    problems += [f"{one.filename!r}: it is there twice" for one in files if counts[one.filename.casefold()] > 1]
    if problems:
        raise UserError(
            f"{archive} is refused, and nothing of it was unpacked. A model exported by nnU-Net has no such entries:"
            f"{listed(problems)}"
        )


def _danger(entry: zipfile.ZipInfo) -> str:
    """What is wrong with an entry; empty if nothing is."""
    path, windows = PurePosixPath(entry.filename), PureWindowsPath(entry.filename)
    if path.is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        return "an absolute path"
    if ".." in windows.parts:
        return "it leads out of the folder"
    if "\\" in entry.orig_filename or "\0" in entry.orig_filename:
        return "a path that systems read differently"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    if entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1):
        return f"{entry.file_size} bytes packed into {entry.compress_size}"
    return ""
