"""Parameter groups that are formed when it is known where each weight comes from, and found again in a checkpoint.

An optimizer's state names no parameters: a checkpoint's groups fit an optimizer with groups of the same sizes in the
same order. So each group keeps the places of its parameters among all of them.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import count, islice
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from nnunet_ext.finetuning.schedule import FACTOR

PLACES = "places"
"""The key of a group for the places of its parameters among all of the optimizer's, counted from 0."""
MEMBERS = ("params", PLACES)


def single_group(parameters: Iterable[Tensor]) -> list[dict[str, Any]]:
    """Parameters as one group, for `regroup` to divide."""
    chosen = list(parameters)
    return [{"params": chosen, PLACES: list(range(len(chosen))), FACTOR: 1.0}]


def regroup(optimizer: Optimizer, changes: Callable[[Tensor], Mapping[str, Any]] = lambda _: {}) -> None:
    """Put parameters with the same learning rate factor and weight decay into one group each.

    Few groups matter: an optimizer works through a group at once, and through groups one after another. What it keeps
    of each parameter stays.

    Args:
        optimizer: with groups that `single_group` or this function made.
        changes: what changes of a parameter's group: `FACTOR`, ``weight_decay`` or both.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for place, parameter, group in _in_order(optimizer):
        options = {**group, **changes(parameter)}
        kept = groups.setdefault((options[FACTOR], options["weight_decay"]), {**options, "params": [], PLACES: []})
        kept["params"].append(parameter)
        kept[PLACES].append(place)
    optimizer.param_groups = list(groups.values())


def find_groups_again(optimizer: Optimizer) -> None:
    """Let an optimizer take a state with other groups of the same parameters.

    Groups without places, which stock nnU-Net and earlier versions wrote, hold their parameters in order.
    """
    optimizer.register_load_state_dict_pre_hook(_take_groups_of)
    optimizer.register_load_state_dict_post_hook(regroup)


def _take_groups_of(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Give an optimizer groups like those of a state, which torch compares then."""
    following = count()
    saved = [
        {FACTOR: 1.0, PLACES: list(islice(following, len(group["params"]))), **group} for group in state["param_groups"]
    ]
    ordered = [(parameter, group) for _, parameter, group in _in_order(optimizer)]
    if sorted(place for group in saved for place in group[PLACES]) == list(range(len(ordered))):
        optimizer.param_groups = [
            {**ordered[0][1], "params": [ordered[place][0] for place in group[PLACES]]} for group in saved
        ]
    return {**state, "param_groups": saved}


def _in_order(optimizer: Optimizer) -> list[tuple[int, Tensor, dict[str, Any]]]:
    """Place, parameter, and the options of its group, by place."""
    found = [
        (place, parameter, {key: value for key, value in group.items() if key not in MEMBERS})
        for group in optimizer.param_groups
        for place, parameter in zip(group[PLACES], group["params"], strict=True)
    ]
    return sorted(found, key=lambda one: one[0])
