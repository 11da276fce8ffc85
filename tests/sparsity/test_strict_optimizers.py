import copy

import pytest
import torch
from torch import nn

from nnunet_ext.sparsity.entries import Rows, keep_only, top_entries
from nnunet_ext.sparsity.strict_optimizers import StrictAdamW, StrictSGD

OPTIMIZERS = {
    "sgd": (StrictSGD, torch.optim.SGD, {"lr": 0.1}),
    "momentum": (StrictSGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (
        StrictSGD,
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.99, "nesterov": True, "weight_decay": 0.01},
    ),
    "adamw": (StrictAdamW, torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
}


def layers() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList([nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 2), nn.Linear(6, 5)])


def give_gradients(modules: nn.ModuleList, step: int, top_k: int) -> dict[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Random gradients, masked to the top entries of each row; returns what was selected."""
    generator = torch.Generator().manual_seed(step)
    selected = {}
    for layer in modules:
        for parameter in (layer.weight, layer.bias):
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        entries = top_entries(layer.weight.grad, Rows.of(layer), top_k)
        keep_only(layer.weight.grad, entries)
        selected[layer.weight] = entries
    return selected


def mask_of(weight: torch.Tensor, entries: tuple[torch.Tensor, ...]) -> torch.Tensor:
    mask = torch.zeros(weight.shape, dtype=torch.bool)
    mask[entries] = True
    return mask


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("top_k", [1, 2, 500])
def test_strict_step_changes_top_k_entries_per_row(name, top_k):
    strict, _, arguments = OPTIMIZERS[name]
    modules = layers()
    optimizer = strict(modules.parameters(), **arguments)
    for step in range(6):
        before = copy.deepcopy(modules)
        optimizer.selected = give_gradients(modules, step, top_k)
        optimizer.step()
        for layer, old in zip(modules, before):
            rows = Rows.of(layer)
            changed = layer.weight != old.weight
            assert torch.equal(changed, mask_of(layer.weight, optimizer.selected[layer.weight]))
            assert (rows.matrix(changed).sum(dim=1) == min(top_k, rows.length)).all()
            assert (layer.bias != old.bias).all()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_selected_entries_and_free_parameters_move_as_with_torchs_own_optimizer(name):
    strict, stock, arguments = OPTIMIZERS[name]
    modules = layers()
    optimizer = strict(modules.parameters(), **arguments)
    for step in range(6):
        # torch's optimizer takes the same step from the same weights and the same state, on a copy
        twin = copy.deepcopy(modules)
        reference = stock(twin.parameters(), **arguments)
        reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        before = copy.deepcopy(modules)
        optimizer.selected = give_gradients(modules, step, 2)
        give_gradients(twin, step, 2)
        optimizer.step()
        reference.step()
        for layer, other, old in zip(modules, twin, before):
            mask = mask_of(layer.weight, optimizer.selected[layer.weight])
            assert torch.equal(layer.weight, torch.where(mask, other.weight, old.weight))
            assert torch.equal(layer.bias, other.bias)
        for parameter, other in zip(modules.parameters(), twin.parameters()):
            state, of_reference = optimizer.state[parameter], reference.state[other]
            assert state.keys() == of_reference.keys()
            assert all(torch.equal(torch.as_tensor(state[k]), torch.as_tensor(of_reference[k])) for k in state)


def test_a_masked_gradient_alone_does_not_keep_a_weight_in_its_place():
    # why the strict optimizers exist: 50 steps without any gradient, by momentum and decay
    weight = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    weight.grad = torch.ones(1)
    optimizer.step()
    after_its_step = weight.item()
    for _ in range(50):
        weight.grad = torch.zeros(1)
        optimizer.step()
    # the velocity 1 goes on as 0.99 + 0.99^2 + … (Nesterov adds one factor): 0.01 * sum of 0.99^(t+1), t = 1 … 50
    expected = 0.01 * sum(0.99 ** (t + 1) for t in range(1, 51))
    assert after_its_step - weight.item() == pytest.approx(expected, rel=1e-3)
    assert expected == pytest.approx(0.387, abs=1e-3)


def test_strict_sgd_by_hand():
    weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    optimizer = StrictSGD([weight], lr=0.1, momentum=0.5, weight_decay=0.0)
    first, second = (torch.tensor([[0]]), torch.tensor([[0]])), (torch.tensor([[0]]), torch.tensor([[1]]))
    weight.grad, optimizer.selected = torch.tensor([[4.0, 0.0]]), {weight: first}
    optimizer.step()  # velocity (4, 0); entry 0: 1 - 0.1 * 4
    assert weight.tolist() == [[pytest.approx(0.6), 2.0]]
    weight.grad, optimizer.selected = torch.tensor([[0.0, 1.0]]), {weight: second}
    optimizer.step()  # velocity (2, 1): entry 0 keeps its place although it has velocity; entry 1: 2 - 0.1 * 1
    assert weight.tolist() == [[pytest.approx(0.6), pytest.approx(1.9)]]
    weight.grad, optimizer.selected = torch.tensor([[1.0, 0.0]]), {weight: first}
    optimizer.step()  # velocity (2, 0.5); entry 0: 0.6 - 0.1 * 2
    assert weight.tolist() == [[pytest.approx(0.4), pytest.approx(1.9)]]


def test_a_parameter_without_gradient_or_selection_is_left_alone_or_free():
    modules = layers()
    optimizer = StrictSGD(modules.parameters(), lr=0.1)
    selected = give_gradients(modules, 0, 1)
    modules[0].weight.grad = None
    optimizer.selected = {modules[0].weight: selected[modules[0].weight]}
    before = copy.deepcopy(modules)
    optimizer.step()
    assert torch.equal(modules[0].weight, before[0].weight)
    assert torch.equal(modules[1].weight != before[1].weight, modules[1].weight.grad != 0)


def test_groups_keep_their_own_learning_rates_and_the_closure_is_called_once():
    modules = layers()
    groups = [{"params": [modules[0].weight], "lr": 0.0}, {"params": [modules[1].weight]}]
    optimizer = StrictSGD(groups, lr=0.5)
    calls = []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        optimizer.selected = give_gradients(modules, 0, 1)
        return 3.0

    before = copy.deepcopy(modules)
    assert optimizer.step(closure) == 3.0
    assert calls == [True]
    assert torch.equal(modules[0].weight, before[0].weight)
    assert not torch.equal(modules[1].weight, before[1].weight)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]


def test_layouts_in_memory_move_the_same_entries():
    plain, last = layers()[0], layers()[0].to(memory_format=torch.channels_last)
    for layer in (plain, last):
        optimizer = StrictSGD(layer.parameters(), lr=0.1, momentum=0.9)
        optimizer.selected = give_gradients(nn.ModuleList([layer]), 0, 2)
        optimizer.step()
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.weight, last.weight)


def test_state_goes_to_torchs_optimizer_and_back():
    modules = layers()
    optimizer = StrictAdamW(modules.parameters(), lr=0.1)
    optimizer.selected = give_gradients(modules, 0, 1)
    optimizer.step()
    stock = torch.optim.AdamW(modules.parameters(), lr=0.1)
    stock.load_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(stock.state_dict())
    assert copy.deepcopy(optimizer).selected == {}
