"""Few parameter groups, and a state that finds its own again."""

import copy

import pytest
import torch
from torch import nn

from nnunet_ext.finetuning.groups import PLACES, find_groups_again, regroup, single_group
from nnunet_ext.finetuning.schedule import FACTOR
from nnunet_ext.finetuning.strict_optimizers import StrictAdamW, StrictSGD

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.01),
    "strict sgd": lambda groups: StrictSGD(groups, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "strict adamw": lambda groups: StrictAdamW(groups, lr=0.1, weight_decay=0.01),
}
HELD = (0, 3, 4)
"""Parameters with a factor and a decay of their own."""


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, size, generator=generator)) for size in range(1, 7)]


def divided(optimizer, given):
    held = {id(given[place]) for place in HELD}
    changed = {FACTOR: 0.5, "weight_decay": 0.0}
    regroup(optimizer, lambda parameter: changed if id(parameter) in held else {})
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group[FACTOR]


def one_each(optimizer):
    """Groups as they were before parameters shared them."""
    found = [(one, group) for group in optimizer.param_groups for one in group["params"]]
    optimizer.param_groups = [
        {**{key: value for key, value in group.items() if key != PLACES}, "params": [parameter]}
        for parameter, group in sorted(found, key=lambda one: one[0].numel())
    ]


def take_steps(optimizer, given, number=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        for parameter in given:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        if hasattr(optimizer, "selected"):
            optimizer.selected = {given[place]: torch.tensor([0, 2]) for place in (0, 1, 4)}
        optimizer.step()


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_steps_of_few_groups_equal_those_of_a_group_for_each_parameter(kind):
    ends = []
    for is_divided in (False, True):
        given = parameters()
        optimizer = OPTIMIZERS[kind](single_group(given))
        divided(optimizer, given)
        assert len(optimizer.param_groups) == 2
        if is_divided:
            one_each(optimizer)
            assert len(optimizer.param_groups) == len(given)
        take_steps(optimizer, given)
        ends.append(given)
    assert all(torch.equal(first, second) for first, second in zip(*ends, strict=True))


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("is_older", [False, True])
def test_state_goes_to_the_parameters_that_it_is_of(kind, is_older):
    given = parameters()
    optimizer = OPTIMIZERS[kind](single_group(given))
    find_groups_again(optimizer)
    divided(optimizer, given)
    take_steps(optimizer, given)
    if is_older:
        one_each(optimizer)
    state, values = copy.deepcopy(optimizer.state_dict()), [one.detach().clone() for one in given]
    take_steps(optimizer, given, seed=2)

    again = [nn.Parameter(value) for value in values]
    resumed = OPTIMIZERS[kind](single_group(again))
    find_groups_again(resumed)
    resumed.load_state_dict(state)
    assert [sorted(group[PLACES]) for group in resumed.param_groups] == [list(HELD), [1, 2, 5]]
    take_steps(resumed, again, seed=2)
    assert all(torch.equal(first, second) for first, second in zip(given, again, strict=True))


def test_state_of_a_single_group_without_places_is_taken_in_order():
    given = parameters()
    stock = torch.optim.SGD(given, lr=0.1, momentum=0.9)
    take_steps(stock, given)
    again = [nn.Parameter(one.detach().clone()) for one in given]
    optimizer = OPTIMIZERS["sgd"](single_group(again))
    find_groups_again(optimizer)
    optimizer.load_state_dict(stock.state_dict())
    for old, new in zip(given, again, strict=True):
        assert torch.equal(stock.state[old]["momentum_buffer"], optimizer.state[new]["momentum_buffer"])


def test_state_of_other_parameters_is_refused_by_torch():
    optimizer = OPTIMIZERS["sgd"](single_group(parameters()))
    find_groups_again(optimizer)
    with pytest.raises(ValueError, match="size"):
        optimizer.load_state_dict(torch.optim.SGD(parameters()[:3], lr=0.1).state_dict())
