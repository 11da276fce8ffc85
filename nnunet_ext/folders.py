"""Folders of results: made whole or not at all, and never in place of what this package did not make."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import NO_ROOM, read_json, write_json

MARKER = ".made_by_nnunet_ext"
"""Name of the hidden file that marks a folder as made by this package. It holds the name of the command."""

COMMAND: ContextVar[str] = ContextVar("command", default="")
"""The command that is running, such as ``evaluate``; empty in a program that calls this package."""

UNFINISHED = ".unfinished"
WHOLE, EMPTIED, REPLACED = ".whole", ".emptied", ".replaced"
"""In an unfinished folder whose content is moved into another: the names there that it replaces, that these have been
moved away, and where to."""

REQUEST = ".request.json"


def check_output_folder(folder: Path, *, force: bool) -> bool:
    """Whether a folder for results has content, which may be replaced; before any work is done.

    A UserError says if it is a file, has content that `force` is needed for, or that this command did not make, so that
    a slip of the hand (a home folder, a folder of data, another command's result) costs nothing.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a folder is needed here.")
    unfinished = folder / UNFINISHED
    was_killed = (unfinished / WHOLE).is_file()  # while it moved its files
    if not folder.is_dir() or not was_killed and {folder / MARKER, unfinished}.issuperset(folder.iterdir()):
        return False
    maker = _maker(unfinished) if was_killed else None
    maker = _maker(folder) if maker is None else maker  # into which the mark may have been moved
    if maker is None:
        raise UserError(f"{folder} is not empty, and this package did not make it. Choose another name.")
    if maker != COMMAND.get():
        made = f"{folder} is not empty, and was made {f'by nnunet_ext {maker}' if maker else 'in another way'}"
        raise UserError(f"{made}, not by this command. Choose another name, or remove it.")
    if not (force or was_killed):
        raise UserError(f"{folder} exists and is not empty. Choose another name, or add --force to replace it.")
    return True


def _maker(folder: Path) -> str | None:
    """The command that made a folder; None if this package did not make it."""
    try:
        return (folder / MARKER).read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, IsADirectoryError):
        return None


def prepare_output_folder(folder: str | os.PathLike[str], *, force: bool) -> Path:
    """Make a folder for results, empty but for the hidden mark of this package, see `check_output_folder`."""
    folder = Path(folder)
    end_interrupted_publication(folder)
    if check_output_folder(folder, force=force):
        _remove_all(folder, but=MARKER)  # which lets an interrupted run be repeated
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(COMMAND.get(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}).") from None
    return folder


