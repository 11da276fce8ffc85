import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nnunet_ext.finetuning.entries import Rows, keep_only, random_entries, read, top_entries, write

LAYERS = {
    "conv2d": nn.Conv2d(3, 5, 3),
    "conv3d": nn.Conv3d(2, 4, (1, 3, 2)),
    "grouped conv": nn.Conv3d(4, 6, 3, groups=2),
    "transposed 2d": nn.ConvTranspose2d(3, 5, 2),
    "transposed 3d": nn.ConvTranspose3d(4, 2, (1, 2, 2), stride=(1, 2, 2)),
    "grouped transposed": nn.ConvTranspose3d(4, 6, 2, groups=2),
    "linear": nn.Linear(7, 3),
}


def output_channels_reached(layer: nn.Module, mask: torch.Tensor) -> set[int]:
    """The output channels that change if the masked entries of the weight do, by running the layer itself."""
    shape = (1, layer.in_features) if isinstance(layer, nn.Linear) else (1, layer.in_channels, *[5] * (mask.ndim - 2))
    weight, bias = layer.weight, layer.bias
    data = torch.rand(shape) + 0.5
    before = layer(data)
    with torch.no_grad():
        weight += mask.float()
        after = layer(data)
        weight -= mask.float()
    assert bias is not None
    changed = (after - before).abs().reshape(before.shape[0], before.shape[1], -1).amax(dim=(0, 2)) > 0.1
    return set(torch.nonzero(changed).ravel().tolist())


@pytest.mark.parametrize("name", LAYERS)
def test_a_row_is_what_makes_one_output_channel(name):
    layer = LAYERS[name]
    rows = Rows.of(layer)
    of_row = rows.matrix(torch.arange(layer.weight.numel()).reshape(layer.weight.shape))
    assert of_row.shape == (rows.count, rows.length)
    for row in range(rows.count):
        mask = torch.zeros(layer.weight.numel(), dtype=torch.bool)
        mask[of_row[row]] = True
        assert output_channels_reached(layer, mask.reshape(layer.weight.shape)) == {row}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_entries_are_the_largest_of_each_row(name, k):
    layer = LAYERS[name]
    rows = Rows.of(layer)
    gradient = torch.randn_like(layer.weight)
    entries = top_entries(gradient, rows, k)
    # a reference that knows nothing of the index arithmetic: sort each row, in float64
    matrix = rows.matrix(gradient).double().numpy()
    found = rows.matrix(_mask(gradient, entries)).numpy()
    expected = np.zeros_like(found)
    for row, values in enumerate(np.abs(matrix)):
        expected[row, np.argsort(values)[::-1][:k]] = True
    assert (found == expected).all()


def test_top_entries_by_hand():
    # two output channels, each with the two inputs of a 1x2 kernel
    gradient = torch.tensor([[[[1.0, -4.0]], [[3.0, 0.0]]], [[[0.5, 0.1]], [[-0.2, 0.3]]]])
    entries = top_entries(gradient, Rows(tuple(gradient.shape)), 1)
    assert _mask(gradient, entries).nonzero().tolist() == [[0, 0, 0, 1], [1, 0, 0, 0]]


def test_rows_of_a_transposed_convolution_by_hand():
    # (in 2, out 2, 1): a row is the column of one output
    gradient = torch.tensor([[[1.0], [-9.0]], [[-2.0], [8.0]]])
    entries = top_entries(gradient, Rows((2, 2, 1), is_transposed=True), 1)
    assert _mask(gradient, entries).nonzero().tolist() == [[0, 1, 0], [1, 0, 0]]


def test_selection_does_not_depend_on_the_layout_in_memory():
    gradient = torch.randn(6, 4, 3, 3, 3)
    rows = Rows(tuple(gradient.shape))
    for k in (1, 3):
        plain = _mask(gradient, top_entries(gradient, rows, k))
        last = gradient.contiguous(memory_format=torch.channels_last_3d)
        assert torch.equal(plain, _mask(last, top_entries(last, rows, k)))


def test_a_row_with_fewer_entries_is_taken_whole():
    gradient = torch.randn(3, 1, 1, 1)
    rows = Rows(tuple(gradient.shape))
    assert _mask(gradient, top_entries(gradient, rows, 5)).all()
    assert _mask(gradient, random_entries(rows, 5, np.random.default_rng(0), gradient.device)).all()


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_random_entries_are_k_different_ones_in_every_row(count, inputs, k, seed):
    rows = Rows((count, inputs, 2))
    entries = random_entries(rows, k, np.random.default_rng(seed), torch.device("cpu"))
    mask = _mask(torch.zeros(rows.shape), entries)
    assert (rows.matrix(mask).sum(dim=1) == min(k, rows.length)).all()


def test_random_entries_are_drawn_evenly():
    rows = Rows((20_000, 5))
    mask = _mask(torch.zeros(rows.shape), random_entries(rows, 2, np.random.default_rng(0), torch.device("cpu")))
    # each entry has the probability 2/5: 8000 of 20,000, standard deviation 69
    assert (mask.sum(dim=0) - 8000).abs().max() < 350


def test_keep_only_leaves_the_entries_and_nothing_else():
    tensor = torch.randn(4, 3, 3)
    entries = top_entries(tensor, Rows(tuple(tensor.shape)), 2)
    original, mask = tensor.clone(), _mask(tensor, entries)
    keep_only(tensor, entries)
    assert torch.equal(tensor, torch.where(mask, original, torch.zeros(())))


def test_devices_without_take_and_put_read_and_write_the_same_entries(monkeypatch):
    tensor = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    entries = top_entries(tensor, Rows(tuple(tensor.shape)), 2)
    expected, other = tensor.clone(), tensor.clone()
    values = read(expected, entries)
    write(expected, entries, 2 * values)
    monkeypatch.setattr("nnunet_ext.finetuning.entries.WITHOUT_TAKE", {"cpu"})
    assert torch.equal(read(other, entries), values)
    write(other, entries, 2 * values)
    assert torch.equal(other, expected)


def test_a_layer_without_rows_is_refused():
    with pytest.raises(TypeError, match="InstanceNorm3d"):
        Rows.of(nn.InstanceNorm3d(3, affine=True))


def _mask(like: torch.Tensor, entries) -> torch.Tensor:
    mask = torch.zeros(like.shape, dtype=torch.bool)
    mask.view(-1)[entries] = True
    return mask


def test_random_entries_lie_on_the_device_that_is_asked_for():
    entries = random_entries(Rows((4, 3, 3)), 2, np.random.default_rng(0), torch.device("meta"))
    assert {one.device.type for one in entries} == {"meta"}
