"""Weights of one real network as the start of another: channels, heads, decoders, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import nn

from nnunet_ext.checkpoints.adaptation import adapt, aliases
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.outcome import Adaptation
from nnunet_ext.errors import UserError
from support.models import LABELS, checkpoint_of, description, network_of

FAMILIES = list(product(["plain", "resenc"], [2, 3]))
OTHER_LABELS = {"background": 0, "liver": 1, "core": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}


def trained(model: ModelDescription) -> nn.Module:
    """The model's network with weights that no initialisation gives."""
    network = network_of(model)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return network


def adapted(
    origin: ModelDescription, target: ModelDescription, *, keep_heads: bool = True
) -> tuple[nn.Module, nn.Module, Adaptation]:
    """The source's network, the target's with the adapted weights in it, and what was done."""
    source, network = trained(origin), network_of(target)
    result = adapt(checkpoint_of(origin, source), network, target, keep_heads=keep_heads)
    network.load_state_dict(result.weights, strict=True)
    return source, network, result


def outcomes(result: Adaptation) -> dict[str, str]:
    return {tensor.key: tensor.outcome for tensor in result.tensors}


def image(channels: int, dims: int) -> torch.Tensor:
    return torch.randn(2, channels, *[16] * dims)


# ---------------------------------------------------------------------- the same architecture


@pytest.mark.parametrize(("family", "dims"), FAMILIES)
def test_same_model_is_copied_and_computes_the_same(family: str, dims: int) -> None:
    model = description(family=family, dims=dims)
    source, network, result = adapted(model, model)
    assert set(outcomes(result).values()) == {"copied"}
    assert {tensor.reason for tensor in result.tensors} == {""}
    x = image(1, dims)
    for mine, theirs in zip(network(x), source(x), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(("family", "dims"), FAMILIES)
def test_every_name_is_in_the_result_and_every_tensor_counted_once(family: str, dims: int) -> None:
    model = description(family=family, dims=dims)
    _, network, result = adapted(model, model)
    assert list(result.weights) == list(network.state_dict())
    assert len(result.weights) > len(result.tensors) == len(list(network.parameters()))
    assert [len(keys) for keys, _ in aliases(result.weights)] == [
        len(keys) for keys, _ in aliases(network.state_dict())
    ]


@pytest.mark.parametrize("keep", ["first", "last"])
def test_source_without_aliases_is_enough(keep: str) -> None:
    model = description(family="resenc")
    network = trained(model)
    checkpoint = checkpoint_of(model, network)
    place = 0 if keep == "first" else -1
    checkpoint["network_weights"] = {keys[place]: tensor for keys, tensor in aliases(network.state_dict())}
    result = adapt(checkpoint, network_of(model), model, keep_heads=True)
    for key, tensor in network.state_dict().items():
        assert torch.equal(result.weights[key], tensor)
    assert set(outcomes(result).values()) == {"copied"}


def test_result_is_independent_of_the_network_and_the_source() -> None:
    model = description()
    source, network = trained(model), network_of(model)
    result = adapt(checkpoint_of(model, source), network, model, keep_heads=False)
    before = {key: value.clone() for key, value in result.weights.items()}
    with torch.no_grad():
        for parameter in (*source.parameters(), *network.parameters()):
            parameter.zero_()
    for key, value in before.items():
        assert torch.equal(result.weights[key], value)


def test_network_is_left_as_it_is() -> None:
    model = description()
    network = network_of(model)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    adapt(checkpoint_of(model, trained(model)), network, model, keep_heads=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_half_precision_is_brought_to_the_networks() -> None:
    model = description()
    checkpoint = checkpoint_of(model, trained(model).half())
    result = adapt(checkpoint, network_of(model), model, keep_heads=True)
    assert {value.dtype for value in result.weights.values()} == {torch.float32}


# ---------------------------------------------------------------------- input channels


@pytest.mark.parametrize(("family", "dims"), FAMILIES)
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 3), (4, 2)])
def test_equal_channels_give_the_same_features_as_before(family: str, dims: int, before: int, after: int) -> None:
    names = ("T1", "T2", "FLAIR", "CT")
    origin = description(family=family, dims=dims, channels=names[:before])
    target = description(family=family, dims=dims, channels=names[:after])
    source, network = trained(origin).double(), network_of(target).double()
    result = adapt(checkpoint_of(origin, source), network, target, keep_heads=True)
    network.load_state_dict(result.weights, strict=True)
    channel = image(1, dims).double()
    repeats = (-1, before, *[-1] * dims), (-1, after, *[-1] * dims)
    for old, new in zip(source.encoder(channel.expand(repeats[0])), network.encoder(channel.expand(repeats[1]))):
        torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)
    adapted_tensors = [tensor for tensor in result.tensors if tensor.outcome == "adapted"]
    assert len(adapted_tensors) == 1
    assert f"{before} -> {after} input channels" in adapted_tensors[0].reason
    assert f"times {before}/{after}" in adapted_tensors[0].reason
    assert "which both have" in adapted_tensors[0].reason


