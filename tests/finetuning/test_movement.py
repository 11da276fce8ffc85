import pytest
import torch

from nnunet_ext.finetuning.movement import Movement, Share, shares_table
from nnunet_ext.finetuning.roles import Role

ROLES = {"a.weight": Role.CONVOLUTION, "b.weight": Role.CONVOLUTION, "a.bias": Role.BIAS}


def parameters() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.zeros(3, 5), "b.weight": torch.ones(5), "a.bias": torch.zeros(3)}


def started(values: dict[str, torch.Tensor]) -> Movement:
    movement = Movement(ROLES, {name: tensor.shape for name, tensor in values.items()})
    movement.start(values)
    return movement


def test_entries_that_ever_changed_are_counted_once_by_role():
    values = parameters()
    movement = started(values)
    values["a.weight"][0, 1] = 1.0
    movement.look(values)
    values["a.weight"][0, 1] = 2.0
    values["b.weight"][4] = 0.0
    movement.look(values)
    assert movement.shares() == {"convolution": Share(2, 20), "bias": Share(0, 3), "all": Share(2, 23)}


def test_an_entry_that_comes_back_to_its_start_has_moved():
    values = parameters()
    movement = started(values)
    values["a.bias"][2] = 1.0
    movement.look(values)
    values["a.bias"][2] = 0.0
    movement.look(values)
    assert movement.shares()["bias"] == Share(1, 3)


def test_a_resumed_movement_goes_on_where_it_was():
    values = parameters()
    whole = started(values)
    values["a.weight"][1, 1] = 1.0
    whole.look(values)
    resumed = Movement(ROLES, {name: tensor.shape for name, tensor in values.items()})
    resumed.load_state(whole.state())
    resumed.start(values)
    for movement in (whole, resumed):
        changed = {name: tensor.clone() for name, tensor in values.items()}
        changed["a.weight"][2, 4] = 1.0
        movement.look(changed)
    assert resumed.shares() == whole.shares()
    assert resumed.shares()["all"] == Share(2, 23)


def test_the_state_is_an_eighth_of_a_byte_an_entry_and_plain_numbers():
    movement = started(parameters())
    state = movement.state()
    assert {name: flags.numel() for name, flags in state["flags"].items()} == {
        "a.weight": 2,
        "b.weight": 1,
        "a.bias": 1,
    }
    assert state["shares"] == {"convolution": [0, 20], "bias": [0, 3], "all": [0, 23]}


def test_the_table_says_each_share():
    text = shares_table({"convolution": Share(1, 4), "all": Share(1, 2000)})
    assert text.splitlines() == ["  convolution   25.000 % of 4", "  all            0.050 % of 2,000"]


def test_the_fraction_is_between_zero_and_one():
    assert Share(1, 4).fraction == pytest.approx(0.25)
