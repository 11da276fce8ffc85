"""The distance to the start, over what the source had."""

import torch

from nnunet_ext.finetuning.anchor import Anchor

ALL, NOTHING = torch.tensor(True), torch.tensor(False)


def test_squares_are_summed_over_the_entries_that_the_source_had():
    start = {"a": torch.zeros(2, 3), "head": torch.ones(2, 2), "new": torch.ones(5)}
    known = {"a": ALL, "head": torch.tensor([[True], [False]]), "new": NOTHING}
    anchor = Anchor(start, known)
    now = {"a": torch.full((2, 3), 2.0), "head": torch.full((2, 2), 4.0), "new": torch.full((5,), 9.0)}
    assert anchor.square_distance(now) == 6 * 2**2 + 2 * 3**2


def test_gradient_is_twice_the_difference_and_nothing_elsewhere():
    anchor = Anchor({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([True, False])})
    weight = torch.tensor([4.0, 7.0], requires_grad=True)
    anchor.square_distance({"w": weight}).backward()
    assert weight.grad.tolist() == [6.0, 0.0]


def test_start_does_not_move_with_the_weights():
    weight = torch.zeros(3)
    anchor = Anchor({"w": weight}, {"w": ALL})
    weight.add_(1)
    assert anchor.square_distance({"w": weight}) == 3


def test_state_gives_the_same_distance():
    now = {"a": torch.full((2, 3), 2.0), "head": torch.full((2, 2), 4.0)}
    known = {"a": ALL, "head": torch.tensor([[True], [False]])}
    anchor = Anchor({name: torch.zeros_like(value) for name, value in now.items()}, known)
    again = Anchor.from_state(anchor.state(), torch.device("cpu"))
    assert again.square_distance(now) == anchor.square_distance(now) == 6 * 2**2 + 2 * 4**2
