"""Ending long work politely, whatever asks for it."""

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
PATIENCE_S = 1.5
_replaced: dict[signal.Signals, object] = {}
"""The handlers that were there before, while `stopping_signals_interrupt` is in force."""
_noticed = [threading.Event()]
"""Set when the signal is no longer waited for; one for each block, as its thread may look late."""
_mask: set[int | signal.Signals] = set()
"""The signals that were held back before a fork."""


@contextmanager
def stopping_signals_interrupt() -> Iterator[None]:
    """Let a polite kill or a closed terminal do what Ctrl-C does, so that no command is left running.

    What is ignored, as under ``nohup``, stays so. Only in this process: one that is forked meanwhile, such as a worker,
    has the handlers of before. In a thread that is not the main one, and in a block of its own, it does nothing.

    Raises:
        KeyboardInterrupt: on a signal, also in place of an error that a library made of it.
    """
    if _replaced or threading.current_thread() is not threading.main_thread():
        yield
        return
    heeded = [number for number in SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    _replaced.update({number: signal.signal(number, _interrupt) for number in heeded})
    try:
        with _long_calls_ended(), no_interrupt_is_lost():
            yield
    finally:
        _restore()


@contextmanager
def no_interrupt_is_lost() -> Iterator[None]:
    """Within `stopping_signals_interrupt`, raise KeyboardInterrupt for an error that follows an interrupt.

    Code in C++ that is called back while it runs, such as matplotlib's, answers an interrupt by an error of its own.
    """
    try:
        yield
    except Exception as error:
        if _replaced and _noticed[0].is_set():
            raise KeyboardInterrupt from error
        raise


def leave_quickly(status: int) -> NoReturn:
    """Leave the process without taking its modules apart, which takes those of torch seconds on a busy machine."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError):  # who reads it has left; a program without a console has none
            stream.flush()
    os._exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    _noticed[0].set()
    raise KeyboardInterrupt


@contextmanager
def _long_calls_ended() -> Iterator[None]:
    """End this process if a signal has to wait for a library: Python answers between two instructions of its own.

    It is then as after ``kill -9``: what is unfinished is hidden, and the next run removes it.
    """
    noticed = _noticed[0] = threading.Event()
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    threading.Thread(target=_watch, args=(reading, noticed), daemon=True).start()
    before = signal.set_wakeup_fd(writing)  # gets the number of a signal at once
    try:
        yield
    finally:
        noticed.set()
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        os.close(writing)


def _watch(reading: int, noticed: threading.Event) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they are the main thread's, which may hold them back
    with os.fdopen(reading, "rb", buffering=0) as numbers:
        while (number := numbers.read(1)) not in (b"", b"\0"):
            if number[0] in SIGNALS and not noticed.wait(PATIENCE_S):
                for child in multiprocessing.active_children():
                    child.kill()
                print("nnunet_ext: interrupted.", file=sys.stderr, flush=True)
                os._exit(130)


def _restore() -> None:
    while _replaced:
        number, handler = _replaced.popitem()
        signal.signal(number, handler)  # type: ignore[arg-type]


def _block() -> None:
    if _replaced:
        _mask.clear()
        _mask.update(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))


def _unblock() -> None:
    if _replaced:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


def _leave_to_child() -> None:
    if _replaced:
        signal.set_wakeup_fd(-1)
        _restore()
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask)


if hasattr(os, "register_at_fork"):
    # Python forgets a signal that arrives between the fork and the child's first instruction. A pool that ends its
    # workers right after it has started them would wait for ever, so such a signal is held back until it is not lost.
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_leave_to_child)
