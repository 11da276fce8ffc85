"""A fixed sample of damaged inputs. ``make fuzz MINUTES=n`` goes on from there."""

import pytest

from fuzz.commands import COMMANDS
from fuzz.runs import GOOD, fuzz, run_command

pytestmark = pytest.mark.full

SAMPLE, BATCH = 300, 10


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.line[:40])
def test_every_command_works_on_what_is_valid(valid, tmp_path, command):
    """Otherwise a damaged input would show nothing."""
    status, output = run_command(command, valid, tmp_path)
    # 1: `check` finds the problems that this dataset has for the trainer
    assert status in ((0, 1) if command.line.startswith(("check", "advise")) else (0,)), output


@pytest.mark.parametrize("first", range(0, SAMPLE, BATCH))
def test_damaged_input_ends_in_a_message(valid, tmp_path, first):
    runs = [fuzz(seed, valid, tmp_path / str(seed)) for seed in range(first, first + BATCH)]
    wrong = [f"seed {run.seed}: {run.command}\n  {run.damage}\n  {run.verdict}" for run in runs if run.verdict != GOOD]
    assert not wrong, "\n".join(wrong)
