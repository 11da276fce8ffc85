"""What is killed at a random moment is repeated, and ends as if nothing had happened. ``make faults`` kills more."""

import pytest

from faults.commands import WRITING, kill_and_repeat
from faults.killed_training import TRAINERS, KilledTraining

pytestmark = pytest.mark.full

KILLS = 4


@pytest.mark.parametrize("seed", range(len(WRITING)), ids=lambda number: WRITING[number].line[:40])
def test_a_command_that_was_killed_can_be_repeated(seed, valid, tmp_path, expected):
    command = WRITING[seed]
    killed, wrong = kill_and_repeat(command, valid, tmp_path, expected(command), kills=KILLS, seed=seed)
    assert killed, "it ended before every kill"
    assert not wrong, "\n".join(wrong)


def test_a_training_that_was_killed_ends_as_if_nothing_had_happened(workspace, tmp_path):
    killed = KilledTraining(TRAINERS[0], workspace.preprocessed, tmp_path, seed=0)
    assert killed.kill_until_it_ends(KILLS) == []
    assert killed.kills
