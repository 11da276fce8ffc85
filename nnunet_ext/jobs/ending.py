"""Ending a command together with everything that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

PATIENCE_S = 10.0
PAUSE_S = 0.05


def end_group(group: int, *, leader: subprocess.Popen[bytes] | None = None, patience_s: float = PATIENCE_S) -> None:
    """End a group of processes: ask, wait, kill what is left.

    Args:
        group: its id, which is the process id of its leader.
        leader: the leader, if it is a child of this process; it is waited for.
        patience_s: how long to wait, after asking and after killing.
    """
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
