"""Each reader gives, from a file of its source's layout, a network that computes what the source's does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

from nnunet_ext.arguments import add_source_options
from nnunet_ext.checkpoints.adaptation import adapt
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.fit import check_consistent
from nnunet_ext.checkpoints.networks import build_network
from nnunet_ext.checkpoints.sources import READERS, Source, read_source, voco
from nnunet_ext.errors import UserError
from support import public_weights
from support.public_weights import (
    GEOMETRY,
    LAYOUTS,
    model,
    multitalent,
    nnssl,
    nnunet,
    stunet,
    totalsegmentator,
    use_small_descriptions,
    wrapped,
)

STEM = {"multitalent": "351_5"}
ENCODER_ALONE = {"nnssl"}
HEADLESS = {"weights", "multitalent", "stunet"}


@pytest.fixture
def small_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    use_small_descriptions(monkeypatch)


def started(source: Source) -> tuple[nn.Module, ModelDescription]:
    """A network of the source's own plans that starts from it."""
    origin = ModelDescription.of(source.checkpoint)
    assert origin is not None
    network = build_network(nnUNetTrainer, origin, deep_supervision=True).double()
    network.load_state_dict(adapt(source.checkpoint, network, origin, keep_heads=True).weights)
    return network, origin


def assert_equal(mine: torch.Tensor, theirs: torch.Tensor) -> None:
    assert torch.equal(mine, theirs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_the_sources_in_double_precision(layout: str, tmp_path: Path, small_descriptions: None) -> None:
    file, original = LAYOUTS[layout](tmp_path)
    source = read_source(file, stem=STEM.get(layout))
    assert source.reader == layout.split()[0]
    network, origin = started(source)
    original = original.double()
    if layout in STEM:
        weights = torch.load(file, weights_only=True)["network_weights"]
        original.encoder.stem = original.encoder.stem[STEM[layout]].double()
        assert torch.equal(
            source.checkpoint["network_weights"]["encoder.stem.convs.0.conv.weight"],
            weights["encoder.stem.351_5.convs.0.conv.weight"],
        )
    data = torch.randn(1, len(origin.input_channels()), 16, 16, 16, dtype=torch.float64)
    # STU-Net's is written anew, with other operations
    same = torch.testing.assert_close if layout.startswith("stunet") else assert_equal
    for mine, theirs in zip(network.encoder(data), original.encoder(data), strict=True):
        same(mine, theirs)
    if layout not in ENCODER_ALONE | HEADLESS:
        for mine, theirs in zip(network(data), original(data), strict=True):
            same(mine, theirs)
    check_consistent(source, file=file)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_source_tells_its_geometry(layout: str, tmp_path: Path, small_descriptions: None) -> None:
    file, _ = LAYOUTS[layout](tmp_path)
    _, origin = started(read_source(file, stem=STEM.get(layout)))
    configuration = origin.plans["configurations"][origin.configuration]
    if layout == "weights":
        assert "patch_size" not in configuration
        return
    assert list(configuration["patch_size"]) == [16, 16, 16]
    assert list(configuration["spacing"]) == ([1, 1, 1] if layout == "nnssl" else [1.5, 1.25, 1.25])
    scheme = "ZScoreNormalization" if layout == "nnssl" else "CTNormalization"
    assert configuration["normalization_schemes"] == [scheme]


def test_a_reader_by_name_takes_what_it_would_not_recognise(tmp_path: Path) -> None:
    file, _ = nnunet(tmp_path)
    assert read_source(file).reader == "nnunet"
    source = read_source(file, reader="totalsegmentator")
    assert source.reader == "totalsegmentator"
    assert "Apache-2.0" in source.licence
    with pytest.raises(UserError, match=f"no reader 'x'.*{READERS[0].name}"):
        read_source(file, reader="x")


# ---------------------------------------------------------------------- nnssl


def body(source: Source) -> set[str]:
    return {key.partition(".")[0] for key in source.checkpoint["network_weights"]}


@pytest.mark.parametrize("parts", [None, "encoder", "all"])
def test_decoder_that_restores_images_is_never_taken(tmp_path: Path, parts: Any) -> None:
    file, _ = nnssl(tmp_path)
    source = read_source(file, parts=parts)
    assert body(source) == {"encoder"}
    assert "restores images and is never taken" in source.remarks[0]
    target = model(labels={"background": 0, "lesion": 1})
    with pytest.raises(UserError):  # a plain network: the encoder itself does not fit
        adapt(source.checkpoint, public_weights.network_of(target), target, keep_heads=True)
    target = model(family="resenc", labels={"background": 0, "lesion": 1})
    result = adapt(source.checkpoint, public_weights.network_of(target), target, keep_heads=True)
    by_part = {tensor.key.partition(".")[0]: set() for tensor in result.tensors}
    for tensor in result.tensors:
        by_part[tensor.key.partition(".")[0]].add(tensor.outcome)
    assert by_part == {"encoder": {"copied"}, "decoder": {"random"}}
    assert "the source's decoder restores images" in result.table()


def test_decoder_of_volume_fusion_is_taken_on_request_without_its_heads(tmp_path: Path) -> None:
    file, network = nnssl(tmp_path, trainer="VolumeFusionTrainer_BS8")
    assert body(read_source(file)) == {"encoder"}
    source = read_source(file, parts="all")
    weights = source.checkpoint["network_weights"]
    assert torch.equal(weights["decoder.transpconvs.0.weight"], network.decoder.transpconvs[0].weight)
    assert not any(".seg_layers." in key for key in weights)
    assert (source.kind, read_source(nnssl(tmp_path)[0]).kind) == ("segmentation", "restoration")


def test_encoder_alone_where_all_was_asked_for_is_said(tmp_path: Path) -> None:
    file, _ = nnssl(tmp_path, decoder=False)
    assert body(read_source(file)) == {"encoder"}
    with pytest.raises(UserError, match="no decoder.*, and --parts all"):
        read_source(file, parts="all")


def test_plain_unet_of_nnssl_has_its_convolutions_under_the_name_of_blocks(tmp_path: Path) -> None:
    file, original = nnssl(tmp_path, family="plain")
    network, _ = started(read_source(file))
    data = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    for mine, theirs in zip(network.encoder(data), original.double().encoder(data), strict=True):
        assert torch.equal(mine, theirs)


def test_nnssl_without_spacing_or_of_a_preset(tmp_path: Path) -> None:
    file, _ = nnssl(tmp_path, spacing=None)
    _, origin = started(read_source(file))
    assert "spacing" not in origin.plans["configurations"]["onemmiso"]
    content = torch.load(file, weights_only=True)
    content["nnssl_adaptation_plan"]["architecture_plans"] = {"arch_class_name": "ResEncL", "arch_kwargs": None}
    torch.save(content, file)
    source = read_source(file)
    preset = ModelDescription.of(source.checkpoint)
    assert preset is not None
    assert preset.architecture()["arch_kwargs"]["n_blocks_per_stage"] == [1, 3, 4, 6, 6, 6]
    with pytest.raises(UserError, match=r"(?s)contradict its weights.*n_stages: the plans say 6, the weights 3"):
        check_consistent(source, file=file)


def test_transformer_of_nnssl_is_refused(tmp_path: Path) -> None:
    file, _ = nnssl(tmp_path)
    content = torch.load(file, weights_only=True)
    content["nnssl_adaptation_plan"]["architecture_plans"] = {"arch_class_name": "PrimusM", "arch_kwargs": None}
    torch.save(content, file)
    with pytest.raises(UserError, match="architecture 'PrimusM'.*can be used here"):
        read_source(file)


def test_adaptation_plan_of_wrong_types_is_named_by_key(tmp_path: Path) -> None:
    file, _ = nnssl(tmp_path)
    content = torch.load(file, weights_only=True)
    content["nnssl_adaptation_plan"]["pretrain_num_input_channels"] = 0
    torch.save(content, file)
    with pytest.raises(UserError, match=r"(?s)adaptation plan in .*pretrain_num_input_channels: must be at least 1"):
        read_source(file)
    content["nnssl_adaptation_plan"] |= {"pretrain_num_input_channels": 1, "key_to_stem": "encoder.other"}
    torch.save(content, file)
    with pytest.raises(UserError, match=r"contradicts its adaptation plan.*'encoder\.other'"):
        read_source(file)


def test_citations_of_the_file_come_first(tmp_path: Path) -> None:
    assert read_source(nnssl(tmp_path)[0]).citation == "@article{openmind}"


# ---------------------------------------------------------------------- MultiTalent


def test_stem_has_to_be_chosen_from_a_list(tmp_path: Path) -> None:
    file, _ = multitalent(tmp_path, stems={"035": 2, "351_5": 1})
    with pytest.raises(UserError, match=r"has 2 stems.*--stem NAME: 035 \(2 channels\), 351_5 \(1 channel\)"):
        read_source(file)
    with pytest.raises(UserError, match="no stem '36'. It has: 035"):
        read_source(file, stem="36")
    source = read_source(file, stem="035")
    assert source.remarks[1] == "Stem 035 is taken, 1 other not."
    _, origin = started(source)
    assert len(origin.input_channels()) == 2


def test_heads_of_several_datasets_are_not_taken(tmp_path: Path) -> None:
    file, _ = multitalent(tmp_path)
    assert "decoder.seg_layers.351_5.0.weight" in torch.load(file, weights_only=True)["network_weights"]
    source = read_source(file)
    assert not any(".seg_layers." in key for key in source.checkpoint["network_weights"])
    assert "their labels have no names" in source.remarks[0]
    network, origin = started(source)
    result = adapt(source.checkpoint, network, origin, keep_heads=True)
    assert {tensor.outcome for tensor in result.tensors if ".seg_layers." in tensor.key} == {"random"}
    assert {tensor.outcome for tensor in result.tensors if ".seg_layers." not in tensor.key} == {"copied"}


def test_single_stem_needs_no_choice(tmp_path: Path) -> None:
    file, original = multitalent(tmp_path)
    source = read_source(file)
    assert source.reader == "multitalent"
    assert "2303.14444" in source.citation
    network, _ = started(source)
    data = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    for mine, theirs in zip(network.encoder(data), original.double().encoder(data), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(network.decoder.transpconvs[1].weight, original.decoder.transpconvs[1].weight)
    with pytest.raises(UserError, match="has one stem; leave --stem"):
        read_source(file, stem="035")


# ---------------------------------------------------------------------- STU-Net


def test_stunet_of_nnunet_v2_takes_strides_and_labels_from_its_plans(tmp_path: Path) -> None:
    flat = ((1, 2, 2), (2, 2, 2))
    file, original = stunet(tmp_path, plans=True, strides=flat)
    source = read_source(file)
    network, origin = started(source)
    assert origin.architecture()["arch_kwargs"]["strides"] == [[1, 1, 1], [1, 2, 2], [2, 2, 2]]
    assert "shell" in origin.dataset_json["labels"]
    data = torch.randn(1, 1, 8, 16, 16, dtype=torch.float64)
    for mine, theirs in zip(network(data), original.double()(data), strict=True):
        torch.testing.assert_close(mine, theirs)
    # with fewer strides than stages its trainer does not halve further
    content = torch.load(file, weights_only=True)
    kwargs = content["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["strides"] = kwargs["strides"][:2]
    torch.save(content, file)
    _, origin = started(read_source(file))
    assert origin.architecture()["arch_kwargs"]["strides"] == [[1, 1, 1], [1, 2, 2], [1, 1, 1]]


def test_stunet_without_plans_has_the_decoder_and_no_heads(tmp_path: Path) -> None:
    file, original = stunet(tmp_path)
    source = read_source(file)
    assert "2 is assumed in each stage" in source.remarks[0]
    assert "patch_size" not in source.checkpoint["init_args"]["plans"]["configurations"]["3d_fullres"]
    network, origin = started(source)
    result = adapt(source.checkpoint, network, origin, keep_heads=True)
    assert {one.outcome for one in result.tensors if ".seg_layers." in one.key and one.outcome != "unused"} == {
        "random"
    }
    assert {one.outcome for one in result.tensors if ".seg_layers." not in one.key} == {"copied"}
    key = "upsample_layers.0.conv.weight"
    assert torch.equal(result.weights["decoder.upsampling.0.weight"], original.weights[key])


def test_both_convolutions_of_stunet_that_read_the_image_are_fitted_to_the_channels(tmp_path: Path) -> None:
    file, original = stunet(tmp_path)
    source = read_source(file)
    architecture = source.checkpoint["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]
    target = model(channels=("T1", "T2"))
    plans = {**target.plans, "configurations": {"3d_fullres": {**GEOMETRY, "architecture": architecture}}}
    target = ModelDescription(plans, "3d_fullres", target.dataset_json)
    network = build_network(nnUNetTrainer, target, deep_supervision=True).double()
    network.load_state_dict(adapt(source.checkpoint, network, target, keep_heads=True).weights)
    data = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    for mine, theirs in zip(network.encoder(data.expand(-1, 2, -1, -1, -1)), original.double().encoder(data)):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights: weights.pop("conv_blocks_context.1.0.conv3.weight"),
            "stages.1.0.conv3.weight: STU-Net has .*none",
        ),
        (lambda weights: weights.update({"extra.weight": torch.zeros(1)}), "extra.weight: STU-Net has no such tensor"),
        (lambda weights: weights.pop("conv_blocks_context.0.0.conv2.bias"), "conv2.bias"),
    ],
)
def test_weights_that_are_not_stunets_are_named(tmp_path: Path, change: Any, message: str) -> None:
    file, _ = stunet(tmp_path)
    content = torch.load(file, weights_only=True)
    change(content["state_dict"])
    torch.save(content, file)
    with pytest.raises(UserError, match=rf"(?s)is not of STU-Net's network.*{message}"):
        read_source(file)


def test_network_that_is_not_stunet_is_not_read_as_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not of STU-Net: it has no tensor"):
        read_source(nnunet(tmp_path)[0], reader="stunet")


# ---------------------------------------------------------------------- weights without plans


@pytest.mark.parametrize("wrapper", ["state_dict", "network_weights", "net", "student", ""])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone.", "_orig_mod."])
def test_wrappers_and_prefixes_are_seen_through(tmp_path: Path, wrapper: str, prefix: str) -> None:
    file, network = wrapped(tmp_path, wrapper=wrapper, prefix=prefix)
    weights = read_source(file).checkpoint["network_weights"]
    assert set(weights) == set(network.state_dict())


@pytest.mark.parametrize("write", [wrapped, nnunet], ids=["weights", "nnunet"])
def test_encoder_without_plans_serves_alone(tmp_path: Path, write: Any) -> None:
    file, _ = write(tmp_path)
    content = torch.load(file, weights_only=True)
    (key,) = (one for one in content if isinstance(content[one], dict) and one in ("state_dict", "network_weights"))
    content[key] = {name: one for name, one in content[key].items() if "decoder." not in name}
    torch.save(content, file)
    assert body(read_source(file)) == body(read_source(file, parts="encoder")) == {"encoder"}
    with pytest.raises(UserError, match="no decoder.*, and --parts all"):
        read_source(file, parts="all")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_a_file_is_refused(layout: str, tmp_path: Path) -> None:
    file, _ = LAYOUTS[layout](tmp_path)
    if file.is_dir():
        (file,) = file.glob("*/fold_0/*.pth")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="damaged or cut off"):
        read_source(file)


