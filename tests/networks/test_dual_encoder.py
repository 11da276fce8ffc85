import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_ext.networks.dual_encoder import DifferenceWeighting, DualEncoderUNet, GatedFusion, channels_of
from nnunet_ext.networks.stunet import STUNet

FEATURES = (4, 6, 8)
CLASSES = 3
FUSIONS = ("gated", "add", "concat", "difference")


def unet(architecture=PlainConvUNet, *, inputs=1, features=FEATURES, dims=3, deep_supervision=False):
    depth = "n_conv_per_stage" if architecture is PlainConvUNet else "n_blocks_per_stage"
    return architecture(
        input_channels=inputs,
        n_stages=3,
        features_per_stage=features,
        conv_op=nn.Conv3d if dims == 3 else nn.Conv2d,
        kernel_sizes=3,
        strides=[1, 2, 2],
        num_classes=CLASSES,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm3d if dims == 3 else nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **{depth: 1},
    )


def dual(
    architecture=PlainConvUNet,
    *,
    width=(4, 6, 8),
    dims=3,
    deep_supervision=False,
    prior=(1, 2),
    fusion="gated",
    **options,
):
    torch.manual_seed(0)
    main = unet(architecture, dims=dims, deep_supervision=deep_supervision)
    context = unet(architecture, inputs=len(prior), features=width, dims=dims).encoder
    return DualEncoderUNet(main, context, current=[0], prior=prior, fusion=fusion, **options)


def data_of(dims=3, channels=3, seed=0):
    return torch.randn((2, channels, *[16] * dims), generator=torch.Generator().manual_seed(seed))


def sibling(network, architecture=PlainConvUNet, dims=3):
    """The plain U-Net with the same weights."""
    plain = unet(architecture, dims=dims)
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if network.stock_key(key)})
    return plain.eval()


# ---------------------------------------------------------------------- the gate, by another way of computing it