def test_mean_by_hand() -> None:
    origin, target = description(channels=("a", "b")), description(channels=("c", "d", "e"))
    source, network, result = adapted(origin, target)
    old = source.encoder.stages[0][0].convs[0].conv.weight
    new = network.encoder.stages[0][0].convs[0].conv.weight
    for channel in range(3):
        torch.testing.assert_close(new[:, channel], (old[:, 0] + old[:, 1]) / 3)
    assert "which both have" not in result.table()


def test_cascade_adds_channels() -> None:
    _, network, result = adapted(description(), description(cascade=True))
    assert network.encoder.stages[0][0].convs[0].conv.in_channels == 3
    assert "image channels copied; random: " in result.table()
    key = "encoder.stages.0.0.convs.0.conv.weight"
    assert result.known[key].flatten().tolist() == [True, False, False]


def test_channels_in_another_order_change_places() -> None:
    origin = description(channels=("T1", "CT", "T2"))
    source, network, result = adapted(origin, description(channels=("T2", "T1", "CT")))
    x = image(3, 3)
    for old, new in zip(source(x), network(x[:, [2, 0, 1]])):
        torch.testing.assert_close(new, old, rtol=1e-4, atol=1e-4)
    assert "in the order T2, T1, CT" in result.table()
    assert [tensor.outcome for tensor in result.tensors].count("adapted") == 1


def test_name_that_occurs_twice_keeps_its_order() -> None:
    source, network, _ = adapted(description(channels=("MR", "CT", "MR")), description(channels=("CT", "MR", "MR")))
    old = source.encoder.stages[0][0].convs[0].conv.weight
    new = network.encoder.stages[0][0].convs[0].conv.weight
    assert torch.equal(new, old[:, [1, 0, 2]])


def test_other_channels_of_the_same_number_are_copied_and_said() -> None:
    source, network, result = adapted(description(channels=("T1",)), description(channels=("CT",)))
    assert torch.equal(
        network.encoder.stages[0][0].convs[0].conv.weight, source.encoder.stages[0][0].convs[0].conv.weight
    )
    assert set(outcomes(result).values()) == {"copied"}
    assert "input channels T1 serve as CT" in result.table()


# ---------------------------------------------------------------------- heads


def test_rows_of_known_labels_are_copied_and_the_rest_stays_random() -> None:
    origin, target = description(), description(labels=OTHER_LABELS)
    source, network = trained(origin), network_of(target)
    initial = {key: value.clone() for key, value in network.state_dict().items()}
    result = adapt(checkpoint_of(origin, source), network, target, keep_heads=True)
    for level, kind in product(range(2), ("weight", "bias")):
        key = f"decoder.seg_layers.{level}.{kind}"
        old, new = source.state_dict()[key], result.weights[key]
        assert torch.equal(new[0], old[0])
        assert torch.equal(new[1], initial[key][1])
        assert torch.equal(new[2], old[2])
        assert outcomes(result)[key] == "adapted"
    assert "rows by name: background, core; random: liver" in result.table()


