import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from nnunet_ext.networks.masked_autoencoder import MaskedAutoencoder
from nnunet_ext.networks.stunet import STUNet


def unet():
    return PlainConvUNet(1, 3, [4, 6, 8], nn.Conv2d, 3, [1, 2, 2], 1, 3, 1, norm_op=nn.InstanceNorm2d, nonlin=nn.ReLU)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    plain, restoring = unet(), unet()
    return plain, restoring.decoder, MaskedAutoencoder(plain, restoring.decoder)


def test_the_output_is_that_of_encoder_and_restoring_decoder(parts):
    plain, restoring, network = parts
    data = torch.randn(1, 1, 16, 16)
    assert torch.equal(network(data), restoring(plain.encoder(data)))
    assert not torch.equal(network(data), plain(data))


def test_a_decoder_that_keeps_no_encoder_will_do():
    plain, restoring = (
        STUNet(
            1,
            3,
            n_stages=2,
            features_per_stage=[4, 6],
            kernel_sizes=[[3, 3, 3]] * 2,
            strides=[[1, 1, 1], [2, 2, 2]],
            n_blocks_per_stage=[1, 1],
        )
        for _ in range(2)
    )
    restoring.decoder.deep_supervision = False
    assert MaskedAutoencoder(plain, restoring.decoder)(torch.randn(1, 1, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


def test_all_that_learns_takes_part_and_the_plain_decoder_does_not(parts):
    plain, _, network = parts
    network.restoring_decoder.seg_layers[:-1].requires_grad_(False)
    network(torch.randn(1, 1, 16, 16)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert all(parameter.requires_grad for parameter in plain.encoder.parameters())
    assert not any(parameter.requires_grad for parameter in plain.decoder.stages.parameters())


def test_encoder_and_plain_decoder_have_the_plain_names(parts):
    plain, _, network = parts
    names = set(network.state_dict())
    assert set(plain.state_dict()) <= names
    more = {name.partition(".")[0] for name in names - set(plain.state_dict())}
    assert more == {"restoring_decoder"}
    assert not any(name.startswith("restoring_decoder.encoder") for name in names)
