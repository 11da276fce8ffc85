"""Claims: who holds a file's lock may do what the file stands for. They end with the processes that hold them."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.programs import wait_until

PATIENCE_S = 1.0
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


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
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"{self.file} cannot be written ({error.strerror}).") from None
        if not wait_until(lambda: _locked(descriptor, fcntl.LOCK_EX, self.file), seconds=patience_s):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        self.write(content)
        return True

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace what others can read about the holder."""
        os.ftruncate(self.fileno(), 0)
        os.pwrite(self.fileno(), json.dumps(content).encode(), 0)

    def fileno(self) -> int:
        """The open file, for a child that is to hold the claim as well."""
        assert self._descriptor is not None
        return self._descriptor

    def release(self) -> None:
        """Let go; a child that holds the claim goes on holding it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def holder(file: Path) -> dict[str, Any] | None:
    """What the present holder of a claim says about itself; None if nobody holds it.

    Raises:
        UserError: if the file system has no locks.
    """
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if _locked(descriptor, fcntl.LOCK_SH, file):
            return None
        content = json.loads(os.pread(descriptor, 1 << 20, 0))
    except ValueError:  # being written right now
        return {}
    finally:
        os.close(descriptor)
    return content if isinstance(content, dict) else {}


def _locked(descriptor: int, kind: int, file: Path) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        raise UserError(
            f"The file system of {file.parent} has no file locks ({error.strerror}), so that nothing would keep two "
            "jobs from training one model. Use another one, or mount it with locks (Lustre: the option flock)."
        ) from None
    return True
