"""The preset ``quick``: a configuration that two CPU cores train to a useful result in minutes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY

VOXELS_PER_PATCH = {2: 128 * 128, 3: 96_000}
VOXELS_PER_BATCH = 192_000
MIN_BATCH, MAX_BATCH = 2, 16
BASE_FEATURES, MAX_FEATURES = 8, 128
MAX_BLOCKS_PER_STAGE = 2
MIN_FEATURE_MAP = 4

SETTINGS: Mapping[str, Any] = {
    # AdamW gets going within the few hundred steps in which nnU-Net's SGD (momentum 0.99) does not
    "optimizer": "adamw",
    "initial_lr": 2e-3,
    "num_epochs": 20,
    "num_iterations_per_epoch": 50,
    "num_val_iterations_per_epoch": 10,
    "save_every": 5,
    "memory_format": "auto",
    # trainers that are compared start from the same weights and see the same batches
    "seed": 0,
}


def quick_patch_size(patch_size: Sequence[int], spacing: Sequence[float]) -> tuple[int, ...]:
    """A patch of the same proportions within the voxel budget that the network's strides divide; spacing in mm."""
    budget = VOXELS_PER_PATCH[len(patch_size)]
    scale = min(1.0, (budget / math.prod(patch_size)) ** (1 / len(patch_size)))
    while True:
        shrunk = [max(min(side, 2 * MIN_FEATURE_MAP), int(side * scale)) for side in patch_size]
        _, _, _, padded, _ = get_pool_and_conv_props(spacing, shrunk, MIN_FEATURE_MAP, 999)
        is_smallest = shrunk == [min(side, 2 * MIN_FEATURE_MAP) for side in patch_size]
        if scale == 1.0 or is_smallest or math.prod(padded) <= budget:
            return tuple(int(side) for side in padded)
        scale *= 0.95


def quick_configuration(plans: Mapping[str, Any], base: str, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The quick variant of a configuration, to be written under ``f"{base}_quick"``.

    Patch and batch size follow from the planned patch, which nnU-Net took from the dataset's fingerprint; the network
    keeps its family (plain or residual encoder) with 8 base features and at most two blocks in a stage. Spacing,
    normalisation and the preprocessed data are those of the base, `resolved` with everything that it inherits.

    Raises:
        UserError: for a cascade, whose stages name each other, and for a network of an unknown family.
    """
    if resolved.get("previous_stage") is not None:
        others = ", ".join(name for name in plans["configurations"] if "cascade" not in name)
        raise UserError(f"Configuration {base!r} is the second stage of a cascade. Use it on {others}.")
    architecture = resolved["architecture"]
    kwargs = dict(architecture.get("arch_kwargs") or {})
    blocks_key = next((key for key in ("n_conv_per_stage", "n_blocks_per_stage") if kwargs.get(key)), None)
    if blocks_key is None or not kwargs.get("n_conv_per_stage_decoder"):
        found = f"Configuration {base!r} has the network {architecture.get('network_class_name')}"
        raise UserError(f"{found}; the preset knows PlainConvUNet and ResidualEncoderUNet.")
    patch_size = quick_patch_size(resolved["patch_size"], resolved["spacing"])
    _, strides, kernel_sizes, _, _ = get_pool_and_conv_props(resolved["spacing"], patch_size, MIN_FEATURE_MAP, 999)
    stages = len(strides)
    kwargs.update(
        n_stages=stages,
        strides=[list(stride) for stride in strides],
        kernel_sizes=[list(size) for size in kernel_sizes],
        features_per_stage=[min(BASE_FEATURES * 2**stage, MAX_FEATURES) for stage in range(stages)],
        n_conv_per_stage_decoder=_capped(kwargs["n_conv_per_stage_decoder"], stages - 1),
    )
    kwargs[blocks_key] = _capped(kwargs[blocks_key], stages)
    batch_size = int(np.clip(VOXELS_PER_BATCH // math.prod(patch_size), MIN_BATCH, MAX_BATCH))
    return {
        "inherits_from": base,
        "patch_size": list(patch_size),
        "batch_size": min(batch_size, max(MIN_BATCH, resolved["batch_size"])),
        "architecture": {**architecture, "arch_kwargs": kwargs},
        "next_stage": None,
        KEY: dict(SETTINGS),
    }


def _capped(blocks: int | Sequence[int], stages: int) -> list[int]:
    """`stages` entries, none above the limit; the last one is repeated where there are too few."""
    blocks = [blocks] if isinstance(blocks, int) else blocks
    blocks = [*blocks, *[blocks[-1]] * stages][:stages]
    return [min(count, MAX_BLOCKS_PER_STAGE) for count in blocks]
