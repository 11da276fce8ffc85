"""What is killed at a random moment is repeated, and ends as if nothing had happened. ``make faults`` kills more."""

import numpy as np
import pytest

from faults.commands import WRITING, Written
from faults.killed_training import TRAINERS, KilledTraining

pytestmark = pytest.mark.full

KILLS = 4
EXISTS = "add --force to replace it"


@pytest.mark.parametrize("number", range(len(WRITING)), ids=lambda number: WRITING[number].line[:40])
def test_a_command_that_was_killed_can_be_repeated(number, valid, tmp_path, expected):
    command, rng = WRITING[number], np.random.default_rng(number)
    undisturbed, seconds = expected(command)
    whole = undisturbed.result()
    written = Written.prepare(command, valid, tmp_path / "killed")
    for _ in range(KILLS):
        process = written.start()
        if process.wait(rng.uniform(0, seconds)) is None:
            process.kill()
    assert written.run() == 0 or (EXISTS in written.output and "--force" not in command.line), written.output
    assert written.result() == whole
    assert written.inputs_changed() == []
    assert written.left_hidden() == []


def test_a_training_that_was_killed_ends_as_if_nothing_had_happened(workspace, tmp_path):
    killed = KilledTraining(TRAINERS[0], workspace.preprocessed, tmp_path, seed=0)
    assert killed.kill_until_it_ends(KILLS) == []
    assert killed.kills
