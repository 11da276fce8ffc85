"""Files are written whole or not at all, and never over something that nobody offered."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError


@contextmanager
def written_whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target` that replaces it only if the block ends without an exception.

    A full disk, Ctrl-C or an error inside the block leaves an existing `target` as it was and removes the temporary
    file.

    Args:
        target: the file to be written; its folder must exist.

    Yields:
        The path to write to, in the same folder (so that the replacement is atomic).
    """
    target = Path(target)
    # one fixed name: a process that was killed leaves at most one of these, and the next writing reuses it
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with written_whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON in its own key order, whole or not at all."""
    write_text(target, json.dumps(content, indent=4) + "\n")


def write_csv(target: str | os.PathLike[str], rows: Sequence[Mapping[str, str | int | float]]) -> None:
    """Write rows under the names of the first one's columns, whole or not at all. NaN becomes an empty cell."""
    with written_whole(target) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({name: "" if value != value else value for name, value in row.items()} for row in rows)


def read_json(source: str | os.PathLike[str]) -> Any:
    """Read a JSON file.

    Raises:
        UserError: if the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{source} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{source} is not valid JSON: {error}") from None


def check_new_file(target: Path, *, force: bool, ending: str = "", source: Path | None = None) -> None:
    """See that a result can be written behind ``-o``, before any work is done.

    Args:
        target: the file.
        force: whether one that is there may be replaced.
        ending: what its name must end in, such as ``.zip``.
        source: file that the command reads, which is never replaced.

    Raises:
        UserError: if it is there and `force` is off, if it is the source, if its name has another ending, or if its
            folder is missing.
    """
    if target.is_dir():
        raise UserError(f"{target} is a folder; the name of a file is needed behind -o.")
    if not target.name.endswith(ending):
        raise UserError(f"-o needs the name of a file that ends in {ending}; found {target}.")
    if not target.parent.is_dir():
        raise UserError(f"The folder {target.parent} does not exist. Make it, or choose another for -o.")
    if target.exists():
        if source is not None and source.exists() and target.samefile(source):
            raise UserError(f"{target} is the source itself. Choose another name for -o.")
        if not force:
            raise UserError(f"{target} exists. Choose another name, or add --force to replace it.")


def sha256(file: Path) -> str:
    """The file's checksum, in hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


MARKER = ".made_by_nnunet_ext"


def prepare_output_folder(folder: str | os.PathLike[str], *, force: bool) -> Path:
    """Make a folder for results, empty but for a hidden file that marks it as made here.

    Args:
        folder: where results will go.
        force: empty the folder if it has content. Only one that has the mark is emptied, so that a slip of the hand
            (a home folder, a folder of data) costs nothing.

    Raises:
        UserError: if it has content and `force` is off or the mark is not there, if it is a file, or if it cannot be
            written.
    """
    folder = Path(folder)
    if _has_content(folder, force=force):
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).touch()
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}).") from None
    return folder


@contextmanager
def folder_written_whole(folder: str | os.PathLike[str], *, force: bool) -> Iterator[Path]:
    """Yield an empty folder, marked as made here, that becomes `folder` only if the block ends without an exception.

    Args:
        folder: where the results will be.
        force: as of `prepare_output_folder`; what is replaced is there until the block ends.

    Raises:
        UserError: as of `prepare_output_folder`.
    """
    folder = Path(folder)
    _has_content(folder, force=force)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        (unfinished / MARKER).touch()
        yield unfinished
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}).") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _has_content(folder: Path, *, force: bool) -> bool:
    """Whether a folder has content that may be replaced.

    Raises:
        UserError: if it has some that may not, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a folder is needed here.")
    if not folder.is_dir() or all(entry.name == MARKER for entry in folder.iterdir()):
        return False
    if not (folder / MARKER).is_file():
        raise UserError(
            f"{folder} is not empty, and this command did not make it, so it is not emptied. Choose another folder."
        )
    if not force:
        raise UserError(f"{folder} is not empty. Choose another folder, or add --force to replace its content.")
    return True
