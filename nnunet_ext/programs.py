"""Programs that commands start: finding them, and ending them with everything that they have started."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from nnunet_ext.errors import UserError

PATIENCE_S = 10.0
PAUSE_S = 0.05


def find_executable(name: str) -> Path:
    """A program of this Python environment: beside the interpreter, else on PATH.

    Raises:
        UserError: if it is in neither place.
    """
    beside = shutil.which(name, path=str(Path(sys.executable).parent))
    found = beside or shutil.which(name)
    if found is None:
        raise UserError(f"{name} is neither beside {sys.executable} nor on PATH. Install nnunet_ext with pip first.")
    return Path(found)


def end_group(group: int, *, leader: subprocess.Popen[bytes] | None = None, patience_s: float = PATIENCE_S) -> None:
    """End a group of processes: ask, wait, kill what is left. On Windows, which has no such groups, the leader alone.

    Args:
        group: its id, which is the process id of its leader.
        leader: the leader, if it is a child of this process; it is waited for.
        patience_s: how long to wait, after asking and after killing.
    """
    if not hasattr(os, "killpg"):
        if leader is not None:
            leader.terminate()
            with suppress(subprocess.TimeoutExpired):
                leader.wait(timeout=patience_s)
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        # macOS forbids to signal a group of which only an ended process is left
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if leader is not None:
                leader.poll()
            if not group_exists(group):
                return
            time.sleep(PAUSE_S)


def group_exists(group: int) -> bool:
    """Whether a process of the group is there."""
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
