import pytest
import torch
from torch import nn

from finetuning.test_strategies import NETWORKS, unet
from nnunet_ext.networks.dilated_decoder import BottleneckDropout, dilate, initialise


def convolutions(module):
    return [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Conv3d))]


@pytest.mark.parametrize(("dims", "residual"), NETWORKS)
def test_dilation_keeps_shapes_and_weights_and_changes_the_output(dims, residual):
    network = unet(dims=dims, residual=residual)
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    data = torch.randn(2, 2, *[16] * dims, generator=torch.Generator().manual_seed(1))
    before = network(data)
    dilate(network.decoder, 1)
    assert all(torch.equal(a, b) for a, b in zip(network(data), before))
    dilate(network.decoder, 6)
    after = network(data)
    assert [one.shape for one in after] == [one.shape for one in before]
    assert not torch.allclose(after[0], before[0])
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_voxel_is_seen_from_further_away_the_larger_the_dilation():
    stages = nn.ModuleList([nn.Identity(), nn.Conv3d(1, 1, 3, padding=1, bias=False)])
    decoder = nn.Module()
    decoder.stages = stages
    nn.init.ones_(stages[1].weight)
    dilate(decoder, 3)
    impulse = torch.zeros(1, 1, 9, 9, 9)
    impulse[..., 4, 4, 4] = 1
    seen = stages[1](impulse)[0, 0].nonzero().unique().tolist()
    assert seen == [1, 4, 7]


def test_deepest_stage_heads_upsampling_and_kernels_of_one_voxel_stay_as_they_are():
    network = unet(dims=3, kernel_sizes=[[1, 3, 3]] * 3)
    dilate(network.decoder, 3)
    decoder = network.decoder
    for conv in [*convolutions(decoder.stages[0]), *convolutions(decoder.seg_layers)]:
        assert set(conv.dilation) == {1}
    for conv in convolutions(nn.ModuleList(list(decoder.stages)[1:])):
        assert conv.dilation == tuple(3 if side > 1 else 1 for side in conv.kernel_size)
        assert conv.padding == tuple(3 if side > 1 else 0 for side in conv.kernel_size)
    assert all(set(up.dilation) == {1} for up in decoder.transpconvs)


def test_every_kind_of_first_weights_is_drawn_as_it_says():
    torch.manual_seed(0)
    decoder = unet(dims=3).decoder
    before = [conv.weight.clone() for conv in convolutions(decoder.stages)]
    initialise(decoder, "kaiming")
    assert all(torch.equal(conv.weight, old) for conv, old in zip(convolutions(decoder.stages), before))
    initialise(decoder, "normal")
    entries = torch.cat([conv.weight.flatten() for conv in convolutions(decoder.stages)])
    assert entries.std().item() == pytest.approx(0.02, rel=0.05)
    initialise(decoder, "xavier")
    for conv in convolutions(decoder.stages):
        fan = conv.weight[0].numel() + conv.weight[:, 0].numel()
        limit = (6 / fan) ** 0.5
        assert conv.weight.abs().max().item() <= limit
        assert conv.weight.std().item() == pytest.approx(limit / 3**0.5, rel=0.15)
        assert not conv.bias.any()


def test_bottleneck_dropout_draws_its_share_in_training_and_touches_nothing_else():
    dropout = BottleneckDropout(0.5)
    features = [torch.ones(2, 3, 8, 8), torch.ones(2, 64, 20, 20)]
    torch.manual_seed(0)
    shares = []
    for _ in range(200):
        skip, bottleneck = dropout(features)
        assert skip is features[0]
        dropped = (bottleneck == 0).float().mean().item()
        assert torch.allclose(bottleneck[bottleneck != 0], torch.tensor(1 / (1 - dropped)), rtol=0.02)
        shares.append(dropped)
    assert 0 <= min(shares) < 0.05
    assert 0.45 < max(shares) < 0.52
    assert sum(shares) / len(shares) == pytest.approx(0.25, abs=0.03)
    assert dropout.eval()(features)[1] is features[1]
    assert BottleneckDropout(0.0)(features)[1] is features[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bottleneck_dropout_leaves_type_and_device_as_they_are(dtype):
    dropout = BottleneckDropout(0.5)
    assert dropout([torch.ones(1, 2, 4, 4, dtype=dtype)])[0].dtype == dtype
    assert dropout([torch.ones(1, 2, 4, 4, dtype=dtype, device="meta")])[0].device.type == "meta"


def test_every_sample_of_a_batch_loses_other_entries_of_its_bottleneck():
    torch.manual_seed(0)
    dropout = BottleneckDropout(0.5)
    dropped = [dropout([torch.ones(2, 64, 20, 20)])[0] == 0 for _ in range(10)]
    assert max((first != second).float().mean().item() for first, second in dropped) > 0.3