@pytest.mark.parametrize("dims", [2, 3])
def test_gate_against_its_formula_in_float64(dims):
    torch.manual_seed(1)
    gate = GatedFusion(5, 3, nn.Conv3d if dims == 3 else nn.Conv2d)
    sides = (4, 3, 2)[:dims]
    x, context = torch.randn(2, 5, *sides), torch.randn(2, 3, *sides)
    w, w0 = gate.spatial_gate.weight.detach().double().numpy().reshape(3), gate.spatial_gate.bias.item()
    matrix, offset = (value.detach().double().numpy() for value in (gate.channel_gate.weight, gate.channel_gate.bias))
    expected = np.zeros(x.shape)
    for sample in range(2):
        features, prior = x[sample].double().numpy(), context[sample].double().numpy()
        spatial = np.zeros(sides)
        for place in np.ndindex(sides):
            spatial[place] = 1 / (1 + np.exp(-(sum(w[k] * prior[(k, *place)] for k in range(3)) + w0)))
        raised = np.stack([spatial * features[channel] for channel in range(5)])
        scores = np.exp(matrix @ np.array([raised[channel].mean() for channel in range(5)]) + offset)
        for channel in range(5):
            expected[sample, channel] = features[channel] + raised[channel] * 5 * scores[channel] / scores.sum()
    np.testing.assert_allclose(gate(x, context).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_gate_by_hand():
    gate = GatedFusion(2, 1, nn.Conv2d)
    with torch.no_grad():
        gate.spatial_gate.weight.fill_(np.log(3.0))
        gate.spatial_gate.bias.zero_()
        gate.channel_gate.weight.zero_()
        gate.channel_gate.bias.copy_(torch.tensor([np.log(3.0), 0.0]))
    # σ(log 3) = .75 where the context is 1, .5 where it is 0; the channels weigh 2 · .75 and 2 · .25
    x = torch.tensor([[[[1.0, 2.0]], [[4.0, 8.0]]]])
    context = torch.tensor([[[[1.0, 0.0]]]])
    expected = torch.tensor([[[[1 + 0.75 * 1.5, 2 + 1.0 * 1.5]], [[4 + 3 * 0.5, 8 + 4 * 0.5]]]])
    torch.testing.assert_close(gate(x, context), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_difference_weighting_against_its_formula_in_float64(dims):
    torch.manual_seed(1)
    block = DifferenceWeighting(5, 3, nn.Conv3d if dims == 3 else nn.Conv2d)
    nn.init.normal_(block.norm.weight)
    nn.init.normal_(block.norm.bias)
    sides = (4, 3, 2)[:dims]
    x, context = torch.randn(2, 5, *sides), torch.randn(2, 3, *sides)
    parts = (block.projection.weight, block.projection.bias, block.norm.weight, block.norm.bias)
    w, w0, scale, shift = (value.detach().double().numpy() for value in parts)
    expected = np.zeros(x.shape)
    for sample in range(2):
        features, prior = x[sample].double().numpy(), context[sample].double().numpy()
        for channel in range(5):
            seen = sum(w.reshape(5, 3)[channel, k] * prior[k] for k in range(3)) + w0[channel]
            change = features[channel] - seen
            normal = (change - change.mean()) / np.sqrt(change.var() + 1e-5)
            expected[sample, channel] = features[channel] * (1 + scale[channel] * normal + shift[channel])
    np.testing.assert_allclose(block(x, context).detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_gate_is_finite_in_half_precision():
    gate = GatedFusion(512, 8, nn.Conv3d)
    x, context = 100 * torch.randn(1, 512, 4, 4, 4), 100 * torch.randn(1, 8, 4, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.isfinite(gate(x, context)).all()


def test_features_of_few_voxels_are_finite_in_half_precision():
    block = DifferenceWeighting(1, 1, nn.Conv3d)
    nn.init.zeros_(block.projection.weight)
    x = torch.zeros(1, 1, 64, 64, 64)
    x[0, 0, 0, 0, :2] = 362.0  # as an instance normalisation before it leaves them
    with torch.autocast("cpu", dtype=torch.float16):
        weighted = block(x.half(), torch.zeros_like(x).half())
    assert weighted.dtype == torch.float16
    assert torch.isfinite(weighted).all()
    assert weighted.max() > 6e4


def test_gate_leaves_half_precision_as_it_is():
    gate = GatedFusion(4, 2, nn.Conv2d).bfloat16()
    fused = gate(torch.ones(1, 4, 3, 3, dtype=torch.bfloat16), torch.ones(1, 2, 3, 3, dtype=torch.bfloat16))
    assert fused.dtype == torch.bfloat16


# ---------------------------------------------------------------------- the network beside its single-encoder sibling


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("fuse_skips", [False, True])
def test_with_gate_weights_zero_it_is_the_plain_unet_with_features_times_one_and_a_half(architecture, fuse_skips):
    network = dual(architecture, fuse_skips=fuse_skips).eval()
    for parameter in network.fusions.parameters():
        nn.init.zeros_(parameter)
    data = data_of()
    plain = sibling(network, architecture)
    x = data[:, :1]
    if architecture is ResidualEncoderUNet:
        x = plain.encoder.stem(x)
    skips = []
    for level, stage in enumerate(plain.encoder.stages):
        x = stage(x)
        skips.append(1.5 * x if fuse_skips or level == 2 else x)
        x = x if level == 0 and not fuse_skips else 1.5 * x
    torch.testing.assert_close(network(data), plain.decoder(skips))


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("fuse_skips", [False, True])
@pytest.mark.parametrize("fusion", ["add", "concat"])
@pytest.mark.parametrize("dims", [2, 3])
def test_added_and_concatenated_context_begin_as_the_plain_unet(architecture, fusion, fuse_skips, dims):
    network = dual(architecture, fusion=fusion, fuse_skips=fuse_skips, dims=dims).eval()
    data = data_of(dims)
    torch.testing.assert_close(network(data), sibling(network, architecture, dims)(data[:, :1]))


@pytest.mark.parametrize("fusion", ["add", "concat"])
def test_their_projections_follow_their_formula_once_they_have_moved(fusion):
    network = dual(fusion=fusion, width=(2, 3, 5)).eval()
    fused = network.fusions[1]
    for parameter in fused.parameters():
        nn.init.normal_(parameter)
    x, context = torch.randn(2, 8, 3, 3, 3), torch.randn(2, 5, 3, 3, 3)
    weight = fused.projection.weight.detach().flatten(1).double()
    inputs = context if fusion == "add" else torch.cat([x, context], dim=1)
    expected = torch.einsum("kc,bcxyz->bkxyz", weight, inputs.double())
    expected = expected + fused.projection.bias.detach().double()[None, :, None, None, None]
    expected = expected + x.double() if fusion == "add" else expected
    torch.testing.assert_close(fused(x, context).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("fuse_skips", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_changing_the_prior_changes_the_output(fusion, fuse_skips, dims):
    network = dual(fusion=fusion, fuse_skips=fuse_skips, dims=dims).eval()
    for parameter in network.fusions.parameters():
        nn.init.normal_(parameter)  # as after some training: two fusions begin without the prior
    data = data_of(dims)
    for channel in (1, 2):
        other = data.clone()
        other[:, channel] = torch.randn(other[:, channel].shape)
        assert (network(data) - network(other)).abs().max() > 1e-3, channel


def test_the_context_encoder_never_sees_the_current_scan():
    network = dual().eval()
    seen = []
    network.context_encoder.register_forward_hook(lambda module, inputs, output: seen.append(output))
    data = data_of()
    other = data.clone()
    other[:, 0] += 1
    network(data), network(other)
    assert all(torch.equal(one, two) for one, two in zip(*seen))


@pytest.mark.parametrize("fuse_skips", [False, True])
def test_the_decoder_receives_skips_before_fusion_unless_they_are_fused(fuse_skips):
    network = dual(fuse_skips=fuse_skips).eval()
    received, stages = [], []
    network.decoder.register_forward_pre_hook(lambda module, inputs: received.append(inputs[0]))
    for stage in network.encoder.stages:
        stage.register_forward_hook(lambda module, inputs, output: stages.append(output))
    network(data_of())
    is_fused = [not torch.equal(one, two) for one, two in zip(received[0], stages)]
    assert is_fused == ([True, True, True] if fuse_skips else [False, False, True])


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("fuse_skips", [False, True])
def test_difference_weights_what_the_decoder_gets_and_not_what_the_encoder_goes_on_with(architecture, fuse_skips):
    network, received = dual(architecture, fusion="difference", width=(2, 3, 5), fuse_skips=fuse_skips).eval(), []
    for parameter in network.fusions.parameters():
        nn.init.normal_(parameter)
    network.decoder.register_forward_pre_hook(lambda module, inputs: received.extend(inputs[0]))
    data = data_of()
    network(data)
    features, context = network.encoder(data[:, :1]), network.context_encoder(data[:, 1:])
    assert len(network.fusions) == len(received) == len(features)
    for fusion, found, x, c in zip(network.fusions, received, features, context):
        torch.testing.assert_close(found, x + x * fusion.norm(x - fusion.projection(c)))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_gets_a_gradient_in_a_step(fusion):
    network = dual(fusion=fusion, deep_supervision=True)
    for parameter in network.fusions.parameters():
        nn.init.normal_(parameter)
    heads = network(data_of())
    assert [head.shape[-1] for head in heads] == [16, 8]
    sum(head.square().mean() for head in heads).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []
    # biases before an instance norm do not matter
    moved = [value.grad.abs().sum() > 0 for name, value in network.named_parameters() if "bias" not in name]
    assert all(moved)


def test_width_changes_the_context_encoder_alone():
    narrow, wide = dual(width=(2, 3, 4)), dual()
    assert narrow.encoder.output_channels == wide.encoder.output_channels
    assert narrow.context_encoder.output_channels == (2, 3, 4)
    assert [fusion.spatial_gate.weight.shape[1] for fusion in narrow.fusions] == [3, 4]


@pytest.mark.parametrize("architecture", [PlainConvUNet, ResidualEncoderUNet])
def test_weights_of_a_plain_unet_leave_only_context_and_gates_out(architecture):
    network = dual(architecture)
    result = network.load_state_dict(unet(architecture).state_dict(), strict=False)
    assert result.unexpected_keys == []
    assert {key.split(".")[0] for key in result.missing_keys} == {"context_encoder", "fusions"}
    assert {key for key in network.state_dict() if network.stock_key(key) is None} == set(result.missing_keys)


def test_channels_in_any_order():
    data = data_of(channels=4)
    assert torch.equal(channels_of(data, [2]), data[:, 2:3])
    assert torch.equal(channels_of(data, [1, 2, 3]), data[:, 1:4])
    assert torch.equal(channels_of(data, [3, 1]), torch.stack([data[:, 3], data[:, 1]], dim=1))
    torch.manual_seed(0)
    network = DualEncoderUNet(unet(), unet(inputs=2).encoder, current=[2], prior=[3, 0]).eval()
    other = data.clone()
    other[:, 1] = 7.0
    assert torch.equal(network(data), network(other)), "channel 1 has no role"


def test_channels_that_stand_together_are_not_copied():
    data = data_of(channels=4)
    for channels in ([2], [1, 2, 3], [0, 1]):
        assert channels_of(data, channels).data_ptr() == data[:, channels[0]].data_ptr()


@pytest.mark.parametrize("fusion", ["gated", "difference"])
def test_compiled_equals_plain(fusion):
    network = dual(fusion=fusion, deep_supervision=True).eval()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for one, two in zip(network(data_of()), compiled(data_of())):
        torch.testing.assert_close(one, two)


def test_memory_is_estimated_with_the_second_encoder():
    network, plain = dual(), unet()
    both = network.compute_conv_feature_map_size([16] * 3)
    alone = plain.compute_conv_feature_map_size([16] * 3)
    assert both - alone == network.context_encoder.compute_conv_feature_map_size([16] * 3)


def test_an_encoder_that_is_not_nnunets_is_refused():
    shape = {"n_stages": 2, "features_per_stage": [4, 6], "n_blocks_per_stage": [1, 1]}
    stages = {"kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]]}
    network = STUNet(1, CLASSES, **shape, **stages)
    with pytest.raises(NotImplementedError, match="the plans have a STUNet.*fusion=early"):
        DualEncoderUNet(network, network.encoder, current=[0], prior=[1])
