"""Claims: who holds a file's lock may do what the file stands for. They end with the processes that hold them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.programs import wait_until

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PATIENCE_S = 1.0
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
BEHIND_CONTENT = 1 << 30  # Windows lets nobody read what is locked
LONGEST_PART = 50  # characters of a name, each of up to four bytes, in that of its lock


class Claim:
    """An exclusive lock on a file, in which its holder says who it is.

    The kernel keeps the lock as long as a process has the open file, be it this one or a child that got it by `fileno`.
    Nothing is left to clean up after ``kill -9`` or a loss of power.

    Args:
        file: made when the claim is taken, and left behind.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._descriptor: int | None = None

    def take(self, content: Mapping[str, Any], *, patience_s: float = PATIENCE_S) -> bool:
        """Take the claim, unless another process has it.

        Args:
            content: what others can read about the holder; JSON.
            patience_s: how long to wait for another to let go. `holder` holds the lock for a moment, too.

        Raises:
            UserError: if the file cannot be written, or its file system has no locks.
        """
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            if not wait_until(self._attempt, seconds=patience_s):
                return False
            self.write(content)
        except OSError as error:
            self.release()
            raise UserError(f"{self.file} cannot be written ({error.strerror}).") from None
        return True

    def _attempt(self) -> bool:
        # no link is followed: in a temporary folder that others share, it may lead anywhere
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(self.file, flags, 0o666)
        try:
            if _locked(descriptor, self.file) and _is_open(self.file, descriptor):
                self._descriptor = descriptor
        finally:
            if self._descriptor is None:
                os.close(descriptor)
        return self._descriptor is not None

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace what others can read about the holder."""
        os.ftruncate(self.fileno(), 0)
        os.lseek(self.fileno(), 0, os.SEEK_SET)
        os.write(self.fileno(), json.dumps(content).encode())

    def fileno(self) -> int:
        """The open file, for a child that is to hold the claim as well."""
        assert self._descriptor is not None
        return self._descriptor

    def release(self) -> None:
        """Let go; a child that holds the claim goes on holding it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def remove(self) -> None:
        """Let go, and leave no file behind."""
        with suppress(OSError):  # Windows removes no file that is open
            self.file.unlink()
        self.release()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(file: Path) -> dict[str, Any] | None:
    """What the present holder of a claim says about itself; None if nobody holds it.

    It is empty if that cannot be read: at the moment when it is written, and always on an SMB share, which lets nobody
    else read what is locked.

    Raises:
        UserError: if the file system has no locks.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if _locked(descriptor, file, shared=True):
            return None
        content = json.loads(os.read(descriptor, 1 << 20))
    except (ValueError, PermissionError):
        return {}
    finally:
        os.close(descriptor)
    return content if isinstance(content, dict) else {}


def lock_name(name: str) -> str:
    """The name of the lock beside a file or folder, on every machine the same and for every name another."""
    rest = f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}" if len(name) > LONGEST_PART else ""
    return f".{name[:LONGEST_PART]}{rest}.lock"


@contextmanager
def only_run(target: str | os.PathLike[str], *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Let one run at a time write a file or folder, on this machine and on others that share the file system.

    Where no lock is possible, such as in a file system without, nothing keeps another run away.

    Args:
        target: what is written; its folder need not exist.
        patience_s: how long to wait for another run.

    Raises:
        UserError: if another run is at it for longer.
    """
    place = Path(os.path.realpath(target))
    name = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    locks = [Path(tempfile.gettempdir(), f"nnunet_ext_{name}.lock")]  # the target's folder may be made meanwhile
    if place.parent.is_dir():
        locks.append(place.with_name(lock_name(place.name)))
    with ExitStack() as held:
        for claim in map(Claim, locks):
            try:
                taken = claim.take({"host": socket.gethostname(), "pid": os.getpid()}, patience_s=patience_s)
            except UserError:
                continue
            if not taken:
                other = holder(claim.file)
                who = f" (process {other['pid']} on {other['host']})" if other and {"pid", "host"} <= set(other) else ""
                raise UserError(f"Another run{who} is writing {target}. Wait for its end, or choose another name.")
            held.callback(claim.remove)
        yield


def _is_open(file: Path, descriptor: int) -> bool:
    """Whether a file is still the one that was opened: its holder may have removed it meanwhile."""
    with suppress(FileNotFoundError):
        return os.path.samestat(file.stat(), os.fstat(descriptor))
    return False


def _locked(descriptor: int, file: Path, *, shared: bool = False) -> bool:
    try:
        _lock(descriptor, shared=shared)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        raise UserError(
            f"The file system of {file.parent} has no file locks ({error.strerror}), so that nothing would keep two "
            "jobs from training one model. Use another one, or mount it with locks (Lustre: the option flock)."
        ) from None
    return True


def _lock(descriptor: int, *, shared: bool) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, BEHIND_CONTENT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
