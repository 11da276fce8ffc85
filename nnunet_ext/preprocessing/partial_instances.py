"""From dense labels to labels in which only some instances are annotated: which instances there are, which are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np

from nnunet_ext.preprocessing.raw_dataset import Labels

Order = Literal["random", "largest", "smallest"]
Scope = Literal["case", "dataset"]


@dataclass(frozen=True)
class Instance:
    """One annotated object.

    Attributes:
        case: its case.
        number: its value in the case's map of instances.
        label: its value in the case's label map.
        voxels: its size.
    """

    case: str
    number: int
    label: int
    voxels: int


def components(labels: Labels, foreground: Collection[int]) -> Labels:
    """The connected components of each label as a map of instances.

    Voxels that touch at a face, an edge or a corner are connected; components of different labels are different
    instances even where they touch.

    Args:
        labels: the label map.
        foreground: values whose components are instances; others (background, ignore) have none.

    Returns:
        Numbers from 1, 0 where there is no instance.
    """
    kept = np.where(np.isin(labels, list(foreground)), labels, 0)
    # 26 neighbours in three dimensions, 8 in two
    return cc3d.connected_components(kept.astype(np.uint32), connectivity=26 if kept.ndim == 3 else 8)


def instances_of(case: str, instances: Labels, labels: Labels) -> list[Instance]:
    """The instances of a map, by their numbers.

    Args:
        case: name.
        instances: the map, of any integer type; numbers need not be consecutive.
        labels: the label map.

    Raises:
        ValueError: if an instance has voxels of several labels, or of background.
    """
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


def kept_instances(
    instances: Sequence[Instance],
    share: float,
    rng: np.random.Generator,
    *,
    scope: Scope = "case",
    order: Order = "random",
) -> set[Instance]:
    """Which instances stay annotated; in every case at least one.

    Args:
        instances: of all cases.
        share: how many to keep, above 0 and at most 1; rounded to the nearest number.
        rng: draws, also among instances of one size.
        scope: the share holds in every ``case``, or over the whole ``dataset``.
        order: ``random`` keeps any, ``largest`` the large ones first, ``smallest`` the small ones.
    """
    shuffled = [instances[index] for index in rng.permutation(len(instances))]
    if order != "random":
        shuffled.sort(key=lambda instance: instance.voxels, reverse=order == "largest")
    by_case: dict[str, list[Instance]] = {}
    for instance in shuffled:
        by_case.setdefault(instance.case, []).append(instance)
    if scope == "case":
        return {one for members in by_case.values() for one in members[: max(1, round(share * len(members)))]}
    kept = {members[0] for members in by_case.values()}
    others = [instance for instance in shuffled if instance not in kept]
    return kept.union(others[: max(0, round(share * len(instances)) - len(kept))])


def partial_labels(labels: Labels, instances: Labels, kept: Collection[int]) -> Labels:
    """The label map with the other instances turned into background; voxels of no instance stay as they are.

    Args:
        labels: the label map.
        instances: the map of instances.
        kept: numbers of those that stay.
    """
    dropped = (instances > 0) & ~np.isin(instances, list(kept))
    return np.where(dropped, 0, labels).astype(labels.dtype)


def counts_by_case(instances: Sequence[Instance], kept: Collection[Instance]) -> Mapping[str, dict[str, int]]:
    """Instances and voxels of each case, before and after."""
    counts: dict[str, dict[str, int]] = {}
    for instance in instances:
        row = counts.setdefault(instance.case, {"instances": 0, "kept_instances": 0, "voxels": 0, "kept_voxels": 0})
        row["instances"] += 1
        row["voxels"] += instance.voxels
        if instance in kept:
            row["kept_instances"] += 1
            row["kept_voxels"] += instance.voxels
    return counts