def test_rows_follow_the_values_of_labels() -> None:
    source, network, _ = adapted(description(), description(labels={"background": 0, "core": 1, "shell": 2}))
    x = image(1, 3)
    for old, new in zip(source(x), network(x)):
        torch.testing.assert_close(new, old[:, [0, 2, 1]], rtol=1e-4, atol=1e-4)


def test_regions_are_found_by_name() -> None:
    source, network, result = adapted(
        description(labels=REGIONS), description(labels={"background": 0, "core": [1], "tumour": [1, 2], "ignore": 3})
    )
    old, new = source.decoder.seg_layers[1].weight, network.decoder.seg_layers[1].weight
    assert torch.equal(new[0], old[1])
    assert "rows by name: core; random: tumour" in result.table()


@pytest.mark.parametrize(("before", "after"), [(LABELS, REGIONS), (REGIONS, LABELS)])
def test_softmax_and_sigmoid_heads_do_not_mix(before: dict[str, Any], after: dict[str, Any]) -> None:
    _, _, result = adapted(description(labels=before), description(labels=after))
    heads = {tensor.outcome for tensor in result.tensors if "seg_layers" in tensor.key}
    assert heads == {"random", "unused"}
    assert "but the source's is" in result.table()


def test_heads_without_a_common_label_stay_random() -> None:
    origin = description(labels={"background": 0, "a": [1, 2], "b": [2]})
    _, _, result = adapted(origin, description(labels=REGIONS))
    assert "random   4 tensors  the source knows none of whole, core" in result.table()


def test_heads_stay_random_on_request() -> None:
    model = description()
    source, network = trained(model), network_of(model)
    initial = {key: value.clone() for key, value in network.state_dict().items()}
    result = adapt(checkpoint_of(model, source), network, model, keep_heads=False)
    heads = [key for key in result.weights if ".seg_layers." in key]
    assert heads
    for key in heads:
        assert torch.equal(result.weights[key], initial[key])
    assert "heads are not kept" in result.table()


def test_heads_of_a_source_without_labels_stay_random() -> None:
    model = description()
    checkpoint = {"network_weights": checkpoint_of(model, trained(model))["network_weights"]}
    result = adapt(checkpoint, network_of(model), model, keep_heads=True)
    assert outcomes(result)["encoder.stages.0.0.convs.0.conv.weight"] == "copied"
    assert "does not say which labels" in result.table()


def test_missing_heads_of_low_resolution_stay_random() -> None:
    model = description()
    source = trained(model)
    full, coarse = source.decoder.seg_layers[1], source.decoder.seg_layers[0]
    source.decoder.seg_layers = nn.ModuleList([full])
    result = adapt(checkpoint_of(model, source), network_of(model), model, keep_heads=True)
    assert torch.equal(result.weights["decoder.seg_layers.1.weight"], full.weight)
    assert result.weights["decoder.seg_layers.0.weight"].shape == coarse.weight.shape
    assert outcomes(result)["decoder.seg_layers.0.weight"] == "random"
    assert "the source has no such head" in result.table()


def test_heads_of_low_resolution_that_are_too_many_stay_unused() -> None:
    model = description()
    source, network = trained(model), network_of(model)
    network.decoder.seg_layers = nn.ModuleList([network.decoder.seg_layers[1]])
    result = adapt(checkpoint_of(model, source), network, model, keep_heads=True)
    assert torch.equal(result.weights["decoder.seg_layers.0.weight"], source.decoder.seg_layers[1].weight)
    unused = [tensor for tensor in result.tensors if tensor.outcome == "unused"]
    assert [tensor.key for tensor in unused] == ["decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"]
    assert unused[0].shape == (3, 8, 1, 1, 1)


# ---------------------------------------------------------------------- several decoders


class TwoDecoders(nn.Module):
    """A U-Net with a second decoder."""

    def __init__(self, model: ModelDescription) -> None:
        super().__init__()
        plain = network_of(model)
        self.encoder = plain.encoder
        classes = plain.decoder.num_classes
        self.decoders = nn.ModuleList(UNetDecoder(self.encoder, classes, [1, 1], True) for _ in range(2))

    def stock_key(self, key: str) -> str | None:
        first, *rest = key.split(".")
        return ".".join(["decoder", *rest[1:]]) if first == "decoders" else key