@contextmanager
def folder_written_whole(folder: Path, *, force: bool, request: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a marked folder whose content becomes that of `folder` only if the block ends without an exception.

    With a `request`, the JSON that decides the content, what an interrupted block had written is there again the next
    time that the same is requested. `force` replaces content, see `check_output_folder`, and unfinished work of another
    request. A UserError says what may not be replaced, that the folder cannot be written to, or that another run does.
    """
    with only_run(folder), unfinished_folder(folder, force=force, request=request) as unfinished:
        yield unfinished


@contextmanager
def unfinished_folder(folder: Path, *, force: bool, request: Mapping[str, Any] | None) -> Iterator[Path]:
    """As `folder_written_whole`, for a caller that lets one run at a time write the folder."""
    end_interrupted_publication(folder)
    check_output_folder(folder, force=force)
    # inside a folder that is there, which may be a mount, or whose parent may be read-only
    unfinished = folder / UNFINISHED if folder.is_dir() else _beside(folder)
    wanted = json.loads(json.dumps(request))
    if not _goes_on(unfinished, wanted, folder=folder, force=force):
        shutil.rmtree(unfinished, ignore_errors=True)
    is_whole = False
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        (unfinished / MARKER).write_text(COMMAND.get(), encoding="utf-8")
        if request is not None:
            write_json(unfinished / REQUEST, wanted)
        yield unfinished
        is_whole = True
        _publish(unfinished, folder, force=force)
    except BrokenPipeError:  # who reads the output has left
        raise
    except OSError as error:
        if error.errno in NO_ROOM and error.filename:
            written = str(error.filename2 or error.filename)  # of a copy, the first is what was read
            error.filename = written.replace(str(unfinished), str(folder), 1)  # the name that it would have had
            raise
        if not is_whole and error.filename is None and error.errno not in NO_ROOM:
            raise  # of a library, and not of a file that is written here
        if not is_whole and isinstance(error.filename, str) and not _concerns(error.filename, (unfinished, folder)):
            fix = "Make it usable, and repeat the command."
            raise UserError(f"{error.filename} cannot be read or written ({error.strerror}). {fix}") from None
        still = ""
        if is_whole and unfinished.is_dir():
            goes_on = request is not None or (unfinished / WHOLE).is_file()
            fix = "repeat the command" if goes_on else "move it from there, or remove it"
            still = f" Its new content is in {unfinished}; {fix}."
        raise UserError(f"{folder} cannot be written to ({error.strerror}).{still}") from None
    finally:
        if not is_whole and (request is None or not _has_files(unfinished)):
            shutil.rmtree(unfinished, ignore_errors=True)


def _concerns(file: str, folders: tuple[Path, ...]) -> bool:
    """Whether a path is one of some folders, is in one, or has one of them in it, as a folder that cannot be made."""
    path, *others = (Path(os.path.abspath(one)) for one in (Path(file), *folders))
    return any(path == other or path in other.parents or other in path.parents for other in others)


def _beside(folder: Path) -> Path:
    """The hidden place of unfinished work on a folder that is not there yet."""
    if folder.name in ("", ".."):  # such as the folder that the command runs in
        folder = Path(os.path.abspath(folder))
    return folder.with_name(f".{folder.name}{UNFINISHED}") if folder.name else folder / UNFINISHED


def end_interrupted_publication(folder: Path) -> None:
    """End what a run has begun that was killed while it put its result in place."""
    for left in (folder / UNFINISHED, _beside(folder)):
        if not os.path.isfile(left / WHOLE):  # unlike `Path.is_file` also for names that are too long
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _end_publication(left, folder)
        except OSError as error:
            still = f"Its new content is in {left}; repeat the command."
            raise UserError(f"{folder} cannot be written to ({error.strerror}). {still}") from None
    if (folder / MARKER).is_file():
        (folder / REQUEST).unlink(missing_ok=True)


def _publish(unfinished: Path, folder: Path, *, force: bool) -> None:
    """Make what is whole now the content of a folder, unless somebody has put something there meanwhile."""
    try:
        check_output_folder(folder, force=force)
    except UserError as error:
        still = f"What was made meanwhile is in {unfinished}; move it from there, or remove it."
        raise UserError(f"{error} {still}") from None
    if not folder.exists():
        unfinished.rename(folder)
        (folder / REQUEST).unlink(missing_ok=True)
        return
    (unfinished / REPLACED).mkdir(exist_ok=True)
    write_json(unfinished / WHOLE, sorted(path.name for path in folder.iterdir() if path != unfinished))
    _end_publication(unfinished, folder)


def _end_publication(unfinished: Path, folder: Path) -> None:
    """Put the content of a folder in place of that of another, which is removed last.

    When this is interrupted, at any point, it can be repeated. What came into the folder since then stays; a UserError
    says where it is in the way.
    """
    if not (unfinished / EMPTIED).is_file():
        names = read_json(unfinished / WHOLE)
        for old in [old for old in folder.iterdir() if old != unfinished and old.name in names]:
            old.rename(unfinished / REPLACED / old.name)
        (unfinished / EMPTIED).touch()
    for new in [new for new in unfinished.iterdir() if new.name not in (WHOLE, EMPTIED, REPLACED, REQUEST)]:
        place = folder / new.name
        if os.path.lexists(place):
            raise UserError(f"{place} came while its new content was put in place. Move it, and repeat the command.")
        new.rename(place)
    (unfinished / REQUEST).unlink(missing_ok=True)
    (unfinished / WHOLE).unlink()  # before the rest, which says how far it has come
    shutil.rmtree(unfinished, ignore_errors=True)  # what is left of it changes nothing


def _goes_on(unfinished: Path, wanted: Mapping[str, Any] | None, *, folder: Path, force: bool) -> bool:
    """Whether unfinished work is of the same request; a UserError says if it is of another one and `force` is off."""
    if not (unfinished / REQUEST).is_file() or not _has_files(unfinished):
        return False
    before = _read_request(unfinished / REQUEST)
    if before is None or wanted is None:
        if force:
            return False
        fix = "Repeat that command to go on, choose another name, or add --force to begin anew."
        raise UserError(f"{folder.name} was begun by another command and interrupted. {fix}")
    # what the version that began it did not know is None
    different = [key for key in {**wanted, **before} if before.get(key) != wanted.get(key)]
    if force or not different:
        return not different
    raise UserError(
        f"{folder.name} was begun and interrupted with other arguments; they differ in: {', '.join(different)}. Give "
        "the same to go on, choose another name, or add --force to begin anew."
    )


def _read_request(file: Path) -> dict[str, Any] | None:
    """What unfinished work is of; None if it cannot be read."""
    with suppress(UserError):
        before = read_json(file)
        return before if isinstance(before, dict) else None
    return None


def _has_files(unfinished: Path) -> bool:
    return any(path.is_file() and path.name not in (MARKER, REQUEST) for path in unfinished.rglob("*"))


def _remove_all(folder: Path, *, but: str) -> None:
    """Remove what is in a folder, except for what has a name."""
    for path in [path for path in folder.iterdir() if path.name != but]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
