"""Signals that end long work, in this process and in workers that it forks."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from nnunet_ext.stopping import SIGNALS, no_interrupt_is_lost, stopping_signals_interrupt

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork, and another way to end a process")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_polite_kill_is_an_interrupt_and_the_old_handler_comes_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stopping_signals_interrupt():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) == before


def test_an_interrupt_that_a_library_turned_into_an_error_is_one():
    def draw():
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ValueError("Invalid affine transformation matrix") from None

    with pytest.raises(KeyboardInterrupt), stopping_signals_interrupt():
        draw()
    with pytest.raises(KeyboardInterrupt), stopping_signals_interrupt():  # what is caught inside of the block
        try:
            with no_interrupt_is_lost():
                draw()
        except ValueError:
            pass


def test_an_error_of_a_later_block_is_that_error():
    with pytest.raises(KeyboardInterrupt), stopping_signals_interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    with pytest.raises(ValueError, match="a fault"), no_interrupt_is_lost():
        raise ValueError("a fault")
    with pytest.raises(ValueError, match="a fault"), stopping_signals_interrupt(), no_interrupt_is_lost():
        raise ValueError("a fault")


def test_workers_that_are_ended_right_after_their_start_do_end():
    context = multiprocessing.get_context("fork")
    with stopping_signals_interrupt():
        for _ in range(20):
            worker = context.Process(target=time.sleep, args=(60,))
            worker.start()
            worker.terminate()
            worker.join(50)
            has_ended = worker.exitcode == -signal.SIGTERM
            worker.kill()
            assert has_ended
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_signal_that_was_answered_ends_no_later_block():
    script = """
import os, signal, time
from nnunet_ext import stopping
stopping.PATIENCE_S = 0.2
watch = stopping._watch
stopping._watch = lambda *arguments: (time.sleep(0.5), watch(*arguments))  # a thread that comes late
try:
    with stopping.stopping_signals_interrupt():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
except KeyboardInterrupt:
    with stopping.stopping_signals_interrupt():
        time.sleep(2)
        print("still there")
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "still there\n")


def test_what_is_ignored_stays_so(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopping_signals_interrupt():
            os.kill(os.getpid(), signal.SIGHUP)  # as of a terminal that was closed, under nohup
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_was_held_back_before_a_fork_is_held_back_after_it():
    context = multiprocessing.get_context("fork")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        with stopping_signals_interrupt():
            worker = context.Process(target=int)
            worker.start()
            worker.join(50)
            assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


LONG_CALL = """
import hashlib, threading
from nnunet_ext.stopping import stopping_signals_interrupt
with stopping_signals_interrupt():
    threading.Timer(1, print, ["begun"], {"flush": True}).start()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)  # one call, of some minutes
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_long_call_into_a_library_does_not_keep_it_waiting(number):
    # a suite that a shell runs in the background ignores Ctrl-C, and would hand that on
    script = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{LONG_CALL}"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (130, b"nnunet_ext: interrupted.\n")
