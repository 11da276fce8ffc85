"""Small models in the layout of each source of public weights, written from the layouts that the sources document.

Every function writes a file or a folder and returns it with the network whose weights are in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from torch.nn import functional as F

from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.sources import stunet as stunet_reader
from nnunet_ext.checkpoints.sources import voco
from support.models import description, network_of

Written = tuple[Path, nn.Module]

GEOMETRY = {
    "data_identifier": "nnUNetPlans_3d_fullres",
    "preprocessor_name": "DefaultPreprocessor",
    "batch_size": 2,
    "patch_size": [16, 16, 16],
    "median_image_size_in_voxels": [20.0, 24.0, 24.0],
    "spacing": [1.5, 1.25, 1.25],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "resampling_fn_data": "resample_data_or_seg_to_shape",
    "resampling_fn_seg": "resample_data_or_seg_to_shape",
    "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
    "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
    "batch_dice": False,
}
PLANS = {
    "original_median_spacing_after_transp": [1.5, 1.25, 1.25],
    "original_median_shape_after_transp": [20, 24, 24],
    "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "experiment_planner_used": "ExperimentPlanner",
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {
        "0": {
            "max": 300.0,
            "mean": 100.0,
            "median": 60.0,
            "min": -900.0,
            "percentile_00_5": -800.0,
            "percentile_99_5": 290.0,
            "std": 120.0,
        }
    },
}


def model(dataset: str = "Dataset004_Source", **options: Any) -> ModelDescription:
    """A model whose plans are complete, with the configuration ``3d_fullres``."""
    made = description(dataset=dataset, **{"channels": ("CT",), **options})
    architecture = made.architecture()
    plans = {**made.plans, **deepcopy(PLANS)}
    plans["configurations"] = {"3d_fullres": {**deepcopy(GEOMETRY), "architecture": dict(architecture)}}
    return replace(made, plans=plans, configuration="3d_fullres")


def trained(made: ModelDescription) -> nn.Module:
    """The model's network with weights that no initialisation gives."""
    network = network_of(made)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    return network


