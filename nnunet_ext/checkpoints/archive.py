"""Taking files out of a zip archive whose maker is not known."""

import errno
import lzma
import os
import shutil
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from nnunet_ext.errors import UserError
from nnunet_ext.formats.names import file_key
from nnunet_ext.messages import listed, quoted

LARGEST_RATIO = 1000
"""Weights hardly shrink in an archive; text does so by far less than this."""
LONGEST = 1000
"""Characters of an entry's path. Those of a model have some dozens."""
DAMAGED = (None, errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG)
"""Numbers of the system's errors that come of an archive's content: bzip2 gives no number, the others are of names."""
LIMITS = {"NNUNET_EXT_MAX_FILES": 100_000, "NNUNET_EXT_MAX_GB": 50}
"""Environment variables that limit archives, and their values. A model has some dozens of files and a few gigabytes."""


def extract(archive: Path, folder: Path, *, wanted: Callable[[PurePosixPath], bool]) -> list[PurePosixPath]:
    """Take the wanted files out of a zip archive; nothing is written if any entry could leave the folder, which exists.

    Returns:
        What was taken, as paths in the archive and in `folder`.

    Raises:
        UserError: if the archive is damaged or too large, an entry has an absolute path, leads out of the folder, is a
            link, has the name of another one or lies in one, or if it unpacks to far more than it holds.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            files = [entry for entry in content.infolist() if not entry.is_dir()]
            refuse_large(archive, files)
            _refuse_dangerous(archive, files)
            taken = [entry for entry in files if wanted(PurePosixPath(entry.filename))]
            for entry in taken:
                target = folder / entry.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with content.open(entry) as source, target.open("wb") as handle:
                    shutil.copyfileobj(source, handle)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in DAMAGED:
            raise
        raise UserError(f"{archive} is no zip archive, or it is damaged ({error}). Copy it again.") from None
    except RuntimeError as error:  # an encrypted entry
        raise UserError(f"{archive} cannot be unpacked: {error}") from None
    return [PurePosixPath(entry.filename) for entry in taken]


def refuse_large(archive: Path, files: Sequence[zipfile.ZipInfo]) -> None:
    """Raise a UserError if an archive has more files, or unpacks to more, than the variables of `LIMITS` allow."""
    size = sum(entry.file_size for entry in files) / 1e9
    most, largest = (_limit(name, usual) for name, usual in LIMITS.items())
    if len(files) > most or size > largest:
        files_variable, size_variable = LIMITS
        raise UserError(
            f"{archive} has {len(files)} files of {size:.3g} GB in all. At most {most:g} files and {largest:g} GB "
            "are read, which is far more than a model or its scores take. If you trust its origin, set the environment "
            f"variables {files_variable} and {size_variable} to more."
        )
    if packed := [entry for entry in files if entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1)]:
        one = packed[0]
        raise UserError(
            f"{archive} is refused, and nothing of it was unpacked. Weights and scores do not shrink like this: "
            f"{one.filename!r} has {one.file_size} bytes packed into {one.compress_size}."
        )


def _limit(variable: str, usual: float) -> float:
    """A limit that the user may set; a UserError if it is no number above 0."""
    text = os.environ.get(variable, str(usual))
    try:
        if (limit := float(text)) > 0:
            return limit
    except ValueError:
        pass
    raise UserError(f"The environment variable {variable} must be a number above 0; {text!r} was found.")


def _refuse_dangerous(archive: Path, files: Sequence[zipfile.ZipInfo]) -> None:
    problems = [f"{quoted(entry.filename, longest=200)}: {problem}" for entry in files if (problem := _danger(entry))]
    if not problems:
        keys = [_key(entry) for entry in files]
        counts = Counter(keys)
        for entry, key in zip(files, keys):
            if counts[key] > 1:
                problems.append(f"{entry.filename!r}: it is there twice")
            elif any(str(parent) in counts for parent in PurePosixPath(key).parents):
                problems.append(f"{entry.filename!r}: it lies in another entry, which is a file")
    if problems:
        raise UserError(
            f"{archive} is refused, and nothing of it was unpacked. nnU-Net and this package write no such entries:"
            f"{listed(problems)}"
        )


def _key(entry: zipfile.ZipInfo) -> str:
    """The same for all entries that would be one file on some system, such as ``plans.json`` and ``./Plans.json``."""
    return file_key(str(PurePosixPath(entry.filename)))


def _danger(entry: zipfile.ZipInfo) -> str:
    """What is wrong with an entry; empty if nothing is."""
    if len(entry.filename) > LONGEST:
        return f"a path of {len(entry.filename)} characters"
    path, windows = PurePosixPath(entry.filename), PureWindowsPath(entry.filename)
    if path.is_absolute() or windows.is_absolute() or windows.drive or windows.root:
        return "an absolute path"
    if ".." in windows.parts:
        return "it leads out of the folder"
    if "\\" in entry.orig_filename or "\0" in entry.orig_filename:
        return "a path that systems read differently"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    return ""
