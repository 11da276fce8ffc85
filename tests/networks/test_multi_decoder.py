import copy

import pytest
import torch
from torch import nn

from finetuning.test_strategies import NETWORKS, unet
from nnunet_ext.finetuning.roles import decoder_parameter_names
from nnunet_ext.networks.multi_decoder import AUXILIARY, FeatureDropout, MultiDecoderUNet


def network(*, dims=3, residual=False, auxiliary=1, dropout=0.0):
    torch.manual_seed(0)
    main = unet(dims=dims, residual=residual)
    others = [unet(dims=dims, residual=residual).decoder for _ in range(auxiliary)]
    perturbations = [nn.Identity(), *(FeatureDropout(dims, dropout) for _ in others)]
    return MultiDecoderUNet(main, others, perturbations)


def data(dims):
    return torch.randn(2, 2, *[16] * dims, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_the_state_dict_is_the_plain_unets_with_the_auxiliary_decoders_beside(dims, residual):
    built = network(dims=dims, residual=residual, auxiliary=2)
    plain = unet(dims=dims, residual=residual)
    names = list(built.state_dict())
    assert [name for name in names if not name.startswith(AUXILIARY)] == list(plain.state_dict())
    of_decoder = [n for n in plain.state_dict() if n.startswith("decoder.") and not n.startswith("decoder.encoder.")]
    for number in range(2):
        prefix = f"{AUXILIARY}{number}."
        own = [name for name in names if name.startswith(prefix)]
        assert [built.stock_key(name) for name in own] == of_decoder
    assert all(built.stock_key(name) == name for name in plain.state_dict())


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_in_evaluation_it_computes_what_the_plain_unet_computes(dims, residual):
    built = network(dims=dims, residual=residual, dropout=0.5)
    plain = unet(dims=dims, residual=residual)
    kept = {name: value for name, value in built.state_dict().items() if not name.startswith(AUXILIARY)}
    plain.load_state_dict(kept)
    for enabled in (True, False):
        built.set_deep_supervision(enabled)
        plain.decoder.deep_supervision = enabled
        ours, theirs = built.eval()(data(dims)), plain.eval()(data(dims))
        ours, theirs = (ours, theirs) if enabled else ([ours], [theirs])
        assert len(ours) == len(theirs)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_auxiliary_decoders_are_not_computed_in_evaluation():
    built = network().eval()
    called = []
    built.auxiliary_decoders[0].register_forward_hook(lambda *_: called.append(1))
    built(data(3))
    assert called == []
    built.train()(data(3))
    assert called == [1]


def test_in_training_every_decoder_answers_and_gets_a_gradient():
    built = network(auxiliary=2, dropout=0.5).train()
    outputs = built(data(3))
    assert [len(heads) for heads in outputs] == [2, 2, 2]
    sum(head.square().mean() for heads in outputs for head in heads).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())


def test_the_perturbation_drops_whole_channels_of_every_feature_of_its_own_decoder():
    built = network(dropout=0.5).train()
    seen = {}
    built.decoder.register_forward_pre_hook(lambda _, inputs: seen.update(main=inputs[0]))
    built.auxiliary_decoders[0].register_forward_pre_hook(lambda _, inputs: seen.update(other=inputs[0]))
    torch.manual_seed(3)
    built(data(3))
    dropped = 0
    for clean, perturbed in zip(seen["main"], seen["other"]):
        zero = (perturbed == 0).flatten(2).all(dim=2)
        dropped += int(zero.sum())
        # a channel is dropped whole, or doubled
        expected = torch.where(zero[..., None, None, None], torch.zeros(()), 2 * clean)
        torch.testing.assert_close(perturbed, expected)
    channels = sum(feature.shape[0] * feature.shape[1] for feature in seen["main"])
    assert 0.25 * channels < dropped < 0.75 * channels


def test_without_dropout_branches_of_equal_weights_agree():
    built = network().train()
    own = built.decoder.state_dict()
    built.auxiliary_decoders[0].load_state_dict({k: v for k, v in own.items() if not k.startswith("encoder.")})
    main, other = built(data(3))
    assert all(torch.equal(a, b) for a, b in zip(main, other))


def test_copies_and_strict_loading():
    built = network(auxiliary=2)
    clone = copy.deepcopy(built)
    network(auxiliary=2).load_state_dict(clone.state_dict())
    assert {p.data_ptr() for p in clone.parameters()}.isdisjoint(p.data_ptr() for p in built.parameters())


def test_every_decoder_counts_as_decoder_for_fine_tuning():
    built = network(auxiliary=1)
    assert decoder_parameter_names(built) == {
        name for name, _ in built.named_parameters() if not name.startswith("encoder.")
    }


def test_memory_is_estimated_as_of_the_plain_unet():
    plain = unet(dims=2)
    size = [16, 16]
    assert network(dims=2).compute_conv_feature_map_size(size) == plain.compute_conv_feature_map_size(size) > 0


def test_too_few_perturbations_are_refused():
    main = unet(dims=2, residual=False)
    with pytest.raises(ValueError, match="2 decoders need as many"):
        MultiDecoderUNet(main, [unet(dims=2, residual=False).decoder], [nn.Identity()])


@pytest.mark.parametrize("dims", [2, 3])
def test_compiles_without_a_break(dims):
    built = network(dims=dims).train()
    explained = torch._dynamo.explain(built)(data(dims))
    assert explained.graph_break_count == 0
