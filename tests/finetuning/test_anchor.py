"""The distance to the start, over what the source had."""

from functools import partial

import torch

from nnunet_ext.finetuning.anchor import Anchor
from support.launches import Launches

ALL, NOTHING = torch.tensor(True), torch.tensor(False)


def test_squares_are_summed_over_the_entries_that_the_source_had():
    start = {"a": torch.zeros(2, 3), "head": torch.ones(2, 2), "new": torch.ones(5)}
    known = {"a": ALL, "head": torch.tensor([[True], [False]]), "new": NOTHING}
    anchor = Anchor(start, known)
    now = {"a": torch.full((2, 3), 2.0), "head": torch.full((2, 2), 4.0), "new": torch.full((5,), 9.0)}
    held = 6 * 2**2 + 2 * 3**2
    assert anchor.penalty(now, strength=0.5, decay=0.0) == 0.5 * held
    # the other row of the head, and not the tensor that is all new, decays to 0
    torch.testing.assert_close(anchor.penalty(now, strength=0.5, decay=0.1), torch.tensor(0.5 * held + 0.05 * 2 * 4**2))


def test_gradient_pulls_to_the_start_where_there_is_one_and_to_zero_elsewhere():
    anchor = Anchor({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([True, False])})
    weight = torch.tensor([4.0, 7.0], requires_grad=True)
    anchor.penalty({"w": weight}, strength=10.0, decay=0.5).backward()
    # that of 0.5 for each w is what weight decay of 0.5 adds to a gradient
    torch.testing.assert_close(weight.grad, torch.tensor([2 * 10.0 * 3.0, 0.5 * 7.0]))


def test_gradient_is_that_of_the_penalty():
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    start = {"a": draw(3, 2), "b": draw(2, 2), "c": draw(4)}
    anchor = Anchor(start, {"a": ALL, "b": torch.tensor([[True], [False]]), "c": ALL})
    now = [draw(value.shape).requires_grad_() for value in start.values()]

    def penalty(*weights):
        return anchor.penalty(dict(zip(start, weights)), strength=0.3, decay=0.2)

    assert torch.autograd.gradcheck(penalty, now)


def test_many_tensors_cost_no_more_operations_than_few():
    """A chain of small ones for each of a network's hundred tensors took longer to start than they ran."""
    counts = []
    for number in (2, 50):
        start = {f"w{place}": torch.zeros(3) for place in range(number)}
        anchor = Anchor(start, dict.fromkeys(start, ALL))
        now = {name: torch.ones(3, requires_grad=True) for name in start}
        with Launches() as launches:
            anchor.penalty(now, strength=0.1, decay=0.0).backward()
        counts.append(launches.count)
    assert counts[1] < counts[0] + 48, counts


def test_start_does_not_move_with_the_weights():
    weight = torch.zeros(3)
    anchor = Anchor({"w": weight}, {"w": ALL})
    weight.add_(1)
    assert anchor.penalty({"w": weight}, strength=1.0, decay=0.0) == 3


def test_state_gives_the_same_penalty():
    now = {"a": torch.full((2, 3), 2.0), "head": torch.full((2, 2), 4.0)}
    known = {"a": ALL, "head": torch.tensor([[True], [False]])}
    anchor = Anchor({name: torch.zeros_like(value) for name, value in now.items()}, known)
    again = Anchor.from_state(anchor.state(), torch.device("cpu"))
    options = {"strength": 1.0, "decay": 2.0}
    assert again.penalty(now, **options) == anchor.penalty(now, **options) == 6 * 2**2 + 2 * 4**2 + 2 * 4**2
