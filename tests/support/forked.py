"""Commands in processes that are forked from one that has imported everything, in groups of their own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from support.nnunet_runs import fork_pools


class Forked:
    """A function that runs in a forked process, the leader of a session.

    Args:
        function: returns the exit status.
        folder: where it runs.
        environment: variables beside the present ones.
        output: file that gets what it prints.
    """

    def __init__(
        self, function: Callable[[], int | None], *, folder: Path, environment: Mapping[str, str], output: Path
    ) -> None:
        self.pid = os.fork()
        self.status: int | None = None
        if self.pid == 0:
            _child(function, folder, environment, output)  # never returns

    def poll(self) -> int | None:
        """The exit status, negative after a signal; None as long as it runs."""
        if self.status is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if ended else None
        return self.status

    def wait(self, seconds: float) -> int | None:
        """Wait for its end, but no longer than some time; the exit status, None if it still runs."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.status

    def signal(self, number: int) -> None:
        """Send it a signal, and it alone, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> int | None:
        """Kill it and all that it has started and left behind; its exit status."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status


def _child(function: Callable[[], int | None], folder: Path, environment: Mapping[str, str], output: Path) -> None:
    status = 70
    try:
        os.setsid()
        # a suite that a shell runs in the background ignores Ctrl-C, and would hand that on
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        os.chdir(folder)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
        fork_pools()
        status = function() or 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 2
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
