import pytest
import torch
from torch import nn

from nnunet_ext.trainers import memory_format
from nnunet_ext.trainers.memory_format import channels_last_format, faster_memory_format


@pytest.fixture
def network():
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.Dropout(0.5), nn.Conv3d(4, 2, 1))


def test_measuring_touches_neither_network_nor_generator(network):
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    _, seconds = faster_memory_format(network, (2, 1, 8, 8, 8), torch.device("cpu"), repeats=1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert set(seconds) == {"contiguous", "channels_last"}
    assert all(value > 0 for value in seconds.values())


@pytest.mark.parametrize(
    ("channels_last", "chosen"), [(0.5, "channels_last"), (0.97, "contiguous"), (2.0, "contiguous")]
)
def test_the_faster_layout_is_chosen_if_it_is_clearly_faster(network, monkeypatch, channels_last, chosen):
    def timed(network, data):
        return channels_last if data.is_contiguous(memory_format=torch.channels_last_3d) else 1.0

    monkeypatch.setattr(memory_format, "pass_seconds", timed)
    result, seconds = faster_memory_format(network, (2, 3, 8, 8, 8), torch.device("cpu"))
    assert result == chosen
    assert seconds == {"contiguous": 1.0, "channels_last": channels_last}


def test_a_slow_network_is_not_measured_for_longer_than_the_budget(network, monkeypatch):
    calls = []
    monkeypatch.setattr(memory_format, "pass_seconds", lambda network, data: calls.append(1) or 1.0)
    faster_memory_format(network, (1, 1, 8, 8, 8), torch.device("cpu"), repeats=100, budget=0.0)
    assert len(calls) == 4  # one untimed and one timed pass of each


def test_the_copies_keep_no_gradients(network):
    memory_format.pass_seconds(network, torch.zeros(1, 1, 4, 4, 4))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_without_memory_for_the_copies_the_layout_is_nnunets(network, monkeypatch):
    def full(network, data):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(memory_format, "pass_seconds", full)
    assert faster_memory_format(network, (1, 1, 8, 8, 8), torch.device("cpu")) == ("contiguous", {})


@pytest.mark.parametrize(
    ("convolution", "layout"), [(nn.Conv2d, torch.channels_last), (nn.Conv3d, torch.channels_last_3d)]
)
def test_both_layouts_give_the_same_output_to_rounding(convolution, layout):
    network = nn.Sequential(convolution(1, 4, 3, padding=1), nn.LeakyReLU(), convolution(4, 2, 1))
    dims = network[0].weight.ndim - 2
    assert channels_last_format(dims) is layout
    data = torch.randn(2, 1, *[8] * dims, generator=torch.Generator().manual_seed(0))
    expected = network(data)
    actual = network.to(memory_format=layout)(data.contiguous(memory_format=layout))
    torch.testing.assert_close(actual, expected)
