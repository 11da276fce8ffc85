"""Ctrl-C and a polite kill at a random moment: one line, no process left, and the next run succeeds."""

import signal

import numpy as np
import pytest

from faults.commands import LONGEST_S, WRITING, Written
from nnunet_ext import cli
from nnunet_ext.programs import group_exists, wait_until

pytestmark = pytest.mark.full


def interrupt(written, number, seconds):
    """Send a signal some seconds after the command has begun; the exit status."""
    begun = written.folder / "begun"

    def note_begin():
        build_parser = cli.build_parser
        cli.build_parser = lambda: (begun.touch(), build_parser())[1]  # what it does first

    process = written.start(before=note_begin)
    assert wait_until(lambda: begun.exists() or process.poll() is not None, seconds=LONGEST_S)
    process.wait(seconds)
    process.signal(number)
    status = process.wait(LONGEST_S)
    nobody_left = wait_until(lambda: not group_exists(process.pid), seconds=LONGEST_S)
    process.kill()
    assert nobody_left, "a process is left"
    return status


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("number", range(len(WRITING)), ids=lambda number: WRITING[number].line[:40])
def test_an_interrupted_command_says_so_and_can_be_repeated(number, signal_number, valid, tmp_path, expected):
    command, rng = WRITING[number], np.random.default_rng((number, signal_number))
    undisturbed, seconds = expected(command)
    whole = undisturbed.result()
    written = Written.prepare(command, valid, tmp_path / "interrupted")
    status = interrupt(written, signal_number, rng.uniform(0, seconds))
    if status == -signal_number:  # the command had ended, and Python was leaving
        assert written.result() == whole, written.output
        return
    assert status in (0, 130), written.output
    if status:
        lines = [line for line in written.output.splitlines() if line.endswith("interrupted.")]
        assert lines in ([f"nnunet_ext {command.line.split()[0]}: interrupted."], ["nnunet_ext: interrupted."])
    assert "Traceback" not in written.output
    assert set(written.new().items()) <= set(whole.items()), "half of a file has a final name"
    assert status == 0 or written.repeat(), written.output
    assert written.result() == whole
    assert written.inputs_changed() == []
    assert written.left_hidden() == []
