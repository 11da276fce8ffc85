"""What plain nnU-Net has of a network with more parts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nnunet_ext.checkpoints.adaptation import aliases
from nnunet_ext.checkpoints.stock_export import stock_weights
from nnunet_ext.networks.multi_decoder import MultiDecoderUNet
from support.models import description, network_of


@pytest.fixture(scope="module", params=["plain", "resenc"])
def unet(request: pytest.FixtureRequest) -> nn.Module:
    return network_of(description(family=request.param))


def test_a_plain_networks_weights_stay_as_they_are(unet):
    kept, left_out = stock_weights(unet.state_dict(), unet)
    assert left_out == {}
    assert list(kept) == list(unet.state_dict())


def test_copies_of_a_weight_under_its_names_become_one_tensor(unet):
    copies = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    kept, _ = stock_weights(copies, unet)
    names = [keys for keys, _ in aliases(unet.state_dict())]
    assert [keys for keys, _ in aliases(kept)] == names
    assert any(len(keys) > 1 for keys in names)
    assert all(torch.equal(kept[key], tensor) for key, tensor in unet.state_dict().items())


def test_further_decoders_are_left_out_and_counted(unet):
    family = "resenc" if "Residual" in type(unet).__name__ else "plain"
    main, other = (network_of(description(family=family)) for _ in range(2))
    decoders = MultiDecoderUNet(main, [other.decoder], [nn.Identity(), nn.Identity()])
    kept, left_out = stock_weights(decoders.state_dict(), unet)
    auxiliary = sum(parameter.numel() for parameter in decoders.auxiliary_decoders.parameters())
    assert left_out == {"auxiliary_decoders": auxiliary}
    unet.load_state_dict(kept)
    data = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(unet.eval()(data)[0], decoders.eval()(data)[0])


def test_missing_and_other_shapes_are_named(unet):
    weights = dict(unet.state_dict())
    first, second, *_ = weights
    del weights[first]
    weights[second] = torch.zeros(99)
    with pytest.raises(ValueError, match=rf"{first} is missing, {second} is \[99\], not \["):
        stock_weights(weights, unet)
    with pytest.raises(ValueError, match=r"and \d+ more"):
        stock_weights({}, unet)
