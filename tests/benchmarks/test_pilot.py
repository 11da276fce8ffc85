import math

import pytest

from benchmarks.pilot import best_lr, chosen_lrs, pilot_content, pilot_table
from nnunet_ext.errors import UserError


def test_best_learning_rate_is_the_smaller_of_equals_and_never_one_without_dice():
    assert best_lr({0.01: 0.8, 0.001: 0.8, 0.1: math.nan}) == 0.001
    assert best_lr({0.01: 0.9, 0.001: 0.8}) == 0.01
    with pytest.raises(ValueError, match="No training of the pilot"):
        best_lr({0.01: math.nan})


def test_every_family_gets_its_own_learning_rate():
    assert chosen_lrs({"a": {0.1: 0.5, 0.2: 0.6}, "b": {0.1: 0.7, 0.2: 0.6}}) == {"a": 0.2, "b": 0.1}


def test_family_without_any_dice_asks_for_other_learning_rates():
    with pytest.raises(UserError, match="Give other --lrs"):
        chosen_lrs({"a": {0.1: math.nan}})


def test_table_shows_every_training_and_the_choice():
    table = pilot_table(pilot_content({"a": {0.1: 0.5, 0.2: 0.6}, "b": {0.1: math.nan}}))
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in (table[0], *table[2:])] == [
        ["", "lr 0.1", "lr 0.2", "chosen"],
        ["a", "0.500", "0.600", "0.2"],
        ["b", "", "", ""],
    ]
    assert pilot_table({}) == ["Not run."]
