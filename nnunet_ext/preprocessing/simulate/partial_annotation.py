"""Datasets in which only some instances are annotated, simulated from datasets whose labels are dense."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.instances import COMPONENTS, Instance, components, instances_of, read_instances
from nnunet_ext.preprocessing.raw.new_dataset import DENSE, INSTANCES, WEAK
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, RawDataset, read_label_map
from nnunet_ext.preprocessing.simulate.weaker_dataset import LARGEST_NUMBER, weaker_dataset

Order = Literal["random", "largest", "smallest"]
Scope = Literal["case", "dataset"]

RECORD = "instances.json"


@dataclass(frozen=True)
class Selection:
    """How the instances that stay annotated are chosen; see `kept_instances`."""

    keep: float  # their share, from 0 to 1
    scope: Scope = "case"  # where the share holds
    order: Order = "random"  # which come first
    seed: int = 0  # of the draws, not negative


@dataclass(frozen=True)
class PartialAnnotation:
    """What became of the instances."""

    cases: int  # how many the dataset has
    instances: Sequence[Instance]  # all of them
    kept: Collection[Instance]  # those that stay annotated
    unassigned: int  # number of cases with foreground that belongs to no instance, which stays annotated
    flat: bool  # whether the images are two-dimensional

    @property
    def without_foreground(self) -> int:
        """How many cases have no instance."""
        return self.cases - len({instance.case for instance in self.instances})


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
        share: how many to keep, from 0 to 1; rounded to the nearest number.
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


def origin_of_instances(source: RawDataset, asked: str | None) -> str:
    """The folder of instance maps or ``components``, as asked for; by default ``instancesTr`` if the source has it."""
    if asked is None:
        return INSTANCES if (source.folder / INSTANCES).is_dir() else COMPONENTS
    if asked != COMPONENTS and not (source.folder / asked).is_dir():
        raise UserError(f"{source.folder} has no folder {asked!r} of instance maps.")
    return asked


def simulate_partial_annotation(
    source: RawDataset, name: str, selection: Selection, *, origin: str, force: bool
) -> PartialAnnotation:
    """Write a raw dataset of the same images in which only some instances are annotated.

    Beside its labels there are the dense ones, the instance maps, the folds of the source, and a JSON file of what was
    kept. `origin` is that of the instances, see `origin_of_instances`; for `name` and `force` see `weaker_dataset`.
    """
    foreground = set(source.foreground_values().values())
    instances: list[Instance] = []
    unassigned = 0
    with weaker_dataset(source, name, force=force) as new:
        for case, labels, properties in new.dense_labels("Reading labels"):
            if origin == COMPONENTS:
                numbers, file = components(labels, foreground), source.cases[case].label
            else:
                file = source.folder / origin / f"{case}{source.ending}"
                numbers = read_instances(new.reader, file, labels, ignore=source.ignore_label)
            numbers = storable(numbers, file=file)
            try:
                instances += instances_of(case, numbers, labels)
            except ValueError as error:
                raise UserError(
                    f"{file}: {error}. An instance map has a number of its own for each object, all of whose voxels "
                    "have one label."
                ) from None
            unassigned += bool((np.isin(labels, list(foreground)) & (numbers == 0)).any())
            new.write(INSTANCES, case, numbers, properties)
        if not instances:
            raise UserError(
                f"No case of {source.folder} has an instance, so that there is nothing to keep. Choose another dataset."
            )

        rng = np.random.default_rng(selection.seed)
        kept = kept_instances(instances, selection.keep, rng, scope=selection.scope, order=selection.order)
        for case in tqdm(source.cases, desc="Writing labels", unit="case", disable=None):
            labels, properties = read_label_map(new.reader, new.file(DENSE, case))
            numbers, _ = read_label_map(new.reader, new.file(INSTANCES, case))
            stays = [instance.number for instance in kept if instance.case == case]
            new.write(WEAK, case, partial_labels(labels, numbers, stays), properties)
        new.finish(
            {"made_by": "simulate instances", "instances": origin, **asdict(selection)},
            record=RECORD,
            cases=kept_by_case(source.cases, instances, kept),
            labels=source.description["labels"],
        )
    return PartialAnnotation(len(source.cases), instances, kept, unassigned, new.flat)


def storable(numbers: Labels, *, file: Path) -> Labels:
    """An instance map numbered anew, in order, if a number is too large for a file; a UserError if too many are."""
    if numbers.max(initial=0) <= LARGEST_NUMBER:
        return numbers
    present, places = np.unique(numbers, return_inverse=True)
    first = 0 if present[0] == 0 else 1
    if len(present) - 1 + first > LARGEST_NUMBER:
        raise UserError(f"{file} has {len(present) - 1 + first} instances; {LARGEST_NUMBER} is the most for one case.")
    return places.reshape(numbers.shape) + first
