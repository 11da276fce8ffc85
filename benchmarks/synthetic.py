"""Plans, a dataset description and a batch made in code, so that a trainer can be timed without data."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_ext.checkpoints.shapes import PLAIN, unet_architecture
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import size
from nnunet_ext.nnunet_names import PLANS
from nnunet_ext.plans.channel_roles import LONGITUDINAL
from nnunet_ext.trainers.dual_encoder import DualEncoderMixin
from nnunet_ext.trainers.pretraining import PretrainingMixin, RestorationMixin

DATASET = "Dataset999_Synthetic"
CONFIGURATION = "synthetic"
MIN_FEATURE_MAP = 4

STOCK_SETTINGS: Mapping[str, Any] = {"optimizer": "sgd", "momentum": 0.99, "memory_format": "contiguous"}
"""nnU-Net's own, put down so that a trainer with other defaults is timed under the same."""

DATASET_JSON: Mapping[str, Any] = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "anterior": 1, "posterior": 2},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}

PRIOR: Mapping[str, Any] = {
    "channel_names": {"0": "MRI", "1": "prior MRI", "2": "noNorm", "3": "noNorm"},
    KEY: {LONGITUDINAL: {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}},
}
"""What a trainer needs more that looks at a prior scan: its image and its two labels."""


@dataclass(frozen=True)
class NetworkPreset:
    """The size of a network and of its batches."""

    patch_size: tuple[int, ...]  # two or three sides in voxels
    batch_size: int  # patches in a batch
    base_features: int  # feature maps at full resolution; each stage doubles them
    max_features: int  # up to here

    def describe(self) -> str:
        """In words."""
        return f"patch {size(self.patch_size)}, batch {self.batch_size}, {self.base_features} base features"


PRESETS: Mapping[str, NetworkPreset] = {
    "small-3d": NetworkPreset((40, 56, 40), 2, 8, 128),
    "small-2d": NetworkPreset((128, 128), 8, 8, 128),
    "full-3d": NetworkPreset((128, 128, 128), 2, 32, 320),
    "full-2d": NetworkPreset((512, 512), 12, 32, 512),
}


def synthetic_plans(preset: NetworkPreset, settings: Mapping[str, Any], channels: Sequence[str]) -> dict[str, Any]:
    """A plans file's content with one configuration: nnU-Net's plain U-Net for this patch at 1 mm spacing."""
    dims = len(preset.patch_size)
    spacing = [1.0] * dims
    _, strides, kernel_sizes, _, _ = get_pool_and_conv_props(spacing, preset.patch_size, MIN_FEATURE_MAP, 999)
    stages = len(strides)
    architecture = unet_architecture(
        PLAIN,
        kernel_sizes=kernel_sizes,
        strides=strides,
        features=[min(preset.base_features * 2**stage, preset.max_features) for stage in range(stages)],
        blocks=[2] * stages,
        decoder_convs=[2] * (stages - 1),
    )
    configuration = {
        "data_identifier": f"{PLANS}_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": preset.batch_size,
        "patch_size": list(preset.patch_size),
        "median_image_size_in_voxels": list(preset.patch_size),
        "spacing": spacing,
        "normalization_schemes": [f"{'No' if name == 'noNorm' else 'ZScore'}Normalization" for name in channels],
        "use_mask_for_norm": [False] * len(channels),
        "batch_dice": dims == 2,
        "architecture": architecture,
        KEY: dict(settings),
    }
    return {
        "dataset_name": DATASET,
        "plans_name": PLANS,
        "image_reader_writer": "SimpleITKIO",
        "label_manager": "LabelManager",
        "transpose_forward": list(range(dims)),
        "transpose_backward": list(range(dims)),
        "foreground_intensity_properties_per_channel": {str(channel): {} for channel in range(len(channels))},
        "configurations": {CONFIGURATION: configuration},
    }


def build_trainer(
    trainer_class: type,
    preset: NetworkPreset,
    device: torch.device,
    root: Path,
    *,
    compiled: bool = False,
    settings: Mapping[str, Any] = STOCK_SETTINGS,
) -> Any:
    """An initialized trainer with the same initial weights each time, whose steps leave the weights where they are.

    A learning rate of 0 costs the optimizer the same arithmetic, and keeps every step's numbers ordinary however often
    the batch is repeated.
    """
    dataset_json = {**DATASET_JSON, **(PRIOR if issubclass(trainer_class, DualEncoderMixin) else {})}
    channels = list(dataset_json["channel_names"].values())
    plans = {**deepcopy(synthetic_plans(preset, settings, channels)), "continue_training": False}
    variables = {f"nnUNet_{part}": str(root / part) for part in ("preprocessed", "results")}
    variables["nnUNet_compile"] = "true" if compiled else "false"
    data = root / "preprocessed" / DATASET / f"{PLANS}_{CONFIGURATION}"
    data.mkdir(parents=True, exist_ok=True)
    (data / "case.b2nd").touch()  # initialize() tells the storage format by a file's ending
    with patch.dict(os.environ, variables), torch.random.fork_rng(), redirect_stdout(io.StringIO()):
        torch.manual_seed(0)
        trainer = trainer_class(plans, CONFIGURATION, 0, deepcopy(dataset_json), device)
        trainer.initialize()
    trainer.network.train()
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    return trainer


def random_batch(trainer: Any, *, seed: int = 0) -> dict[str, Any]:
    """A batch as nnU-Net's loader hands it to this trainer, of noise.

    The current scan and its labels are the same for every trainer of one preset.
    """
    manager = trainer.configuration_manager
    generator = torch.Generator().manual_seed(seed)
    shape = (manager.batch_size, 1, *manager.patch_size)
    data = torch.randn(shape, generator=generator)
    keys = [f"case_{number}" for number in range(len(data))]
    if isinstance(trainer, RestorationMixin):
        return {"data": data, "target": torch.cat([data, torch.ones_like(data)], dim=1), "keys": keys}
    if isinstance(trainer, PretrainingMixin):
        blends = torch.randint(2, shape, generator=generator, dtype=torch.int16)
        return {"data": data, "target": blends, "keys": keys}
    classes = trainer.label_manager.num_segmentation_heads
    labels = torch.randint(classes, shape, generator=generator, dtype=torch.int16)
    more = len(trainer.dataset_json["channel_names"]) - 1
    scales = DownsampleSegForDSTransform(trainer._get_deep_supervision_scales())
    per_sample = [scales(segmentation=label)["segmentation"] for label in labels]
    return {
        "data": torch.cat([data, *(torch.randn(shape, generator=generator) for _ in range(more))], dim=1),
        "target": [torch.stack(heads) for heads in zip(*per_sample)],
        "keys": keys,
    }
