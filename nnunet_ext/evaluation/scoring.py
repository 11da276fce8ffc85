"""Compare predictions with references: Dice as nnU-Net counts it, agreement of surfaces, detection of lesions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
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
from nnunet_ext.evaluation.lesions import OVERLAP, DetectionCounts, count_lesions
from nnunet_ext.evaluation.model_evaluation import LabelKey, ScoredLabels
from nnunet_ext.evaluation.operating_points import (
    OperatingPoints,
    count_operating_points,
    pooled,
    read_thresholds,
    thresholds_file,
)
from nnunet_ext.evaluation.overlap import Overlap, aggregated_dice, count_overlap
from nnunet_ext.evaluation.parallel import in_order
from nnunet_ext.evaluation.scores import Scores, nanmean
from nnunet_ext.evaluation.surface import SurfaceDistances, surface_dice, surface_distances
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, read_label_map
from nnunet_ext.preprocessing.simulate.partial_annotation import read_instances


@dataclass(frozen=True)
class Metrics:
    """What to score by, beside Dice.

    Attributes:
        surface: distances between surfaces.
        lesions: detection by instance.
        overlap: share of an instance's voxels that makes it found or right.
        tolerances: of normalized surface Dice in mm, by label name; empty if it is not asked for.
        thresholds: of the probability, ascending, to count operating points at; empty if they are not asked for.
    """

    surface: bool = False
    lesions: bool = False
    overlap: float = OVERLAP
    tolerances: Mapping[str, float] = field(default_factory=dict)
    thresholds: tuple[float, ...] = ()


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
        nsd: normalized surface Dice by label name and case; empty if not asked for.
        intervals: of the figures, if there are any.
        points: operating points by label name and case; empty if not asked for.
    """

    cases: CaseSet
    labels: ScoredLabels
    overlaps: Mapping[str, Mapping[str, Overlap]]
    metrics: Metrics = field(default_factory=Metrics)
    surface: Mapping[str, Mapping[str, SurfaceDistances]] = field(default_factory=dict)
    lesions: Mapping[str, Mapping[str, DetectionCounts]] = field(default_factory=dict)
    nsd: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    intervals: Intervals | None = None
    points: Mapping[str, Mapping[str, OperatingPoints]] = field(default_factory=dict)

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

    def mean_nsd(self, label: str) -> float:
        """Mean over the cases that have the label in reference or prediction."""
        return nanmean(self.nsd[label].values())

    def pooled_lesions(self, label: str) -> DetectionCounts:
        """Counts over all cases."""
        return reduce(add, self.lesions[label].values(), DetectionCounts())

    def pooled_points(self, label: str) -> OperatingPoints:
        """Operating points over all cases."""
        return pooled(list(self.points[label].values()))


@dataclass(frozen=True)
class _CaseFiles:
    """Of one case, the reference and the prediction, and where they are needed the reference's instances and the
    thresholds that are reached."""

    reference: Path
    prediction: Path
    instances: Path | None
    thresholds: Path | None


@dataclass(frozen=True)
class _LabelScores:
    """Of one label in one case; None for what was not asked for."""

    overlap: Overlap
    surface: SurfaceDistances | None
    lesions: DetectionCounts | None
    nsd: float | None
    points: OperatingPoints | None


