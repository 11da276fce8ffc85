"""Tiny nnU-Net datasets, one for each kind that the contract suite needs, and tiny configurations for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

PREPARED = "NNUNET_EXT_TEST_WORKSPACE"
"""The variable that may name a workspace that was prepared before; it is copied and stays as it is."""

SHAPE = (20, 24, 24)
CASES = 5
IGNORE = 3

ANNOTATED = {"case_1": ["shell"], "case_2": ["core"], "case_3": []}
"""Of the kind `partial`: which labels a case was annotated for, if not for both."""

PRIOR = {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}

KINDS: dict[str, dict[str, Any]] = {
    "labels": {"id": 901, "channels": 1, "labels": {"background": 0, "shell": 1, "core": 2}},
    "ignore": {"id": 902, "channels": 1, "labels": {"background": 0, "shell": 1, "core": 2, "ignore": IGNORE}},
    "regions": {
        "id": 903,
        "channels": 3,
        "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": IGNORE},
        "regions_class_order": [1, 2],
    },
    "prior": {"id": 904, "channels": 4, "labels": {"background": 0, "shell": 1, "core": 2}, "prior": PRIOR},
    "prior_ignore": {
        "id": 905,
        "channels": 4,
        "labels": {"background": 0, "shell": 1, "core": 2, "ignore": IGNORE},
        "prior": PRIOR,
    },
    "partial": {
        "id": 906,
        "channels": 1,
        "labels": {"background": 0, "shell": 1, "core": 2},
        "nnunet_ext": {"annotated_labels": ANNOTATED, "default": ["shell", "core"]},
    },
}


def dataset_name(kind: str) -> str:
    return f"Dataset{KINDS[kind]['id']}_{kind.title().replace('_', '')}"


def write_raw_dataset(raw_folder: Path, kind: str) -> None:
    """Write a few cases: a ball with a core in noise; with an ignore label, a slab of unlabelled voxels.

    Of the kind `partial` labels are missing where `ANNOTATED` says so.
    """
    description = KINDS[kind]
    folder = raw_folder / dataset_name(kind)
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(description["id"])
    for number in range(CASES + 1):
        is_test = number == CASES
        label = _ball_with_core(rng)
        for channel in range(description["channels"]):
            if channel in description.get("prior", {}).get("prior_labels", ()):
                image = (label == channel - 1).astype(np.float32)
            else:
                image = (label * (1.0 + channel) + rng.normal(0, 0.3, label.shape)).astype(np.float32)
            _write(image, folder / ("imagesTs" if is_test else "imagesTr") / f"case_{number}_{channel:04d}.nii.gz")
        if not is_test:
            if "ignore" in description["labels"]:
                label[:5] = IGNORE
            if kind == "partial":
                known = ANNOTATED.get(f"case_{number}", description["labels"])
                label[~np.isin(label, [description["labels"][name] for name in known])] = 0
            _write(label, folder / "labelsTr" / f"case_{number}.nii.gz")
    content = {
        "channel_names": {str(channel): "MRI" for channel in range(description["channels"])},
        "labels": description["labels"],
        "numTraining": CASES,
        "file_ending": ".nii.gz",
    }
    if "prior" in description:
        content["channel_names"] = {"0": "MRI", "1": "prior MRI", "2": "noNorm", "3": "noNorm"}
        content["nnunet_ext"] = {"longitudinal": description["prior"]}
    content |= {key: description[key] for key in ("regions_class_order", "nnunet_ext") if key in description}
    (folder / "dataset.json").write_text(json.dumps(content))


def _ball_with_core(rng: np.random.Generator) -> np.ndarray:
    center = np.array(SHAPE) / 2 + rng.uniform(-2, 2, 3)
    distance = np.linalg.norm(np.moveaxis(np.indices(SHAPE), 0, -1) - center, axis=-1)
    return ((distance < 8).astype(np.uint8) + (distance < 4)).astype(np.uint8)


def _write(array: np.ndarray, file: Path) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(array), str(file))


def tiny_configuration(base: str, architecture: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A configuration with a patch of 16 voxels a side and a network of 4 base features.

    Its four heads have the weights 4/7, 2/7, 1/7 and 0, so that a loss that forgets lower resolutions is found. The
    last stage halves one axis alone: an instance normalisation needs more than one voxel.
    """
    dims = 2 if base == "2d" else 3
    strides = [[1] * dims, *[[2] * dims] * 3, [*[1] * (dims - 1), 2]]
    kwargs = dict(architecture["arch_kwargs"])
    blocks = "n_conv_per_stage" if "n_conv_per_stage" in kwargs else "n_blocks_per_stage"
    kwargs.update(
        n_stages=len(strides),
        strides=strides,
        kernel_sizes=[[3] * dims] * len(strides),
        features_per_stage=[4, 8, 12, 12, 12],
        n_conv_per_stage_decoder=[1] * (len(strides) - 1),
        **{blocks: [1] * len(strides)},
    )
    settings = {
        "num_epochs": 1,
        "num_iterations_per_epoch": 2,
        "num_val_iterations_per_epoch": 1,
        "save_every": 1,
        "seed": 7,
        # a fine-tuning from other weights has tests of its own
        "fine_tuning": {"allow_random_start": True},
        **changes.pop("settings", {}),
    }
    return {
        "inherits_from": base,
        "patch_size": [16] * dims,
        "batch_size": 2,
        "architecture": {**architecture, "arch_kwargs": kwargs},
        "nnunet_ext": settings,
        **changes,
    }


def add_tiny_configurations(plans_file: Path) -> None:
    """Add the configurations that the suite trains to a plans file."""
    plans = json.loads(plans_file.read_text())
    configurations = plans["configurations"]
    flat, full = configurations["2d"], configurations["3d_fullres"]
    flat_arguments = ("2d", flat["architecture"])
    full_arguments = ("3d_fullres", full["architecture"])
    configurations.update(
        {
            "2d_tiny": tiny_configuration(*flat_arguments),
            "3d_tiny": tiny_configuration(*full_arguments),
            "3d_tiny_without_settings": {**tiny_configuration(*full_arguments), "nnunet_ext": {}},
            "3d_tiny_batch_of_one": tiny_configuration(*full_arguments, batch_size=1),
            "3d_tiny_batch_of_four": tiny_configuration(*full_arguments, batch_size=4),
            "3d_tiny_three_epochs": tiny_configuration(*full_arguments, settings={"num_epochs": 3}),
            "3d_lowres_tiny": tiny_configuration(
                *full_arguments,
                spacing=[1.25 * length for length in full["spacing"]],
                data_identifier=f"{plans['plans_name']}_3d_lowres_tiny",
                next_stage="3d_cascade_tiny",
            ),
            "3d_cascade_tiny": {"inherits_from": "3d_tiny", "previous_stage": "3d_lowres_tiny"},
        }
    )
    plans_file.write_text(json.dumps(plans))
