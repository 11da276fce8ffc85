"""Against scalar optimizers in double precision, one for each entry, that step only when their entry is selected."""

import copy
import io
import math

import pytest
import torch
from torch import nn

from nnunet_ext.finetuning.entries import Rows, keep_only, top_entries
from nnunet_ext.finetuning.strict_optimizers import StrictAdamW, StrictSGD


class ScalarSGD:
    """One weight under SGD."""

    def __init__(self, weight, *, lr, momentum=0.0, nesterov=False, weight_decay=0.0):
        self.weight, self.velocity = weight, 0.0
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay

    def step(self, gradient):
        gradient = gradient + self.weight_decay * self.weight
        self.velocity = self.momentum * self.velocity + gradient
        self.weight -= self.lr * (gradient + self.momentum * self.velocity if self.nesterov else self.velocity)


class ScalarAdamW:
    """One weight under AdamW (arXiv 1711.05101, algorithm 2)."""

    def __init__(self, weight, *, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        self.weight, self.mean, self.square, self.steps = weight, 0.0, 0.0, 0
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay

    def step(self, gradient):
        first, second = self.betas
        self.steps += 1
        self.mean = first * self.mean + (1 - first) * gradient
        self.square = second * self.square + (1 - second) * gradient**2
        unbiased = self.mean / (1 - first**self.steps)
        deviation = math.sqrt(self.square / (1 - second**self.steps)) + self.eps
        self.weight -= self.lr * (unbiased / deviation + self.weight_decay * self.weight)


OPTIMIZERS = {
    "no momentum": (StrictSGD, torch.optim.SGD, ScalarSGD, {"lr": 0.1}),
    "no momentum, decay": (StrictSGD, torch.optim.SGD, ScalarSGD, {"lr": 0.1, "weight_decay": 0.1}),
    "momentum": (StrictSGD, torch.optim.SGD, ScalarSGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "nesterov": (
        StrictSGD,
        torch.optim.SGD,
        ScalarSGD,
        {"lr": 0.1, "momentum": 0.99, "nesterov": True, "weight_decay": 0.01},
    ),
    "adamw": (StrictAdamW, torch.optim.AdamW, ScalarAdamW, {"lr": 0.1, "weight_decay": 0.1}),
    "adamw, other betas": (
        StrictAdamW,
        torch.optim.AdamW,
        ScalarAdamW,
        {"lr": 0.1, "betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 0.0},
    ),
}
STEPS = 8


def layers():
    torch.manual_seed(0)
    return nn.ModuleList([nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 3, 2), nn.Linear(6, 5)])


def give_gradients(modules, step, top_k):
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


def mask_of(weight, entries):
    mask = torch.zeros(weight.shape, dtype=torch.bool)
    mask.view(-1)[entries] = True
    return mask


def tensors_of(state):
    return {name: value for name, value in state.items() if value.ndim}


# ---------------------------------------------------------------------- what moves, and how far


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("top_k", [1, 3, 500])
def test_every_entry_moves_as_if_it_had_an_optimizer_of_its_own(name, top_k):
    strict, _, scalar, arguments = OPTIMIZERS[name]
    modules = layers()
    optimizer = strict(modules.parameters(), **arguments)
    references = {
        layer.weight: [scalar(value, **arguments) for value in layer.weight.detach().double().flatten().tolist()]
        for layer in modules
    }
    for step in range(STEPS):
        optimizer.selected = give_gradients(modules, step, top_k)
        for weight, ones in references.items():
            is_selected = mask_of(weight, optimizer.selected[weight]).flatten()
            for position in is_selected.nonzero()[:, 0].tolist():
                ones[position].step(weight.grad.flatten()[position].item())
        optimizer.step()
        for weight, ones in references.items():
            expected = torch.tensor([one.weight for one in ones]).reshape(weight.shape)
            torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("top_k", [1, 2, 500])
def test_weights_moments_and_counts_of_unselected_entries_are_bit_identical(name, top_k):
    strict, _, _, arguments = OPTIMIZERS[name]
    modules = layers()
    optimizer = strict(modules.parameters(), **arguments)
    for step in range(STEPS):
        before = copy.deepcopy(modules)
        states = {weight: copy.deepcopy(state) for weight, state in optimizer.state.items()}
        optimizer.selected = give_gradients(modules, step, top_k)
        optimizer.step()
        for layer, old in zip(modules, before):
            rows, mask = Rows.of(layer), mask_of(layer.weight, optimizer.selected[layer.weight])
            assert torch.equal(layer.weight != old.weight, mask)
            assert (rows.matrix(mask).sum(dim=1) == min(top_k, rows.length)).all()
            for key, old_value in tensors_of(states.get(layer.weight, {})).items():
                assert torch.equal(optimizer.state[layer.weight][key] != old_value, mask), key


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_free_parameters_move_as_with_torchs_own_optimizer(name):
    strict, stock, _, arguments = OPTIMIZERS[name]
    modules, twin = layers(), layers()
    optimizer, reference = strict(modules.parameters(), **arguments), stock(twin.parameters(), **arguments)
    for step in range(STEPS):
        optimizer.selected = give_gradients(modules, step, 2)
        del optimizer.selected[modules[2].weight]
        give_gradients(twin, step, 2)
        optimizer.step()
        reference.step()
        free = [(layer.bias, other.bias) for layer, other in zip(modules, twin)]
        for parameter, other in [*free, (modules[2].weight, twin[2].weight)]:
            assert torch.equal(parameter, other)
            assert optimizer.state[parameter].keys() == reference.state[other].keys()
            for key, value in reference.state[other].items():
                assert value is None or torch.equal(optimizer.state[parameter][key], value)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_tensor_that_is_selected_whole_moves_as_with_torchs_own_optimizer(name):
    strict, stock, _, arguments = OPTIMIZERS[name]
    modules, twin = layers(), layers()
    optimizer, reference = strict(modules.parameters(), **arguments), stock(twin.parameters(), **arguments)
    for step in range(STEPS):
        optimizer.selected = give_gradients(modules, step, 500)
        give_gradients(twin, step, 500)
        optimizer.step()
        reference.step()
    for layer, other in zip(modules, twin):
        torch.testing.assert_close(layer.weight, other.weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_progress_does_not_depend_on_how_long_an_entry_waits(name):
    """The same gradient each time that it is selected, with pauses of different lengths, in which others move."""
    strict, _, _, arguments = OPTIMIZERS[name]

    def after_ten_selections(pause):
        weight = nn.Parameter(torch.tensor([[0.5, 0.5]]))
        optimizer = strict([weight], **arguments)
        for _ in range(10):
            for column in [0, *[1] * pause]:
                weight.grad = torch.tensor([[1.0, 0.0]] if column == 0 else [[0.0, -3.0]])
                optimizer.selected = {weight: torch.tensor([column])}
                optimizer.step()
        return weight[0, 0].item()

    assert after_ten_selections(0) == after_ten_selections(1) == after_ten_selections(25)


# ---------------------------------------------------------------------- by hand


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


def one_row_steps(optimizer, weight, steps):
    """The weight after each step, given the column that is selected and its gradient."""
    found = []
    for column, gradient in steps:
        weight.grad = torch.zeros(1, 2)
        weight.grad[0, column] = gradient
        optimizer.selected = {weight: torch.tensor([column])}
        optimizer.step()
        found.append(weight[0].tolist())
    return found


def test_sgd_by_hand():
    weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    found = one_row_steps(StrictSGD([weight], lr=0.1, momentum=0.5), weight, [(0, 4.0), (1, 1.0), (0, 1.0)])
    assert found[0] == pytest.approx([0.6, 2.0])  # velocity 4
    assert found[1] == pytest.approx([0.6, 1.9])  # velocity 1 of the other; the first keeps its 4
    assert found[2] == pytest.approx([0.3, 1.9])  # 0.5 * 4 + 1 = 3


def test_sgd_without_momentum_is_the_papers_rule():
    # arXiv 2503.00748: a selected entry goes by - lr * gradient, the others stay
    weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    optimizer = StrictSGD([weight], lr=0.1)
    assert one_row_steps(optimizer, weight, [(0, 4.0), (0, 1.0)])[-1] == pytest.approx([0.5, 2.0])
    assert not optimizer.state[weight]


def test_nesterov_and_decay_by_hand():
    weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    optimizer = StrictSGD([weight], lr=0.1, momentum=0.5, nesterov=True, weight_decay=1.0)
    found = one_row_steps(optimizer, weight, [(0, 3.0), (1, 0.0), (0, 0.6)])
    assert found[0] == pytest.approx([0.4, 2.0])  # gradient and velocity 3 + 1 = 4; step 4 + 0.5 * 4 = 6
    assert found[1] == pytest.approx([0.4, 1.7])  # 2; step 2 + 0.5 * 2 = 3
    assert found[2] == pytest.approx([0.15, 1.7])  # gradient 0.6 + 0.4 = 1, velocity 3; step 1 + 0.5 * 3 = 2.5


def test_adamw_by_hand():
    weight = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    optimizer = StrictAdamW([weight], lr=0.1, weight_decay=1.0)
    found = one_row_steps(optimizer, weight, [(0, 5.0), (0, 5.0), (1, -1.0)])
    # an unbiased mean over its deviation is 1 or -1 as long as the gradient is the same; decay takes a tenth
    assert found[0] == pytest.approx([0.8, 2.0], abs=1e-4)
    assert found[1] == pytest.approx([0.62, 2.0], abs=1e-4)
    assert found[2] == pytest.approx([0.62, 1.9], abs=1e-4)  # the first step of this entry, as large as any first one
    assert optimizer.state[weight]["selections"].tolist() == [[2.0, 1.0]]


# ---------------------------------------------------------------------- groups, closure, layouts, state


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


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_layouts_in_memory_move_the_same_entries(name):
    strict, _, _, arguments = OPTIMIZERS[name]
    plain, last = layers()[0], layers()[0].to(memory_format=torch.channels_last)
    for layer in (plain, last):
        optimizer = strict(layer.parameters(), **arguments)
        for step in range(3):
            optimizer.selected = give_gradients(nn.ModuleList([layer]), step, 2)
            optimizer.step()
        assert all(
            value.stride() == layer.weight.stride() for value in tensors_of(optimizer.state[layer.weight]).values()
        )
    assert last.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.weight, last.weight)


def written_and_read(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_that_was_saved_and_loaded_goes_on_bit_identically(name):
    strict, _, _, arguments = OPTIMIZERS[name]
    modules = layers()
    optimizer = strict(modules.parameters(), **arguments)
    for step in range(STEPS):
        if step == STEPS // 2:
            resumed = layers()
            resumed.load_state_dict(modules.state_dict())
            continued = strict(resumed.parameters(), **arguments)
            continued.load_state_dict(written_and_read(optimizer.state_dict()))
        optimizer.selected = give_gradients(modules, step, 2)
        optimizer.step()
        if step >= STEPS // 2:
            continued.selected = give_gradients(resumed, step, 2)
            continued.step()
    assert all(torch.equal(one, other) for one, other in zip(modules.parameters(), resumed.parameters()))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_goes_to_torchs_optimizer_and_back(name):
    """Also what a checkpoint of an earlier version holds, whose state was that of torch's optimizer."""
    strict, stock, _, arguments = OPTIMIZERS[name]
    modules = layers()
    optimizer = strict(modules.parameters(), **arguments)
    other = stock(modules.parameters(), **arguments)
    for first, second in ((optimizer, other), (other, optimizer)):
        for step in range(2):
            optimizer.selected = give_gradients(modules, step, 1)
            first.step()
        second.load_state_dict(copy.deepcopy(first.state_dict()))
    optimizer.selected = give_gradients(modules, 2, 1)
    optimizer.step()
    assert all(parameter.isfinite().all() for parameter in modules.parameters())
    assert copy.deepcopy(optimizer).selected == {}


def test_adamws_entries_with_moments_of_a_dense_step_have_taken_all_its_steps():
    weight = nn.Parameter(torch.ones(1, 2))
    dense = torch.optim.AdamW([weight], lr=0.1)
    for _ in range(3):
        weight.grad = torch.tensor([[1.0, 0.0]])
        dense.step()
    optimizer = StrictAdamW([weight], lr=0.1)
    optimizer.load_state_dict(dense.state_dict())
    weight.grad, optimizer.selected = torch.ones(1, 2), {weight: torch.tensor([0, 1])}
    optimizer.step()
    assert optimizer.state[weight]["selections"].tolist() == [[4.0, 1.0]]
    assert optimizer.state[weight]["step"] == 4


def test_counts_are_of_the_weights_type():
    weight = nn.Parameter(torch.ones(1, 2, dtype=torch.float64))
    optimizer = StrictAdamW([weight], lr=0.1)
    weight.grad, optimizer.selected = torch.ones_like(weight), {weight: torch.tensor([1])}
    optimizer.step()
    assert optimizer.state[weight]["selections"].dtype == torch.float64


def test_adamw_decays_nothing_unless_asked_and_counts_its_steps_from_one():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = StrictAdamW([weight], lr=0.1)
    optimizer.selected = {weight: torch.tensor([1])}
    weight.grad = torch.zeros(2, 2)
    for number in (1, 2):
        optimizer.step()
        assert optimizer.state[weight]["step"].item() == number
    assert torch.equal(weight, torch.ones(2, 2))


def test_a_new_optimizer_moves_everything_and_returns_a_loss_only_if_there_is_one():
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    ours, theirs = StrictSGD(weights[:1], lr=0.1), torch.optim.SGD(weights[1:], lr=0.1)
    for weight, optimizer in zip(weights, (ours, theirs)):
        weight.grad = torch.arange(3.0)
        assert optimizer.step() is None
    assert torch.equal(*weights)
    assert ours.step(lambda: 7.0) == 7.0