@pytest.mark.parametrize("family", ["plain", "resenc"])
@pytest.mark.parametrize("dims", [2, 3])
def test_architecture_is_told_from_the_shapes(tmp_path: Path, family: str, dims: int) -> None:
    flat = [1] * (dims - 1)
    options: dict[str, Any] = {
        "features_per_stage": [4, 6, 12],
        "kernel_sizes": [[*flat, 3], [3] * dims, [3] * dims],
        "strides": [[1] * dims, [1, *[2] * (dims - 1)], [2] * dims],
        "n_conv_per_stage_decoder": [2, 1],
    }
    file, _ = wrapped(tmp_path, family=family, dims=dims, **options)
    origin = ModelDescription.of(read_source(file).checkpoint)
    assert origin is not None
    assert origin.architecture() == model(family=family, dims=dims, **options).architecture()


def test_network_that_is_no_unet_of_nnunet_is_named(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    for name, kind in {
        "swinViT.patch_embed.proj.weight": "a SwinUNETR of MONAI",
        "conv_blocks_context.0.blocks.0.conv.weight": "nnU-Net v1",
        "eva.blocks.0.attn.weight": "a transformer",
        "features.conv0.weight": "another network",
    }.items():
        torch.save({"state_dict": {name: torch.zeros(1)}}, file)
        with pytest.raises(UserError, match=f"is of .*{kind}.*{name}"):
            read_source(file)


def test_file_without_tensors_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"epoch": 3}, file)
    with pytest.raises(UserError, match="no checkpoint of nnU-Net v2: it has no network_weights. It has: epoch"):
        read_source(file)


