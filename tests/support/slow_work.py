"""A program whose worker processes are busy for long: ``python -m support.slow_work FOLDER``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from nnunet_ext.evaluation import parallel

WORKERS = 2


def leave_name_and_sleep(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(30)


if __name__ == "__main__":
    # a suite that a shell runs in the background ignores Ctrl-C, and would hand that on
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parallel.SECONDS_ALONE = 0
    try:
        list(parallel.in_order(leave_name_and_sleep, [Path(sys.argv[1])] * 6, workers=WORKERS))
    except KeyboardInterrupt:
        print("interrupted")
