"""The instances of a label map."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cc3d
import numpy as np

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, read_label_map

COMPONENTS = "components"
"""What tells instances apart where there is no folder of maps of them."""

LARGEST_EXACT = 2**24  # nnU-Net's readers give 32-bit floats, which hold no larger whole number for certain


@dataclass(frozen=True)
class Instance:
    """One annotated object: its case, number in the map of instances, value in the label map, size in voxels."""

    case: str
    number: int
    label: int
    voxels: int


def components(labels: Labels, foreground: Collection[int]) -> Labels:
    """The connected components of each label in `foreground` as a map of instances, numbered from 1.

    Voxels that touch at a face, an edge or a corner are connected; components of different labels are different
    instances even where they touch.
    """
    kept = labels * np.isin(labels, list(foreground))
    # 26 neighbours in three dimensions, 8 in two
    return cc3d.connected_components(kept, connectivity=26 if kept.ndim == 3 else 8)


def instances_of(case: str, instances: Labels, labels: Labels) -> list[Instance]:
    """The instances of a map, whatever their numbers; a ValueError if one has several labels, or background."""
    inside = instances > 0
    base = int(labels.max(initial=0)) + 1
    pairs, sizes = np.unique(instances[inside].astype(np.int64) * base + labels[inside], return_counts=True)
    numbers, values = pairs // base, pairs % base
    found: dict[int, Instance] = {}
    for number, label, voxels in zip(numbers.tolist(), values.tolist(), sizes.tolist()):
        if label == 0 or number in found:
            on = ", ".join(map(str, values[numbers == number].tolist()))
            raise ValueError(f"instance {number} lies on the labels {on}, not on one alone")
        found[number] = Instance(case, number, label, voxels)
    return list(found.values())


def read_instances(reader: Any, file: Path, labels: Labels, *, ignore: int | None) -> Labels:
    """A case's instance map without what lies on the ignore label; a UserError if shape or numbers do not fit."""
    numbers, _ = read_label_map(reader, file)
    if numbers.shape != labels.shape:
        raise UserError(f"{file} has the shape {numbers.shape}, but the label map has {labels.shape}. They must fit.")
    if numbers.max(initial=0) >= LARGEST_EXACT:
        raise UserError(
            f"{file} has numbers up to {numbers.max()}. From {LARGEST_EXACT} on nnU-Net's readers do not tell them "
            "apart: number the instances from 1."
        )
    return numbers if ignore is None else np.where(labels == ignore, 0, numbers)