class WithSecondDecoder(nn.Module):
    """A U-Net under its usual names, with a decoder beside it that a plain one does not have."""

    def __init__(self, model: ModelDescription) -> None:
        super().__init__()
        plain = network_of(model)
        self.encoder, self.decoder = plain.encoder, plain.decoder
        self.auxiliary = UNetDecoder(self.encoder, plain.decoder.num_classes, [1, 1], True)


@pytest.mark.parametrize("family", ["plain", "resenc"])
def test_one_decoder_fills_two(family: str) -> None:
    origin = description(family=family)
    target = description(family=family, channels=("T1", "T2"), labels=OTHER_LABELS)
    source, network = trained(origin), TwoDecoders(target)
    result = adapt(checkpoint_of(origin, source), network, target, keep_heads=True)
    network.load_state_dict(result.weights, strict=True)
    for decoder in network.decoders:
        assert torch.equal(decoder.transpconvs[0].weight, source.decoder.transpconvs[0].weight)
        assert torch.equal(decoder.seg_layers[1].weight[2], source.decoder.seg_layers[1].weight[2])
    by_key = {tensor.key: tensor for tensor in result.tensors}
    assert by_key["decoders.1.transpconvs.0.weight"].outcome == "copied"
    assert by_key["decoders.1.transpconvs.0.weight"].reason == "from the source's decoder"
    assert "from the source's decoder" in by_key["decoders.1.seg_layers.0.weight"].reason
    assert "unused" not in outcomes(result).values()


@pytest.mark.parametrize("build", [network_of, TwoDecoders])
def test_source_whose_aliases_are_copies_leaves_nothing_over(build: Callable[[ModelDescription], nn.Module]) -> None:
    model = description()
    checkpoint = checkpoint_of(model, trained(model))
    checkpoint["network_weights"] = {key: value.clone() for key, value in checkpoint["network_weights"].items()}
    result = adapt(checkpoint, build(model), model, keep_heads=True)
    assert set(outcomes(result).values()) == {"copied"}


def test_decoders_of_the_same_name_are_preferred_to_the_stock_one() -> None:
    model = description()
    source = TwoDecoders(model)
    result = adapt(checkpoint_of(model, source), TwoDecoders(model), model, keep_heads=True)
    for key, value in source.state_dict().items():
        assert torch.equal(result.weights[key], value)
    assert {tensor.reason for tensor in result.tensors} == {""}


def test_decoder_that_a_plain_network_lacks_stays_unused() -> None:
    model = description()
    source, network = WithSecondDecoder(model), network_of(model)
    result = adapt(checkpoint_of(model, source), network, model, keep_heads=True)
    network.load_state_dict(result.weights, strict=True)
    unused = {tensor.key for tensor in result.tensors if tensor.outcome == "unused"}
    own = {f"auxiliary.{key}" for key in source.auxiliary.state_dict() if not key.startswith("encoder.")}
    assert unused == {key for key in own if "all_modules" not in key}


def test_tensor_that_corresponds_to_nothing_is_reported() -> None:
    model = description()
    network = WithSecondDecoder(model)
    with pytest.raises(UserError, match=r"auxiliary\.stages\.0\.convs\.0\.conv\.weight: source missing"):
        adapt(checkpoint_of(model, trained(model)), network, model, keep_heads=True)


# ---------------------------------------------------------------------- what does not fit


def refusal(checkpoint: dict[str, Any], target: ModelDescription) -> str:
    with pytest.raises(UserError) as error:
        adapt(checkpoint, network_of(target), target, keep_heads=True)
    return str(error.value)


def test_other_architecture_names_tensors_keys_and_commands() -> None:
    origin = description()
    target = description(
        dataset="Dataset005_Target", channels=("T1", "T2"), features_per_stage=[4, 8, 16], conv_bias=False
    )
    message = refusal(checkpoint_of(origin, trained(origin)), target)
    assert "encoder.stages.2.0.convs.0.conv.weight: source [12, 8, 3, 3, 3], network [16, 8, 3, 3, 3]" in message
    assert "features_per_stage: [4, 8, 12] -> [4, 8, 16]" in message
    assert "conv_bias: True -> False" in message
    assert "n_stages" not in message
    assert "nnunet_ext plan --like SOURCE -d 5 -p nnUNetPlans" in message
    assert "nnUNetv2_preprocess -d 5 -plans_name nnUNetPlans -c 3d_fullres_like" in message
    assert "adapt-weights --partial" in message


