"""Compare predictions with references: Dice as nnU-Net counts it, distances between surfaces, detection of lesions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import region_or_label_to_mask
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.bootstrap import Interval
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.lesions import OVERLAP, LesionCounts, count_lesions
from nnunet_ext.evaluation.model_evaluation import LabelKey, ScoredLabels
from nnunet_ext.evaluation.overlap import Overlap, aggregated_dice, count_overlap
from nnunet_ext.evaluation.report import Scores, nanmean
from nnunet_ext.evaluation.surface import SurfaceDistances, surface_distances
from nnunet_ext.preprocessing.partial_annotation import read_instances
from nnunet_ext.preprocessing.raw_dataset import Labels, read_label_map


@dataclass(frozen=True)
class Metrics:
    """What to score by, beside Dice.

    Attributes:
        surface: distances between surfaces.
        lesions: detection by instance.
        overlap: share of an instance's voxels that makes it found or right.
    """

    surface: bool = False
    lesions: bool = False
    overlap: float = OVERLAP


@dataclass(frozen=True)
class Intervals:
    """How far the figures of a set of cases depend on its patients.

    Attributes:
        resamples: of the bootstrap.
        patients: that of each case.
        labels: by label name and figure; None where fewer than two patients count.
        means: by figure, of the means over the labels.
    """

    resamples: int
    patients: Mapping[str, str]
    labels: Mapping[str, Mapping[str, Interval | None]]
    means: Mapping[str, Interval | None]

    @property
    def number_of_patients(self) -> int:
        return len(set(self.patients.values()))


@dataclass(frozen=True)
class Result:
    """The scores on one set of cases.

    Attributes:
        cases: what was scored.
        labels: which labels.
        overlaps: by label name and case.
        metrics: what else was asked for.
        surface: by label name and case; empty if not asked for.
        lesions: by label name and case; empty if not asked for.
        intervals: of the figures, if there are any.
    """

    cases: CaseSet
    labels: ScoredLabels
    overlaps: Mapping[str, Mapping[str, Overlap]]
    metrics: Metrics = field(default_factory=Metrics)
    surface: Mapping[str, Mapping[str, SurfaceDistances]] = field(default_factory=dict)
    lesions: Mapping[str, Mapping[str, LesionCounts]] = field(default_factory=dict)
    intervals: Intervals | None = None

    @cached_property
    def dice(self) -> Mapping[str, Scores]:
        """Dice of the cases by label name."""
        return {
            label: Scores({case: overlap.dice for case, overlap in found.items()})
            for label, found in self.overlaps.items()
        }

    @property
    def foreground_mean(self) -> float:
        """Mean of the labels' means, as in nnU-Net's summary.json."""
        return nanmean(scores.mean for scores in self.dice.values())

    def aggregated_dice(self, label: str) -> float:
        """Aggregated Dice over all cases."""
        return aggregated_dice(self.overlaps[label].values())

    @property
    def foreground_aggregated_dice(self) -> float:
        """Mean of the labels' aggregated Dice, without those that no case has."""
        return nanmean(map(self.aggregated_dice, self.overlaps))

    def mean_distances(self, label: str) -> SurfaceDistances:
        """Means over the cases that have distances."""
        found = self.surface[label].values()
        return SurfaceDistances(nanmean(one.assd for one in found), nanmean(one.hd95 for one in found))

    def cases_with_distance(self, label: str) -> int:
        return sum(not math.isnan(one.assd) for one in self.surface[label].values())

    def pooled_lesions(self, label: str) -> LesionCounts:
        """Counts over all cases."""
        return reduce(add, self.lesions[label].values(), LesionCounts())


def score(cases: CaseSet, labels: ScoredLabels, folder: Path, metrics: Metrics | None = None) -> Result:
    """Compare predictions with the references.

    Args:
        cases: what was predicted.
        labels: what to score.
        folder: with the predictions.
        metrics: what to score by; without, by Dice alone.

    Raises:
        UserError: if a file cannot be read or does not go with the others of its case.
    """
    metrics = metrics or Metrics()
    ending = cases.description["file_ending"]
    overlaps: dict[str, dict[str, Overlap]] = {label: {} for label in labels.keys}
    surface: dict[str, dict[str, SurfaceDistances]] = {label: {} for label in labels.keys if metrics.surface}
    lesions: dict[str, dict[str, LesionCounts]] = {label: {} for label in labels.keys if metrics.lesions}
    example = str(next(iter(cases.cases.values())).label)
    reader = determine_reader_writer_from_dataset_json(dict(cases.description), example, verbose=False)()
    for name, case in tqdm(cases.cases.items(), desc=f"Scoring {cases.name}", unit="case", disable=None, leave=False):
        reference, _ = read_label_map(reader, case.label)
        file = folder / f"{name}{ending}"
        # the prediction has the geometry of the image; that of a reference may have been lost when it was made
        prediction, properties = read_label_map(reader, file)
        _check_shape(reference, case.label, prediction, file)
        instances = _read_instances(reader, cases, name, reference, ignore=labels.ignore) if metrics.lesions else None
        ignored = None if labels.ignore is None else reference == labels.ignore
        for label, key in labels.keys.items():
            ours, theirs = region_or_label_to_mask(reference, key), region_or_label_to_mask(prediction, key)
            overlaps[label][name] = count_overlap(ours, theirs, ignored=ignored, spacing=properties["spacing"])
            if metrics.surface:
                known = theirs if ignored is None else theirs & ~ignored
                surface[label][name] = surface_distances(ours, known, properties["spacing"])
            if metrics.lesions:
                known_instances = None if instances is None else _covering(instances, reference, key, case.label)
                lesions[label][name] = count_lesions(
                    ours, theirs, instances=known_instances, ignored=ignored, overlap=metrics.overlap
                )
    return Result(cases, labels, overlaps, metrics, surface, lesions)


def _read_instances(reader: Any, cases: CaseSet, name: str, reference: Labels, *, ignore: int | None) -> Labels | None:
    """A case's map of instances, if the set has such maps.

    Raises:
        UserError: if it does not go with the reference.
    """
    file = cases.instance_map(name)
    if file is None:
        return None
    label = cases.cases[name].label
    instances = read_instances(reader, file, reference, ignore=ignore)
    outside = instances[(reference == 0) & (instances > 0)]
    if outside.size:
        raise UserError(
            f"Instance {outside[0]} of {file} has voxels that are background in {label}: the map does not belong to "
            "these labels. Name the folder of the labels that it was made from with --labels."
        )
    return instances


def _covering(instances: Labels, reference: Labels, key: LabelKey, labels: Path) -> Labels | None:
    """The map of instances for a label that it covers; None if it leaves a value of the label out, as that of an organ.

    Raises:
        UserError: if it covers a value in part, or part of the label would go uncounted.
    """
    covered = True
    for value in key if isinstance(key, tuple) else (key,):
        numbered = instances[reference == value] > 0
        if numbered.any() and not numbered.all():
            raise UserError(
                f"{np.count_nonzero(~numbered)} of {numbered.size} voxels with the value {value} in {labels} belong to "
                "no instance of the case's map. Give maps of all instances, or leave out --instances: then connected "
                "components are the instances."
            )
        covered &= bool(numbered.all())
    return instances if covered else None


def _check_shape(one: Labels, file: Path, other: Labels, other_file: Path) -> None:
    if one.shape != other.shape:
        raise UserError(
            f"{file} has {_shape(one)} voxels, but {other_file} has {_shape(other)}. They must be of the same image."
        )


def _shape(labels: Labels) -> str:
    return " x ".join(map(str, labels.shape))