def test_torchscript_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    torch.jit.script(nn.ReLU()).save(str(file))
    with pytest.raises(UserError, match="TorchScript"):
        read_source(file)


class Trap:
    """Pickles as a call."""

    def __reduce__(self) -> Any:
        return (print, ("run",))


def test_code_in_a_file_is_not_run_and_the_way_to_convert_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = nnssl(tmp_path)
    torch.save({**torch.load(file, weights_only=True), "init_args": {"plan": Trap()}}, file)
    with pytest.raises(UserError, match=r"If you trust its origin.*nnssl_adaptation_plan.*leave 'init_args' out"):
        read_source(file)
    assert capsys.readouterr().out == ""


# ---------------------------------------------------------------------- folders and old plans


def test_folder_of_totalsegmentator_is_found_from_each_level(tmp_path: Path) -> None:
    outer, _ = totalsegmentator(tmp_path)
    (inner,) = outer.iterdir()
    for place in (outer, inner, inner / "fold_0" / "checkpoint_final.pth"):
        source = read_source(place)
        assert source.reader == "totalsegmentator"
        assert source.checkpoint["trainer_name"] == "nnUNetTrainer_4000epochs_NoMirroring"


def test_folder_serves_where_the_checkpoint_has_no_plans(tmp_path: Path) -> None:
    outer, _ = totalsegmentator(tmp_path)
    (file,) = outer.glob("*/fold_0/*.pth")
    content = torch.load(file, weights_only=True)
    del content["init_args"]
    torch.save(content, file)
    _, origin = started(read_source(outer))
    assert origin.configuration == "3d_fullres"
    assert "liver" in origin.dataset_json["labels"]


