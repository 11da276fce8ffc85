"""One function on many cases: in this process first and, if that takes long, in several."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from nnunet_ext.errors import UserError

SECONDS_ALONE = 5.0  # about as long as it takes to start processes that import nnU-Net

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_order(
    function: Callable[[Item], Answer], items: Iterable[Item], *, workers: int
) -> Generator[Answer, None, None]:
    """The function's answers in the items' order, whichever process they come from.

    Processes are started for what is left after `SECONDS_ALONE` in this one, if that is at least two items. They are
    new processes, not forks, as torch's threads do not survive a fork. Close the iterator (``contextlib.closing``) to
    end them at once when an exception, such as that of Ctrl-C, ends the loop early.

    Args:
        function: with more than one worker it has to be picklable, such as one of a module.
        items: what it takes; picklable too.
        workers: at most as many processes; 1 stays in this one.

    Raises:
        UserError: as the function does, for the first item in order for which it does; or if a process was killed.
    """
    left = deque(items)
    started = time.monotonic()
    while left and (min(workers, len(left)) == 1 or time.monotonic() - started < SECONDS_ALONE):
        yield function(left.popleft())
    if left:
        yield from _in_processes(function, left, workers=min(workers, len(left)))


def _in_processes(
    function: Callable[[Item], Answer], items: Iterable[Item], *, workers: int
) -> Generator[Answer, None, None]:
    executor = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker)
    try:
        with _interrupts_held_back():
            answers = [executor.submit(function, item) for item in items]
        for answer in answers:
            yield answer.result()
    except BrokenProcessPool:
        raise UserError(
            f"One of {workers} processes was killed, as happens when memory runs out. Use fewer: --workers 1 needs the "
            "least."
        ) from None
    finally:
        # shutdown alone would wait for what they are at (Python 3.14 has terminate_workers for this)
        for process in list(executor._processes.values()):
            process.terminate()
        executor.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Let Ctrl-C wait, so that no process that is started meanwhile is lost sight of.

    Such a process has Ctrl-C held back from its first instruction on: a terminal sends it to all, and the workers'
    complaints would hide what this process has to say.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to act on
    os.environ["OMP_NUM_THREADS"] = "1"  # for torch, if a metric needs it: the processes share the cores already
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
