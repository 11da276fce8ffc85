"""Files are written whole or not at all, and never over something that nobody offered."""

import errno
import glob
import hashlib
import json
import os
import platform
import shutil
import threading
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk, a quota or a limit of the file system or of the process says when there is no room left."""

LONGEST_PART = 200
"""Characters of a file's name that are part of the name of its temporary file."""


@contextmanager
def written_whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target` that replaces it only if the block ends without an exception.

    A full disk, Ctrl-C or an error inside the block leaves an existing `target` as it was and removes the temporary
    file.
    """
    target = Path(target)
    _remove_abandoned(target)
    temporary = target.with_name(f".{target.name[:LONGEST_PART]}.{machine()}-{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        os.replace(temporary, target)
    except Exception as error:
        # the name that the user knows, for the message of the command line
        if (full := out_of_room(error)) is not None:
            raise OSError(full.errno, full.strerror, str(target)) from error
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def out_of_room(error: BaseException | None) -> OSError | None:
    """The error of a full disk that an exception is or comes from: libraries raise others in its place."""
    while error is not None and not (isinstance(error, OSError) and error.errno in NO_ROOM):
        error = error.__cause__ or error.__context__
    return error


def machine() -> str:
    """Eight characters that tell machines with a common file system apart: process numbers are those of one machine."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _remove_abandoned(target: Path) -> None:
    """Remove what processes of this machine have left that were killed while they wrote the same file."""
    for file in target.parent.glob(f".{glob.escape(target.name[:LONGEST_PART])}.{machine()}-*.tmp"):
        process = file.name.removesuffix(".tmp").split("-")[-2]
        if process.isdecimal() and int(process) != os.getpid() and not _is_running(int(process)):
            file.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where a signal of 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def write_text(target: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with written_whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(target: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON in its own key order, whole or not at all."""
    write_text(target, json.dumps(content, indent=4) + "\n")


def read_json(source: str | os.PathLike[str]) -> Any:
    """Read a JSON file; a UserError says if it is missing, cannot be read or is not JSON."""
    try:
        return json.loads(Path(source).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{source} does not exist.") from None
    except OSError as error:
        raise UserError(f"{source} cannot be read ({error.strerror}).") from None
    except RecursionError:
        raise UserError(f"{source} is not usable: its JSON is nested too deeply.") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise UserError(f"{source} is not valid JSON: {error}") from None


def check_new_file(target: Path, *, force: bool, ending: str = "", source: Path | None = None) -> None:
    """Raise a UserError unless a file can be written behind ``-o``, before any work is done.

    Its name must end in `ending`, such as ``.zip``. The `source` that the command reads is never replaced.
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


def size_and_time(file: Path) -> list[int]:
    """Size in bytes and time of the last change in ns, which tell whether a file is still the one of before."""
    state = file.stat()
    return [state.st_size, state.st_mtime_ns]


MARKER = ".made_by_nnunet_ext"
"""Name of the hidden file that marks a folder as made by this package. It holds the name of the command."""

COMMAND: ContextVar[str] = ContextVar("command", default="")
"""The command that is running, such as ``evaluate``; empty in a program that calls this package."""

UNFINISHED = ".unfinished"
WHOLE = ".whole"
"""In an unfinished folder that is about to become the content of another, which has been emptied for it."""

REQUEST = ".request.json"


def check_output_folder(folder: Path, *, force: bool) -> bool:
    """Whether a folder for results has content, which may be replaced; before any work is done.

    A UserError says if it is a file, has content that `force` is needed for, or that this command did not make, so that
    a slip of the hand (a home folder, a folder of data, another command's result) costs nothing.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a folder is needed here.")
    if not folder.is_dir() or {folder / MARKER, folder / UNFINISHED}.issuperset(folder.iterdir()):
        return False
    if (folder / UNFINISHED / WHOLE).is_file():  # killed while it moved its files
        return True
    if not (folder / MARKER).is_file():
        raise UserError(f"{folder} is not empty, and this package did not make it. Choose another name.")
    maker = (folder / MARKER).read_text(encoding="utf-8", errors="replace")
    if maker != COMMAND.get():
        made = f"{folder} is not empty, and was made {f'by nnunet_ext {maker}' if maker else 'in another way'}"
        raise UserError(f"{made}, not by this command. Choose another name, or remove it.")
    if not force:
        raise UserError(f"{folder} exists and is not empty. Choose another name, or add --force to replace it.")
    return True


def prepare_output_folder(folder: str | os.PathLike[str], *, force: bool) -> Path:
    """Make a folder for results, empty but for the hidden mark of this package, see `check_output_folder`."""
    folder = Path(folder)
    if check_output_folder(folder, force=force):
        _remove_all(folder, but=MARKER)  # which lets an interrupted run be repeated
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(COMMAND.get(), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}).") from None
    return folder


def check_apart(output: Path, inputs: Iterable[Path]) -> None:
    """Raise a UserError if a result would lie in, over or above what it is made from, before any work is done."""
    target = Path(os.path.realpath(output))  # unlike `resolve`, takes a link in a circle
    for given in inputs:
        source = Path(os.path.realpath(given))
        inside = source.is_dir() and source in target.parents
        if target == source or target in source.parents or inside:
            where = "is" if target == source else "lies in" if inside else "would replace what contains"
            raise UserError(f"The output {output} {where} the input {given}. Choose another name.")


@contextmanager
def folder_written_whole(folder: Path, *, force: bool, request: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a marked folder whose content becomes that of `folder` only if the block ends without an exception.

    With a `request`, the JSON that decides the content, what an interrupted block had written is there again the next
    time that the same is requested. `force` replaces content, see `check_output_folder`, and unfinished work of another
    request. A UserError says what may not be replaced, that the folder cannot be written to, or that another run does.
    """
    with only_run(folder), _unfinished_folder(folder, force=force, request=request) as unfinished:
        yield unfinished


@contextmanager
def _unfinished_folder(folder: Path, *, force: bool, request: Mapping[str, Any] | None) -> Iterator[Path]:
    if (folder / UNFINISHED / WHOLE).is_file():
        _remove_all(folder, but=UNFINISHED)
        shutil.rmtree(folder / UNFINISHED)
    check_output_folder(folder, force=force)
    # inside a folder that is there, which may be a mount, or whose parent may be read-only
    unfinished = folder / UNFINISHED if folder.is_dir() else folder.with_name(f".{folder.name}{UNFINISHED}")
    wanted = json.loads(json.dumps(request))
    if not _goes_on(unfinished, wanted, folder=folder, force=force):
        shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, exist_ok=True)
        (unfinished / MARKER).write_text(COMMAND.get(), encoding="utf-8")
        if request is not None:
            write_json(unfinished / REQUEST, wanted)
        yield unfinished
        (unfinished / REQUEST).unlink(missing_ok=True)
        _publish(unfinished, folder)
    except OSError as error:
        if error.errno in NO_ROOM and error.filename:  # the name that it would have had
            error.filename = str(error.filename).replace(str(unfinished), str(folder), 1)
            raise
        raise UserError(f"{folder} cannot be written to ({error.strerror}).") from None
    finally:
        if request is None or not _has_files(unfinished):
            shutil.rmtree(unfinished, ignore_errors=True)


def _publish(unfinished: Path, folder: Path) -> None:
    if not folder.exists():
        unfinished.rename(folder)
        return
    (unfinished / WHOLE).touch()
    _remove_all(folder, but=UNFINISHED)
    for new in [new for new in unfinished.iterdir() if new.name != WHOLE]:
        new.rename(folder / new.name)
    shutil.rmtree(unfinished)


def _remove_all(folder: Path, *, but: str) -> None:
    """Remove what is in a folder, except for what has a name."""
    for path in [path for path in folder.iterdir() if path.name != but]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _goes_on(unfinished: Path, wanted: Mapping[str, Any] | None, *, folder: Path, force: bool) -> bool:
    """Whether unfinished work is of the same request; a UserError says if it is of another one and `force` is off."""
    if wanted is None or not (unfinished / REQUEST).is_file() or not _has_files(unfinished):
        return False
    before = read_json(unfinished / REQUEST)
    before = before if isinstance(before, dict) else {}
    # what the version that began it did not know is None
    different = [key for key in {**wanted, **before} if before.get(key) != wanted.get(key)]
    if force or not different:
        return not different
    differing = ", ".join(different)
    raise UserError(
        f"{folder.name} was begun and interrupted with other arguments; they differ in: {differing}. Give the same to "
        "go on, choose another name, or add --force to begin anew."
    )


def _has_files(unfinished: Path) -> bool:
    return any(path.is_file() and path.name not in (MARKER, REQUEST) for path in unfinished.rglob("*"))
