"""Labels in which only some instances are annotated, from labels in which all are: which instances are kept."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Literal

import numpy as np

from nnunet_ext.preprocessing.raw.instances import Instance
from nnunet_ext.preprocessing.raw.raw_dataset import Labels

Order = Literal["random", "largest", "smallest"]
Scope = Literal["case", "dataset"]


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
    by_case: dict[str, list[Instance]] = defaultdict(list)
    for instance in shuffled:
        by_case[instance.case].append(instance)
    if scope == "case":
        return {one for members in by_case.values() for one in members[: max(1, round(share * len(members)))]}
    kept = {members[0] for members in by_case.values()}
    others = [instance for instance in shuffled if instance not in kept]
    return kept.union(others[: max(0, round(share * len(instances)) - len(kept))])


def partial_labels(labels: Labels, instances: Labels, kept: Collection[int]) -> Labels:
    """The label map with instances that are not kept turned into background; all other voxels stay."""
    dropped = (instances > 0) & ~np.isin(instances, list(kept))
    return np.where(dropped, 0, labels).astype(labels.dtype)


def kept_by_case(
    cases: Collection[str], instances: Sequence[Instance], kept: Collection[Instance]
) -> dict[str, dict[str, Any]]:
    """For each case its instances and voxels before and after, and the numbers of the instances that stay."""
    rows: dict[str, dict[str, Any]] = {
        case: {"instances": 0, "kept_instances": 0, "voxels": 0, "kept_voxels": 0, "kept": []} for case in cases
    }
    for instance in sorted(instances, key=lambda instance: instance.number):
        row = rows[instance.case]
        row["instances"] += 1
        row["voxels"] += instance.voxels
        if instance in kept:
            row["kept_instances"] += 1
            row["kept_voxels"] += instance.voxels
            row["kept"].append(instance.number)
    return rows