def test_folder_with_several_models_names_them(tmp_path: Path) -> None:
    outer, _ = totalsegmentator(tmp_path)
    (inner,) = outer.iterdir()
    other = outer / "nnUNetTrainer__nnUNetPlans__2d"
    other.mkdir()
    for name in ("plans.json", "dataset.json"):
        (other / name).write_bytes((inner / name).read_bytes())
    with pytest.raises(UserError, match="several models: .*nnUNetTrainer__nnUNetPlans__2d"):
        read_source(outer)


def test_plans_of_another_network_contradict_the_weights(tmp_path: Path) -> None:
    file, _ = nnunet(tmp_path)
    content = torch.load(file, weights_only=True)
    kwargs = content["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    kwargs["features_per_stage"] = [8, 16, 24]
    torch.save(content, file)
    with pytest.raises(UserError, match=r"features_per_stage: the plans say \[8, 16, 24\], the weights \[4, 8, 12\]"):
        check_consistent(read_source(file), file=file)


@pytest.mark.parametrize("old", [True, False])
def test_class_is_named_by_the_module_that_it_is_in(tmp_path: Path, old: bool) -> None:
    file, _ = nnunet(tmp_path, family="resenc", old=old)
    content = torch.load(file, weights_only=True)
    if not old:
        architecture = content["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]
        architecture["network_class_name"] = architecture["network_class_name"].replace(".unet.", ".residual_unet.")
        torch.save(content, file)
    origin = ModelDescription.of(read_source(file).checkpoint)
    assert origin is not None
    name = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    assert origin.architecture()["network_class_name"] == name


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("strides", [[1, 1, 1], [2, 2], [2, 2, 2]], "strides must have 3 numbers for each stage"),
        ("kernel_sizes", [[3, 3, 3]], "kernel_sizes has 1 entries for 3 stages"),
        ("features_per_stage", "many", "features_per_stage"),
        ("n_stages", None, "n_stages"),
    ],
)
def test_arguments_of_a_network_are_typed(tmp_path: Path, key: str, value: Any, message: str) -> None:
    file, _ = nnunet(tmp_path)
    content = torch.load(file, weights_only=True)
    content["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"][key] = value
    torch.save(content, file)
    with pytest.raises(UserError, match=message):
        check_consistent(read_source(file), file=file)