def test_many_tensors_are_counted_and_the_first_ones_named() -> None:
    origin = description(family="resenc")
    message = refusal(checkpoint_of(origin, trained(origin)), description(dataset="Dataset005_Target"))
    assert "network_class_name" in message
    assert message.count("\n  - encoder.") == 8
    listed, _, rest = message.partition(" more\n")
    total = int(message.partition(" tensors differ")[0].split()[-1])
    assert rest
    assert int(listed.split()[-1]) == total - 8


def test_network_that_leaves_layers_of_the_source_out_is_refused() -> None:
    origin = description(n_conv_per_stage=[3, 2, 2])
    message = refusal(checkpoint_of(origin, trained(origin)), description(dataset="Dataset005_Target"))
    assert "encoder.stages.0.0.convs.2.conv.weight: source [4, 4, 3, 3, 3], network missing" in message
    assert "n_conv_per_stage: [3, 2, 2] -> [2, 2, 2]" in message


def test_wider_second_stage_is_not_taken_for_other_input_channels() -> None:
    blocks = [1, 2, 2]
    origin = description(n_conv_per_stage=blocks)
    target = description(dataset="Dataset005_Target", n_conv_per_stage=blocks, features_per_stage=[6, 8, 12])
    message = refusal(checkpoint_of(origin, trained(origin)), target)
    assert "encoder.stages.1.0.convs.0.conv.weight: source [8, 4, 3, 3, 3], network [8, 6, 3, 3, 3]" in message


def test_source_without_plans_says_so() -> None:
    weights = trained(description()).state_dict()
    message = refusal({"network_weights": weights}, description(features_per_stage=[4, 8, 16]))
    assert "no init_args" in message
    assert "plan --like" not in message


def test_configuration_that_would_fit_is_named() -> None:
    origin = description()
    plans = {**origin.plans, "configurations": dict(origin.plans["configurations"])}
    wide = description(features_per_stage=[8, 8, 12])
    plans["configurations"]["wide"] = wide.plans["configurations"]["base"]
    message = refusal(checkpoint_of(origin, trained(origin)), ModelDescription(plans, "wide", origin.dataset_json))
    assert "in: base, tiny. Use that." in message


def test_same_plans_and_another_network_point_at_the_trainer() -> None:
    model = description()
    network = network_of(model)
    del network.encoder.stages[2]
    message = refusal({**checkpoint_of(model, network), "trainer_name": "nnUNetTrainerOther"}, model)
    assert "encoder.stages.2.0.convs.0.conv.weight: source missing" in message
    assert "the source's is nnUNetTrainerOther" in message


def test_two_and_three_dimensions_do_not_mix() -> None:
    origin = description(dims=2)
    message = refusal(checkpoint_of(origin, trained(origin)), description(dataset="Dataset005_Target"))
    assert "conv_op: torch.nn.modules.conv.Conv2d -> torch.nn.modules.conv.Conv3d" in message


# ---------------------------------------------------------------------- the table


def test_table_has_a_line_for_each_part_and_outcome() -> None:
    _, _, result = adapted(description(), description(channels=("T1", "T2"), labels=OTHER_LABELS))
    lines = [line.split() for line in result.table().splitlines()]
    assert [line[:2] for line in lines[:-1]] == [
        ["encoder.stages.0.0.convs.0.conv.weight", "adapted"],
        ["encoder.stages.0-2", "copied"],
        ["decoder.stages.0-1", "copied"],
        ["decoder.transpconvs.0-1", "copied"],
        ["decoder.seg_layers.0-1", "adapted"],
    ]
    assert lines[0][2:7] == ["[4,", "2,", "3,", "3,", "3]"]
    assert result.table().splitlines()[-1] == "Tensors, each counted once: 35 copied, 5 adapted."