def score(
    cases: CaseSet, labels: ScoredLabels, folder: Path, metrics: Metrics | None = None, *, workers: int = 1
) -> Result:
    """Compare predictions with the references.

    Args:
        cases: what was predicted.
        labels: what to score.
        folder: with the predictions.
        metrics: what to score by; without, by Dice alone.
        workers: processes, each with one case at a time, if it takes long; see `in_order`. The scores are the same.

    Raises:
        UserError: if a file cannot be read or does not go with the others of its case.
    """
    metrics = metrics or Metrics()
    ending = cases.description["file_ending"]
    overlaps: dict[str, dict[str, Overlap]] = {label: {} for label in labels.keys}
    surface: dict[str, dict[str, SurfaceDistances]] = {label: {} for label in labels.keys if metrics.surface}
    lesions: dict[str, dict[str, DetectionCounts]] = {label: {} for label in labels.keys if metrics.lesions}
    nsd: dict[str, dict[str, float]] = {label: {} for label in labels.keys if metrics.tolerances}
    points: dict[str, dict[str, OperatingPoints]] = {label: {} for label in labels.keys if metrics.thresholds}
    example = str(next(iter(cases.cases.values())).label)
    reader = determine_reader_writer_from_dataset_json(dict(cases.description), example, verbose=False)()
    files = [
        _CaseFiles(
            case.label,
            folder / f"{name}{ending}",
            cases.instance_map(name) if metrics.lesions else None,
            thresholds_file(folder, name) if metrics.thresholds else None,
        )
        for name, case in cases.cases.items()
    ]
    score_case = partial(_score_case, reader=reader, labels=labels, metrics=metrics)
    with (
        closing(in_order(score_case, files, workers=workers)) as scored,
        tqdm(total=len(files), desc=f"Scoring {cases.title}", unit="case", disable=None, leave=False) as progress,
    ):
        for name, scores in zip(cases.cases, scored):
            for label, one in scores.items():
                overlaps[label][name] = one.overlap
                if one.surface is not None:
                    surface[label][name] = one.surface
                if one.lesions is not None:
                    lesions[label][name] = one.lesions
                if one.nsd is not None:
                    nsd[label][name] = one.nsd
                if one.points is not None:
                    points[label][name] = one.points
            progress.update()
    return Result(cases, labels, overlaps, metrics, surface, lesions, nsd, points=points)


def _score_case(files: _CaseFiles, *, reader: Any, labels: ScoredLabels, metrics: Metrics) -> dict[str, _LabelScores]:
    """The scores of one case by label name; arguments as of `score`."""
    reference, _ = read_label_map(reader, files.reference)
    # the prediction has the geometry of the image; that of a reference may have been lost when it was made
    prediction, properties = read_label_map(reader, files.prediction)
    _check_shape(reference, files.reference, prediction, files.prediction)
    instances = _read_instances(reader, files, reference, ignore=labels.ignore)
    ignored = None if labels.ignore is None else reference == labels.ignore
    reached = None if files.thresholds is None else read_thresholds(files.thresholds)
    spacing = properties["spacing"]
    found = {}
    for label, key in labels.keys.items():
        ours, theirs = region_or_label_to_mask(reference, key), region_or_label_to_mask(prediction, key)
        known = theirs if ignored is None else theirs & ~ignored
        distances = surface_distances(ours, known, spacing) if metrics.surface else None
        nsd = surface_dice(ours, known, spacing, tolerance=metrics.tolerances[label]) if metrics.tolerances else None
        of_label = None if instances is None else _covering(instances, reference, key, files.reference)
        counts = None
        if metrics.lesions:
            counts = count_lesions(ours, theirs, instances=of_label, ignored=ignored, overlap=metrics.overlap)
        overlap = count_overlap(ours, theirs, ignored=ignored, spacing=spacing)
        points = None
        if reached is not None:
            points = count_operating_points(
                ours,
                reached,
                label,
                thresholds=metrics.thresholds,
                ignored=ignored,
                overlap=metrics.overlap if metrics.lesions else None,
                instances=of_label,
            )
        found[label] = _LabelScores(overlap, distances, counts, nsd, points)
    return found


def _read_instances(reader: Any, files: _CaseFiles, reference: Labels, *, ignore: int | None) -> Labels | None:
    """A case's map of instances, if it has one.

    Raises:
        UserError: if it does not go with the reference.
    """
    if files.instances is None:
        return None
    instances = read_instances(reader, files.instances, reference, ignore=ignore)
    outside = instances[(reference == 0) & (instances > 0)]
    if outside.size:
        raise UserError(
            f"Instance {outside[0]} of {files.instances} has voxels that are background in {files.reference}: the map "
            "does not belong to these labels. Name the folder of the labels that it was made from with --labels."
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
