"""Signals that end long work, in this process and in workers that it forks."""

import multiprocessing
import os
import signal
import time

import pytest

from nnunet_ext.stopping import SIGNALS, stopping_signals_interrupt

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork, and another way to end a process")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_polite_kill_is_an_interrupt_and_the_old_handler_comes_back(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), stopping_signals_interrupt():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert signal.getsignal(number) == before


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