def old_plans(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Plans as nnU-Net 2.0 and 2.1 wrote them: the parts of the architecture in the configuration itself."""
    configurations = {}
    for name, one in plans["configurations"].items():
        kwargs = one["architecture"]["arch_kwargs"]
        blocks = "n_conv_per_stage" if "n_conv_per_stage" in kwargs else "n_blocks_per_stage"
        configurations[name] = {key: value for key, value in one.items() if key != "architecture"} | {
            "UNet_class_name": one["architecture"]["network_class_name"].rpartition(".")[2],
            "UNet_base_num_features": kwargs["features_per_stage"][0],
            "n_conv_per_stage_encoder": kwargs[blocks],
            "n_conv_per_stage_decoder": kwargs["n_conv_per_stage_decoder"],
            "num_pool_per_axis": [2, 2, 2],
            "pool_op_kernel_sizes": kwargs["strides"],
            "conv_kernel_sizes": kwargs["kernel_sizes"],
            "unet_max_num_features": kwargs["features_per_stage"][-1],
        }
    return {**plans, "configurations": configurations}


def nnunet_checkpoint(made: ModelDescription, network: nn.Module, trainer: str = "nnUNetTrainer") -> dict[str, Any]:
    """What nnU-Net's trainer saves."""
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": {},
        "grad_scaler_state": None,
        "logging": {},
        "_best_ema": 0.5,
        "current_epoch": 1000,
        "init_args": {
            "plans": dict(made.plans),
            "configuration": made.configuration,
            "fold": 0,
            "dataset_json": dict(made.dataset_json),
            "unpack_dataset": True,
            "device": torch.device("cpu"),
        },
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


def nnunet(folder: Path, *, old: bool = False, **options: Any) -> Written:
    """A checkpoint of nnU-Net v2; `old` for 2.0 to 2.1. The features of old plans double from stage to stage."""
    made = model(**{**({"features_per_stage": [4, 8, 12]} if old else {}), **options})
    network = trained(made)
    made = replace(made, plans=old_plans(made.plans)) if old else made
    file = folder / "checkpoint_final.pth"
    torch.save(nnunet_checkpoint(made, network), file)
    return file, network


def totalsegmentator(folder: Path) -> Written:
    """``Dataset297_…/nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres`` with plans of nnU-Net 2.1."""
    made = model("Dataset297_TotalSegmentator_total_3mm_1559subj", labels={"background": 0, "spleen": 1, "liver": 2})
    network = trained(made)
    made = replace(made, plans=old_plans(made.plans))
    trainer = "nnUNetTrainer_4000epochs_NoMirroring"
    inner = folder / "Dataset297_TotalSegmentator_total_3mm_1559subj" / f"{trainer}__nnUNetPlans__3d_fullres"
    (inner / "fold_0").mkdir(parents=True)
    (inner / "plans.json").write_text(json.dumps(made.plans))
    (inner / "dataset.json").write_text(json.dumps({**made.dataset_json, "file_ending": ".nii.gz"}))
    torch.save(nnunet_checkpoint(made, network, trainer), inner / "fold_0" / "checkpoint_final.pth")
    return inner.parent, network


class OfSeveralDatasets(nn.Module):
    """A residual-encoder U-Net under the names of MultiTalent's: heads for each dataset, and a stem, if asked."""

    def __init__(self, network: nn.Module, channels: Mapping[str, int], *, several_stems: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = network.encoder, network.decoder
        heads = self.decoder.seg_layers
        # each dataset has as many labels as its place in the list says
        self.decoder.seg_layers = nn.ModuleDict(
            {
                name: nn.ModuleList([nn.Conv3d(head.in_channels, 2 + number, 1) for head in heads])
                for number, name in enumerate(channels)
            }
        )
        if several_stems:
            self.encoder.stem = nn.ModuleDict({name: self._stem(number) for name, number in channels.items()})

    def _stem(self, channels: int) -> nn.Module:
        stem = deepcopy(self.encoder.stem)
        (block,) = stem.convs
        convolution = block.conv
        # in both places, as nnU-Net's block holds it
        convolution.weight = nn.Parameter(
            0.3 * torch.randn(convolution.out_channels, channels, *convolution.kernel_size)
        )
        convolution.in_channels = channels
        return stem


def multitalent(folder: Path, *, stems: Mapping[str, int] | None = None) -> Written:
    """A checkpoint of MultiTalent v2; with `stems`, names and numbers of channels, one of several stems.

    Its dataset.json has the numbers of the datasets alone.
    """
    name = "Dataset617_nativect" if stems is None else "Dataset619_nativemultistem"
    made = model(name, family="resenc")
    network = trained(made)
    datasets = {"003": 1, "351_5": 1} if stems is None else stems
    written = OfSeveralDatasets(deepcopy(network), datasets, several_stems=stems is not None)
    if stems is not None:
        network.encoder.stem = written.encoder.stem
    kind = "" if stems is None else "_multistems"
    content = nnunet_checkpoint(made, written, f"MultiTalent_trainer{kind}_4000ep")
    content["init_args"]["dataset_json"] = {"dataset_ids": [one.partition("_")[0] for one in datasets]}
    file = folder / "checkpoint_final.pth"
    torch.save(content, file)
    return file, network


def nnssl(
    folder: Path,
    *,
    trainer: str = "BaseMAETrainer",
    family: str = "resenc",
    spacing: Any = (1, 1, 1),
    decoder: bool = True,
    **architecture: Any,
) -> Written:
    """A checkpoint of nnssl with its adaptation plan; its decoder restores images of one channel."""
    made = model(family=family, labels={"background": 0}, **architecture)
    network = trained(made)
    kwargs = dict(made.architecture()["arch_kwargs"])
    if "n_conv_per_stage" in kwargs:
        kwargs["n_blocks_per_stage"] = kwargs.pop("n_conv_per_stage")
    stem = "encoder.stem" if family == "resenc" else "encoder.stages.0"
    first = f"{stem}.convs.0" if family == "resenc" else f"{stem}.0.convs.0"
    configuration = {
        "data_identifier": "nnsslPlans_onemmiso",
        "preprocessor_name": "DefaultPreprocessor",
        "spacing_style": "onemmiso",
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": False,
        "spacing": None if spacing is None else list(spacing),
        "patch_size": [16, 16, 16],
    }
    plan = {
        "architecture_plans": {
            "arch_class_name": CLASSES[family].__name__,
            "arch_kwargs": kwargs,
            "arch_kwargs_requiring_import": ["conv_op", "norm_op", "nonlin"],
        },
        "pretrain_plan": {
            "dataset_name": "Dataset745_OpenMind",
            "plans_name": "nnsslPlans",
            "configurations": {"onemmiso": configuration},
        },
        "pretrain_num_input_channels": 1,
        "recommended_downstream_patchsize": (16, 16, 16),
        "key_to_encoder": "encoder.stages",
        "key_to_stem": stem,
        "keys_to_in_proj": (f"{first}.conv", f"{first}.all_modules.0"),
        "key_to_lpe": None,
    }
    weights = network.state_dict()
    if not decoder:
        weights = {key: value for key, value in weights.items() if key.startswith("encoder.")}
    content = {
        "network_weights": weights,
        "init_args": {"plan": {"plans_name": "nnsslPlans"}, "configuration_name": "onemmiso"},
        "trainer_name": trainer,
        "nnssl_adaptation_plan": plan,
        "citations": ["@article{openmind}"],
    }
    file = folder / "checkpoint_final.pth"
    torch.save(content, file)
    return file, network


CLASSES = {"resenc": ResidualEncoderUNet, "plain": PlainConvUNet}


def wrapped(folder: Path, *, wrapper: str = "state_dict", prefix: str = "module.backbone.", **options: Any) -> Written:
    """Weights alone under a wrapper's key (none if it is empty), each name after a prefix; as VoComni is spread."""
    network = trained(model(**options))
    weights = {f"{prefix}{key}": value for key, value in network.state_dict().items()}
    file = folder / "weights.pt"
    torch.save({wrapper: weights, "epoch": 3} if wrapper else weights, file)
    return file, network


STUNET: dict[str, Any] = {"widths": (4, 6, 8), "blocks": (1, 2, 1), "strides": ((2, 2, 2), (2, 2, 2)), "outputs": 3}


class OriginalSTUNet(nn.Module):
    """What STU-Net computes, by torch's functions on weights under its own names."""

    def __init__(self, weights: Mapping[str, torch.Tensor], strides: Any) -> None:
        super().__init__()
        self.weights, self.strides = dict(weights), strides

    def double(self) -> OriginalSTUNet:
        self.weights = {key: value.double() for key, value in self.weights.items()}
        return self

    def convolved(self, data: torch.Tensor, name: str, stride: Any = 1) -> torch.Tensor:
        weight, bias = (self.weights[f"{name}.{part}"] for part in ("weight", "bias"))
        return F.conv3d(data, weight, bias, stride=stride, padding=[side // 2 for side in weight.shape[2:]])

    def normalized(self, data: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = data.mean((2, 3, 4), keepdim=True), data.var((2, 3, 4), keepdim=True, correction=0)
        scale, shift = (self.weights[f"{name}.{part}"][None, :, None, None, None] for part in ("weight", "bias"))
        return (data - mean) / (variance + 1e-5).sqrt() * scale + shift

    def stage(self, data: torch.Tensor, name: str, stride: Any) -> torch.Tensor:
        number = 0
        while f"{name}.{number}.conv1.weight" in self.weights:
            block, step = f"{name}.{number}", stride if number == 0 else 1
            first = F.leaky_relu(self.normalized(self.convolved(data, f"{block}.conv1", step), f"{block}.norm1"))
            second = self.normalized(self.convolved(first, f"{block}.conv2"), f"{block}.norm2")
            data = F.leaky_relu(second + (self.convolved(data, f"{block}.conv3", step) if number == 0 else data))
            number += 1
        return data

    def encoder(self, data: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for number, stride in enumerate((1, *self.strides)):
            data = self.stage(data, f"conv_blocks_context.{number}", stride)
            features.append(data)
        return features

    def forward(self, data: torch.Tensor) -> list[torch.Tensor]:
        *skips, data = self.encoder(data)
        outputs = []
        for level, (skip, stride) in enumerate(zip(reversed(skips), reversed(self.strides))):
            for axis, step in enumerate(stride):
                data = data.repeat_interleave(step, dim=2 + axis)
            data = torch.cat([self.convolved(data, f"upsample_layers.{level}.conv"), skip], dim=1)
            data = self.stage(data, f"conv_blocks_localization.{level}", 1)
            outputs.append(self.convolved(data, f"seg_outputs.{level}"))
        return outputs[::-1]


def stunet(folder: Path, *, plans: bool = False, channels: int = 1, **changes: Any) -> Written:
    """A checkpoint of STU-Net, as nnU-Net v1 writes it, or with `plans` by its trainer for nnU-Net v2."""
    made = {**STUNET, **changes}
    widths, blocks, strides = made["widths"], made["blocks"], made["strides"]
    weights: dict[str, torch.Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int, side: int = 3) -> None:
        weights[f"{name}.weight"] = 0.3 * torch.randn(outputs, inputs, *[side] * 3)
        weights[f"{name}.bias"] = 0.3 * torch.randn(outputs)

    def stage(name: str, inputs: int, width: int, number: int) -> None:
        for block in range(number):
            before = inputs if block == 0 else width
            for which, given in ((1, before), (2, width)):
                convolution(f"{name}.{block}.conv{which}", given, width)
                for part in ("weight", "bias"):
                    weights[f"{name}.{block}.norm{which}.{part}"] = 0.3 * torch.randn(width)
            if block == 0:
                convolution(f"{name}.{block}.conv3", before, width, 1)

    for level, (inputs, width, number) in enumerate(zip((channels, *widths), widths, blocks)):
        stage(f"conv_blocks_context.{level}", inputs, width, number)
    up = list(zip(reversed(widths), reversed(widths[:-1]), reversed(blocks[:-1])))
    for level, (below, width, number) in enumerate(up):
        convolution(f"upsample_layers.{level}.conv", below, width, 1)
        stage(f"conv_blocks_localization.{level}", 2 * width, width, number)
        convolution(f"seg_outputs.{level}", width, made["outputs"], 1)
    content: dict[str, Any] = {"epoch": 4000, "state_dict": weights, "optimizer_state_dict": {}, "plot_stuff": ([], [])}
    if plans:
        architecture = {"strides": [[1, 1, 1], *map(list, strides)], "n_conv_per_stage": [2] * len(widths)}
        planned = model("Dataset007_Pancreas", features_per_stage=list(widths), **architecture)
        content = nnunet_checkpoint(planned, nn.Identity(), "STUNetTrainer_small_ft") | {"network_weights": weights}
    file = folder / "small_ep4k.model"
    torch.save(content, file)
    return file, OriginalSTUNet(weights, strides)


LAYOUTS: dict[str, Callable[[Path], Written]] = {
    "nnunet": nnunet,
    "nnunet 2.1": lambda folder: nnunet(folder, old=True),
    "totalsegmentator": totalsegmentator,
    "multitalent": lambda folder: multitalent(folder, stems={"035": 2, "351_5": 1}),
    "nnssl": nnssl,
    "vocomni": wrapped,
    "weights": lambda folder: wrapped(folder, family="resenc"),
    "stunet": stunet,
    "stunet v2": lambda folder: stunet(folder, plans=True),
}
"""A file of each source."""
OPTIONS: dict[str, list[str]] = {"multitalent": ["--stem", "351_5"]}
"""What a command needs beside the file."""


def use_small_descriptions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the built-in descriptions of VoComni and STU-Net those of the small networks here."""
    known = ("patch_size", "spacing", "normalization_schemes", "use_mask_for_norm", "batch_size")
    monkeypatch.setattr(voco, "ARCHITECTURE", model().architecture())
    monkeypatch.setattr(voco, "OUTPUTS", 3)
    monkeypatch.setattr(voco, "CONFIGURATION", {key: GEOMETRY[key] for key in known})
    monkeypatch.setattr(stunet_reader, "PUBLISHED_OUTPUTS", STUNET["outputs"])
    monkeypatch.setattr(stunet_reader, "PUBLISHED", {key: GEOMETRY[key] for key in known})
