"""Models between a source and the one that was tuned from it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.checkpoints.adaptation import adapt, aliases
from nnunet_ext.checkpoints.interpolation import interpolated
from nnunet_ext.checkpoints.outcome import Adaptation
from nnunet_ext.errors import UserError
from support.models import checkpoint_of, description, network_of

FILE = Path("tuned.pth")
HALF_KNOWN = torch.tensor([[True], [False]])


def between(start: torch.Tensor, tuned: torch.Tensor, known: torch.Tensor, amount: float) -> torch.Tensor:
    return interpolated(Adaptation({"w": start}, {"w": known}, ()), {"w": tuned}, amount, tuned_file=FILE)["w"]


@given(amount=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_known_entries_lie_between_and_others_are_the_tuned_ones(amount: float, seed: int) -> None:
    start, tuned = torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    result = between(start, tuned, HALF_KNOWN, amount)
    torch.testing.assert_close(result[0], (1 - amount) * start[0] + amount * tuned[0])
    assert torch.equal(result[1], tuned[1])


def test_ends_are_exact() -> None:
    start, tuned = torch.randn(2, 2, 3)
    assert torch.equal(between(start, tuned, torch.tensor(True), 0.0), start)
    assert torch.equal(between(start, tuned, torch.tensor(True), 1.0), tuned)


def test_tensor_of_several_names_stays_one() -> None:
    model = description(family="resenc")
    source, tuned, network = network_of(model), network_of(model), network_of(model)
    start = adapt(checkpoint_of(model, source), network, model, keep_heads=True)
    result = interpolated(start, tuned.state_dict(), 0.5, tuned_file=FILE)
    assert list(result) == list(network.state_dict())
    assert [keys for keys, _ in aliases(result)] == [keys for keys, _ in aliases(network.state_dict())]
    network.load_state_dict(result)


def test_tuned_model_of_another_network_is_named() -> None:
    start = Adaptation({"a": torch.zeros(2), "b": torch.zeros(1)}, {}, ())
    with pytest.raises(UserError, match=r"tuned\.pth is not of the network.*3 tensors differ") as error:
        interpolated(start, {"a": torch.zeros(3), "c": torch.zeros(1)}, 0.5, tuned_file=FILE)
    assert all(f"  - {name}" in str(error.value) for name in "abc")
