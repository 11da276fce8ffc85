"""Ending long work politely, whatever asks for it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
_replaced: dict[signal.Signals, object] = {}
"""The handlers that were there before, while `stopping_signals_interrupt` is in force."""


@contextmanager
def stopping_signals_interrupt() -> Iterator[None]:
    """Let a polite kill or a closed terminal do what Ctrl-C does, so that no command is left running.

    Only in this process: one that is forked meanwhile, such as a worker, has the handlers of before. In a thread that
    is not the main one, and in a block of its own, it does nothing.
    """
    if _replaced or threading.current_thread() is not threading.main_thread():
        yield
        return
    _replaced.update({number: signal.signal(number, _interrupt) for number in SIGNALS})
    try:
        yield
    finally:
        _restore()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _restore() -> None:
    while _replaced:
        number, handler = _replaced.popitem()
        signal.signal(number, handler)  # type: ignore[arg-type]


def _block() -> None:
    if _replaced:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _unblock() -> None:
    if _replaced:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _leave_to_child() -> None:
    if _replaced:
        _restore()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


if hasattr(os, "register_at_fork"):
    # Python forgets a signal that arrives between the fork and the child's first instruction. A pool that ends its
    # workers right after it has started them would wait for ever, so such a signal is held back until it is not lost.
    os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_leave_to_child)
