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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.messages import quoted

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What a disk, a quota or a limit of the file system or of the process says when there is no room left."""

LONGEST_PART = 200
"""Bytes of a file's name that are part of the name of its temporary file."""


@contextmanager
def written_whole(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target` that replaces it only if the block ends without an exception.

    A full disk, Ctrl-C or an error inside the block leaves an existing `target` as it was and removes the temporary
    file. A loss of power leaves the old content or the new one. Permissions stay.
    """
    target = Path(target)
    _remove_abandoned(target)
    temporary = target.with_name(f"{_beginning(target)}.{machine()}-{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        flush_to_disk(temporary)
        if target.is_file() and not target.is_symlink():
            with suppress(OSError):  # where the file system has no permissions
                shutil.copymode(target, temporary)
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


def _beginning(target: Path) -> str:
    """What the names of a file's temporary files begin with: as much of its own as a file system has room for."""
    return f".{os.fsencode(target.name)[:LONGEST_PART].decode(errors='ignore')}"


def flush_to_disk(file: Path) -> None:
    """Have the system write a file's content to the disk now: it does so later, and a name may be there before."""
    with file.open("r+b") as handle:
        os.fsync(handle.fileno())


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
    for file in target.parent.glob(f"{glob.escape(_beginning(target))}.{machine()}-*.tmp"):
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
    """Write `text` as UTF-8, whole or not at all; what UTF-8 lacks, such as bytes of a file's name, as an escape."""
    with written_whole(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(target: str | os.PathLike[str], content: Any) -> None:
    """Write `content` as indented JSON in its own key order, whole or not at all."""
    write_text(target, json.dumps(content, indent=4) + "\n")


def read_json(source: str | os.PathLike[str]) -> Any:
    """Read a JSON file; a UserError says if it is missing, cannot be read, is not JSON or has a key twice."""
    try:
        text = Path(source).read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=lambda pairs: _with_each_key_once(pairs, source))
    except FileNotFoundError:
        raise UserError(f"{source} does not exist.") from None
    except OSError as error:
        raise UserError(f"{source} cannot be read ({error.strerror}).") from None
    except RecursionError:
        raise UserError(f"{source} is not usable: its JSON is nested too deeply.") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise UserError(f"{source} is not valid JSON: {error}") from None


def _with_each_key_once(pairs: Sequence[tuple[str, Any]], source: str | os.PathLike[str]) -> dict[str, Any]:
    """An object of a JSON file; a UserError if a key has two values, of which Python would take the last."""
    content = dict(pairs)
    # NaN, which nnU-Net writes, does not equal itself
    differing = (key for key, value in pairs if content[key] is not value and content[key] != value)
    if (twice := next(differing, None)) is not None:
        raise UserError(f"{source} has the key {quoted(twice)} with two values in one object {{…}}. Keep one of them.")
    return content


def check_new_file(
    target: Path,
    *,
    force: bool,
    ending: str | tuple[str, ...],
    is_own: Callable[[Path], bool],
    sources: Iterable[Path] = (),
) -> None:
    """Raise a UserError unless a file can be written behind ``-o``, before any work is done.

    Args:
        target: the file.
        force: replace what the same command has made.
        ending: of its name, such as ``.zip``, or several that it may have.
        is_own: whether a file, which has content, was made by the same command.
        sources: what the command reads, which is never replaced.
    """
    if target.is_dir():
        raise UserError(f"{target} is a folder; the name of a file is needed behind -o.")
    if not target.name.endswith(ending):
        endings = ending if isinstance(ending, str) else " or ".join(ending)
        raise UserError(f"-o needs the name of a file that ends in {endings}; found {target}.")
    if not target.parent.is_dir():
        raise UserError(f"The folder {target.parent} does not exist. Make it, or choose another for -o.")
    if target.exists():
        if any(source.exists() and target.samefile(source) for source in sources):
            raise UserError(f"{target} is the source itself. Choose another name for -o.")
        if not target.is_file() or target.stat().st_size and not is_own(target):
            raise UserError(
                f"{target} exists and does not say that this command made it (files of older versions may not), so it "
                "is kept, even with --force. Choose another name, or move or remove it."
            )
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


def check_apart(output: Path, inputs: Iterable[Path]) -> None:
    """Raise a UserError if a result would lie in, over or above what it is made from, before any work is done."""
    target = Path(os.path.realpath(output))  # unlike `resolve`, takes a link in a circle
    for given in inputs:
        source = Path(os.path.realpath(given))
        inside = source.is_dir() and source in target.parents
        if target == source or target in source.parents or inside:
            where = "is" if target == source else "lies in" if inside else "would replace what contains"
            raise UserError(f"The output {output} {where} the input {given}. Choose another name.")


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` show what is at `source`: a symbolic link, or a copy where links are not possible."""
    try:
        target.symlink_to(source.resolve(), target_is_directory=source.is_dir())
    except OSError:
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