def test_old_plans_without_a_key_are_named(tmp_path: Path) -> None:
    file, _ = nnunet(tmp_path, old=True)
    content = torch.load(file, weights_only=True)
    del content["init_args"]["plans"]["configurations"]["3d_fullres"]["conv_kernel_sizes"]
    torch.save(content, file)
    with pytest.raises(UserError, match="neither an architecture.*'conv_kernel_sizes'"):
        read_source(file)


def test_network_class_outside_the_allowed_packages_is_never_imported(tmp_path: Path) -> None:
    file, _ = nnunet(tmp_path)
    content = torch.load(file, weights_only=True)
    content["init_args"]["plans"]["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.system"
    torch.save(content, file)
    with pytest.raises(UserError, match=r"network_class_name 'os\.system'"):
        started(read_source(file))


@pytest.mark.full
def test_vocomni_of_its_real_size_is_recognised(tmp_path: Path) -> None:
    made = model(
        labels={"background": 0, **{f"organ {number}": number for number in range(1, 21)}},
        **voco.ARCHITECTURE["arch_kwargs"],
    )
    network = public_weights.network_of(made)
    file = tmp_path / "VoComni_nnunet.pt"
    torch.save({"state_dict": {f"module.{key}": one for key, one in network.state_dict().items()}}, file)
    source = read_source(file)
    assert source.reader == "vocomni"
    start, _ = started(source)
    data = torch.randn(1, 1, 32, 32, 32, dtype=torch.float64)
    assert torch.equal(start(data)[0], network.double()(data)[0])


def test_the_command_line_knows_every_reader():
    parser = argparse.ArgumentParser()
    add_source_options(parser)
    (option,) = [action for action in parser._actions if action.dest == "reader"]
    assert list(option.choices) == [reader.name for reader in READERS]
