"""Datasets in which labels are missing in some cases, simulated from datasets whose labels are complete."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_ext.errors import UserError
from nnunet_ext.formats.annotated_labels import LISTS
from nnunet_ext.messages import some
from nnunet_ext.preprocessing.raw.new_dataset import WEAK
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset
from nnunet_ext.preprocessing.simulate.weaker_dataset import weaker_dataset

RECORD = "labels.json"

Sources = Sequence[Sequence[str]]
"""The labels of each pretended source."""


@dataclass(frozen=True)
class MissingLabels:
    """What stays annotated: lists by case, voxels by label before and after, and whether images are 2D."""

    lists: Mapping[str, Sequence[str]]
    voxels: Mapping[str, tuple[int, int]]
    flat: bool


def sources_of(labels: Sequence[str], *, keep: int, rng: np.random.Generator) -> Sources:
    """Pretended sources with `keep` labels each, by which every label is kept equally often.

    The labels are put in a circle at random; each source has neighbours, beginning one further than the one before.
    """
    if keep > len(labels):
        raise UserError(f"{keep} labels cannot be kept of {len(labels)}: {', '.join(labels)}. Take fewer.")
    circle = [labels[place] for place in rng.permutation(len(labels))]
    return [[circle[(first + step) % len(circle)] for step in range(keep)] for first in range(len(circle))]


def lists_by_case(
    groups: Mapping[str, Sequence[str]], sources: Sources, rng: np.random.Generator
) -> dict[str, Sequence[str]]:
    """Deal patients (cases by patient) out to sources at random, as evenly as can be; the labels of each case."""
    patients = [sorted(groups)[place] for place in rng.permutation(len(groups))]
    return {case: sources[at % len(sources)] for at, patient in enumerate(patients) for case in groups[patient]}


def simulate_missing_labels(
    source: RawDataset,
    name: str,
    *,
    groups: Mapping[str, Sequence[str]],
    keep: int | None,
    sources: Sources,
    seed: int,
    force: bool,
) -> MissingLabels:
    """Write a raw dataset of the same images in which each case keeps some labels and the others are background.

    dataset.json lists what each case was annotated for. Beside the labels there are the complete ones, the folds of the
    source, and a JSON file of what was removed.

    Args:
        source: the dataset with complete labels.
        name: of the new dataset; for this and `force` see `weaker_dataset`.
        groups: the cases of each patient, which keep the same labels.
        keep: how many labels a case keeps; None for those of the `sources`.
        sources: labels by pretended source; empty if `keep` is given.
        seed: of the draws.
    """
    values = source.foreground_values()
    if unknown := sorted({label for one in sources for label in one} - set(values)):
        missing, known = some([*map(repr, unknown)]), ", ".join(values)
        raise UserError(f"{source.folder.name} has no label {missing}. Give some of these: {known}.")
    rng = np.random.default_rng(seed)
    chosen = sources if keep is None else sources_of(list(values), keep=keep, rng=rng)
    lists = {
        case: [label for label in values if label in kept] for case, kept in lists_by_case(groups, chosen, rng).items()
    }
    counts = {label: np.zeros(2, dtype=np.int64) for label in values}
    record: dict[str, Any] = {}
    with weaker_dataset(source, name, force=force) as new:
        for case, labels, properties in new.dense_labels("Removing labels"):
            voxels = {label: int((labels == value).sum()) for label, value in values.items()}
            removed = {label: number for label, number in voxels.items() if label not in lists[case]}
            for label, number in voxels.items():
                counts[label] += number, 0 if label in removed else number
            record[case] = {"annotated": lists[case], "removed_voxels": removed}
            gone = [values[label] for label in removed]
            new.write(WEAK, case, np.where(np.isin(labels, gone), 0, labels).astype(labels.dtype), properties)
        new.finish(
            {"made_by": "simulate labels", "keep": keep, "sources": sources, "seed": seed, LISTS: lists},
            record=RECORD,
            cases=record,
            labels=source.description["labels"],
        )
    return MissingLabels(lists, {label: (int(one[0]), int(one[1])) for label, one in counts.items()}, new.flat)
