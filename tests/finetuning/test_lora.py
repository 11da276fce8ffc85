import builtins
import copy

import pytest
import torch
from torch import nn

from finetuning.test_strategies import NETWORKS, unet
from nnunet_ext.checkpoints.adaptation import aliases
from nnunet_ext.errors import UserError
from nnunet_ext.finetuning.lora import (
    ADAPTER,
    adapted_layers,
    add_adapters,
    is_adapter,
    load_raw_parameters,
    plain_name,
    raw_parameters,
)


def adapted(network: nn.Module, *, trained: bool = False, dropout: float = 0.0) -> nn.Module:
    add_adapters(network, rank=3, alpha=6.0, dropout=dropout)
    if trained:
        for layer in adapted_layers(network):
            nn.init.normal_(layer.lora_B[ADAPTER].weight, std=0.1)
    return network


def data(dims: int) -> torch.Tensor:
    return torch.randn(1, 2, *[16] * dims)


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_an_adapter_on_every_convolution_but_the_heads_changes_nothing_at_first(dims, residual):
    network = unet(dims=dims, residual=residual)
    plain = copy.deepcopy(network)
    convolutions = {id(m) for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))}
    heads = {id(m) for m in network.decoder.seg_layers}
    adapted(network)
    assert {id(layer.base_layer) for layer in adapted_layers(network)} == convolutions - heads
    batch = data(dims)
    for ours, theirs in zip(network(batch), plain(batch)):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_the_plain_network_with_the_saved_weights_computes_the_same(dims, residual):
    network = unet(dims=dims, residual=residual).double()
    plain = copy.deepcopy(network)
    adapted(network, trained=True).eval()
    batch = data(dims).double()
    before = [logits.clone() for logits in plain(batch)]
    assert set(network.state_dict()) == set(plain.state_dict())
    plain.load_state_dict(network.state_dict())
    for ours, theirs, old in zip(network(batch), plain.eval()(batch), before):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
        assert (ours - old).abs().max() > 1e-3


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_saved_weights_are_one_tensor_under_all_names_as_in_the_plain_network(dims, residual):
    network = unet(dims=dims, residual=residual)
    names = [keys for keys, _ in aliases(network.state_dict())]
    adapted(network, trained=True)
    first = network.state_dict()
    assert [keys for keys, _ in aliases(first)] == names
    layer = next(adapted_layers(network))
    with torch.no_grad():
        layer.lora_B[ADAPTER].weight.add_(1)
    later, key = network.state_dict(), names[0][0]
    assert not torch.equal(later[key], first[key])  # each state dict has sums of its own
    part = network.encoder.state_dict()
    assert torch.equal(part[key.removeprefix("encoder.")], later[key])


def test_loading_plain_weights_takes_the_adapters_back_to_nothing():
    network = unet(dims=3, residual=True)
    plain = copy.deepcopy(network)
    adapted(network, trained=True)
    network.load_state_dict(plain.state_dict())
    batch = data(3)
    for ours, theirs in zip(network(batch), plain(batch)):
        assert torch.equal(ours, theirs)


def test_raw_parameters_bring_weights_and_adapters_back_apart():
    network = adapted(unet(dims=2, residual=False), trained=True)
    raw, other = raw_parameters(network), adapted(unet(dims=2, residual=False), trained=True)
    load_raw_parameters(other, raw)
    for name, parameter in other.named_parameters():
        assert torch.equal(parameter, dict(network.named_parameters())[name])


def test_gradients_reach_every_adapter():
    network = adapted(unet(dims=3, residual=True), trained=True, dropout=0.1)
    sum(logits.square().mean() for logits in network(data(3))).backward()
    adapters = {name: p for name, p in network.named_parameters() if is_adapter(name)}
    assert len(adapters) == 2 * len(list(adapted_layers(network)))
    assert all(parameter.grad.abs().max() > 0 for parameter in adapters.values())


def test_an_adapter_takes_the_precision_that_autocast_chose():
    network = adapted(unet(dims=2, residual=False))
    seen = []
    for layer in adapted_layers(network):
        layer.lora_dropout[ADAPTER].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        network(data(2).bfloat16())
    assert set(seen) == {torch.bfloat16}


def test_a_layer_by_hand():
    # one 1x1 convolution: W = [[2]], A = [[3]], B = [[5]], alpha / r = 6 / 3
    network = nn.Module()
    network.body = nn.Conv2d(1, 1, 1, bias=False)
    network.seg_layers = nn.ModuleList([nn.Conv2d(1, 1, 1)])
    add_adapters(network, rank=1, alpha=2.0, dropout=0.0)
    with torch.no_grad():
        network.body.base_layer.weight.fill_(2)
        network.body.lora_A[ADAPTER].weight.fill_(3)
        network.body.lora_B[ADAPTER].weight.fill_(5)
    assert network.body(torch.ones(1, 1, 1, 1)).item() == 2 + 2 * 3 * 5
    assert network.state_dict()["body.weight"].item() == 32


@pytest.mark.parametrize("kind", [{"dilation": (1, 2)}, {"groups": 2}, {"padding": 1, "padding_mode": "reflect"}])
def test_a_convolution_that_is_dilated_grouped_or_otherwise_padded_is_refused(kind):
    network = nn.Module()
    network.body = nn.Conv2d(2, 2, 3, **kind)
    network.seg_layers = nn.ModuleList([nn.Conv2d(2, 1, 1)])
    with pytest.raises(ValueError, match="body: it is dilated"):
        add_adapters(network, rank=1, alpha=1.0, dropout=0.0)


def test_rank_and_dropout_are_those_asked_for():
    for layer in adapted_layers(adapted(unet(dims=2), dropout=0.25)):
        assert layer.lora_A[ADAPTER].out_channels == 3
        assert layer.lora_dropout[ADAPTER].p == 0.25


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    real_import = builtins.__import__

    def without_peft(name, *args, **kwargs):
        if name == "peft":
            raise ImportError("No module named 'peft'")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    with pytest.raises(UserError, match="pip install -U peft"):
        adapted(unet(dims=2, residual=False))


def test_parameters_that_are_no_adapters_are_called_as_in_the_plain_network():
    plain = [name for name, _ in unet(dims=2).named_parameters()]
    network = adapted(unet(dims=2))
    assert [plain_name(name) for name, _ in network.named_parameters() if not is_adapter(name)] == plain


def test_a_layer_around_a_convolution_without_an_adapter_is_none_that_is_adapted():
    wrapper = nn.Module()
    wrapper.base_layer = nn.Conv2d(1, 1, 1)
    assert list(adapted_layers(nn.Sequential(wrapper))) == []
