"""The first convolution for other input channels: a linear map, so checked as one."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import conv3d

from nnunet_ext.checkpoints.inputs import adapted_input

CHANNELS = st.integers(1, 6)


@given(before=CHANNELS, after=CHANNELS, seed=st.integers(0, 2**31))
def test_image_of_equal_channels_gives_the_same_response(before: int, after: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, before, 3, 3, 3, dtype=torch.float64, generator=generator)
    channel = torch.randn(1, 1, 5, 5, 5, dtype=torch.float64, generator=generator)
    adapted = adapted_input(torch.zeros(2, after, 3, 3, 3), weight, (), ()).value
    torch.testing.assert_close(
        conv3d(channel.expand(-1, after, -1, -1, -1), adapted), conv3d(channel.expand(-1, before, -1, -1, -1), weight)
    )


@given(order=st.permutations(range(4)))
def test_names_in_another_order_take_their_weights_along(order: list[int]) -> None:
    names = ("T1", "T2", "FLAIR", "CT")
    weight = torch.arange(8.0).reshape(2, 4, 1, 1)
    target = tuple(names[place] for place in order)
    adapted, _, reason, _ = adapted_input(torch.zeros(2, 4, 1, 1), weight, names, target)
    for place, name in enumerate(target):
        assert torch.equal(adapted[:, place], weight[:, names.index(name)])
    assert bool(reason) == (target != names)


def test_names_that_are_not_as_many_as_the_channels_are_left_aside() -> None:
    weight = torch.rand(2, 2, 1, 1)
    adapted, _, reason, _ = adapted_input(torch.zeros(2, 2, 1, 1), weight, ("T1", "T2", "CT"), ("T2", "T1"))
    assert adapted is weight
    assert reason == ""


def test_labels_take_nothing_from_a_source_whose_channels_have_no_names() -> None:
    own, weight = torch.rand(2, 3, 1, 1), torch.rand(2, 1, 1, 1)
    target = ("MRI", "prior MRI", "label 1 of the prior scan")
    adapted, outcome, reason, known = adapted_input(own, weight, (), target)
    assert outcome == "adapted"
    assert "random: label 1 of the prior scan" in reason
    assert torch.allclose(adapted[:, :2], (weight / 2).expand(-1, 2, -1, -1))
    assert torch.equal(adapted[:, 2], own[:, 2])
    assert known is not None
    assert known.flatten().tolist() == [True, True, False]


def test_channel_that_both_have_is_named() -> None:
    fitted = adapted_input(torch.zeros(2, 3, 1, 1), torch.rand(2, 2, 1, 1), ("T1", "T2"), ("T2", "CT", "T2"))
    assert (
        fitted.reason
        == "2 -> 3 input channels: each gets the mean of the source's, times 2/3 (so does T2, which both have)"
    )


def test_channels_of_the_same_name_keep_their_weights_under_the_rule_name() -> None:
    own, weight = torch.zeros(2, 3, 1, 1), torch.rand(2, 2, 1, 1)
    value, outcome, reason, known = adapted_input(own, weight, ("T1", "T2"), ("FLAIR", "T2", "T1"), rule="name")
    assert torch.equal(value, torch.stack([own[:, 0], weight[:, 1], weight[:, 0]], dim=1))
    assert known.flatten().tolist() == [False, True, True]
    assert (outcome, reason) == ("adapted", "input channels by name: T2, T1; random: FLAIR")


def test_rule_name_without_a_common_name_is_the_mean() -> None:
    own, weight = torch.zeros(2, 3, 1, 1), torch.rand(2, 1, 1, 1)
    by_name, by_mean = (adapted_input(own, weight, ("CT",), ("T1", "T2", "T3"), rule=rule) for rule in ("name", "mean"))
    assert torch.equal(by_name.value, by_mean.value)
    assert by_name.known.all()


CT, LIVER, TUMOUR = "CT", "liver of the previous stage", "tumour of the previous stage"


def test_labels_of_a_previous_stage_neither_give_to_images_nor_take_from_them() -> None:
    own = torch.full((2, 3, 1, 1), 9.0)
    one = torch.arange(2.0).reshape(2, 1, 1, 1) + 1
    value, outcome, reason, known = adapted_input(own, one, (CT,), (CT, LIVER, TUMOUR))
    assert outcome == "adapted"
    assert torch.equal(value, torch.cat([one, own[:, 1:]], dim=1))
    assert known.flatten().tolist() == [True, False, False]
    assert reason == f"image channels copied; random: {LIVER}, {TUMOUR}"

    back, _, reason, known = adapted_input(own[:, :1], value, (CT, LIVER, TUMOUR), (CT,))
    assert torch.equal(back, one)
    assert known.all()
    assert reason == f"image channels copied; left out: {LIVER}, {TUMOUR}"

    # two images get half of the one's weights, and a label that both stages have keeps its own
    target = ("T1", "T2", TUMOUR)
    both, _, reason, known = adapted_input(own, value[:, :2], (CT, TUMOUR), target)
    assert torch.equal(both, torch.cat([one / 2, one / 2, own[:, 1:2]], dim=1))
    assert known.all()
    assert reason == "1 -> 2 input channels: each gets the mean of the source's, times 1/2"

    # as many channels, of another kind
    kinds, _, _, known = adapted_input(own[:, :2], torch.cat([one, 3 * one], dim=1), ("T1", "T2"), (CT, LIVER))
    assert torch.equal(kinds, torch.cat([4 * one, own[:, :1]], dim=1))
    assert known.flatten().tolist() == [True, False]
