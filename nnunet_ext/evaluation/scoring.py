"""Compare predictions with references: a row of the scores table for each case, label and metric."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.bootstrap import Estimate, Resampling, SeedScores, Table
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.largest_component import largest_component, pieces
from nnunet_ext.evaluation.metrics import LESIONS_RECALL, NSD, Metric, metrics_of
from nnunet_ext.evaluation.metrics.label_in_case import OVERLAP, CaseMaps, LabelInCase
from nnunet_ext.evaluation.operating_points import (
    Point,
    ReachedThresholds,
    count_operating_points,
    operating_points,
    read_thresholds,
    thresholds_file,
)
from nnunet_ext.evaluation.parallel import in_order
from nnunet_ext.evaluation.scored_labels import ScoredLabels
from nnunet_ext.evaluation.scores_table import case_scores, nanmean, seed_scores
from nnunet_ext.formats.dataset_json import declared_values
from nnunet_ext.formats.evaluation import OnePiece
from nnunet_ext.formats.tiff_spacing import lacks_spacing
from nnunet_ext.messages import size, some
from nnunet_ext.preprocessing.raw.instances import read_instances
from nnunet_ext.preprocessing.raw.places import alike, misplaced, told_apart
from nnunet_ext.preprocessing.raw.raw_dataset import Labels, read_label_map, reader_for, unknown_values

Row = tuple[str, str, str, float, float]
"""Case, label, metric, numerator and denominator."""


@dataclass(frozen=True)
class Options:
    """What to score by."""

    groups: tuple[str, ...] = ()  # of metrics, beside Dice
    overlap: float = OVERLAP  # share of an instance's voxels that makes it found or right
    tolerances: Mapping[str, float] = field(default_factory=dict)  # for normalized surface Dice in mm, by label name
    thresholds: tuple[float, ...] = ()  # of the probability, ascending; empty without operating points
    threshold: float | None = None  # a label is every voxel whose probability reaches it; None for nnU-Net's decision
    largest_component: OnePiece | None = None  # what keeps that alone in predictions; not with thresholds

    def __post_init__(self) -> None:
        if self.largest_component is not None and self.compared:
            raise ValueError("thresholds are of probabilities, and components of nnU-Net's decision")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return metrics_of(self.groups)

    @property
    def figures(self) -> tuple[Metric, ...]:
        """The metrics that have a figure over cases."""
        return tuple(metric for metric in self.metrics if metric.has_figure)

    @property
    def compared(self) -> tuple[float, ...]:
        """Everything that probabilities are compared with, ascending."""
        return self.thresholds if self.threshold is None else tuple(sorted({*self.thresholds, self.threshold}))

    @property
    def lesions(self) -> bool:
        return LESIONS_RECALL.group in self.groups


@dataclass(frozen=True)
class Result:
    """The scores on one set of cases."""

    cases: CaseSet
    labels: ScoredLabels
    options: Options
    scores: pd.DataFrame  # a row for each case, label and metric, where the case was annotated for the label
    annotated: Mapping[str, int]  # number of cases that were annotated for each label, also for one that none was
    points: Mapping[str, pd.DataFrame] = field(default_factory=dict)  # `operating_points` of all cases, by label name
    misplaced: Mapping[str, str] = field(default_factory=dict)  # by case, in what the place of its two maps differs
    unlisted: Mapping[str, str] = field(default_factory=dict)  # by case, a file and its values that are no label's
    patients: Mapping[str, str] | None = None  # that of each case; None takes every case for a patient of its own
    resamples: int = 0  # for the intervals; 0 for no intervals

    @cached_property
    def resampling(self) -> Resampling:
        """Resamples of the patients, for all figures."""
        patients = {case: case for case in self.cases.cases} if self.patients is None else self.patients
        return Resampling({case: patients[case] for case in self.cases.cases}, resamples=self.resamples)

    @cached_property
    def parts(self) -> Mapping[str, Table]:
        """What each case adds to a figure, (cases, labels, metrics, 2), by the figure's metric."""
        cases, labels = list(self.cases.cases), list(self.labels.keys)
        return {metric.name: seed_scores(self.scores, metric, cases, labels).parts for metric in self.options.metrics}

    @cached_property
    def estimates(self) -> Mapping[str, Mapping[str, Estimate]]:
        """The figures by label and metric."""
        return {
            label: {metric.name: self._estimate(metric, [place]) for metric in self.options.figures}
            for place, label in enumerate(self.labels.keys)
        }

    @cached_property
    def means(self) -> Mapping[str, Estimate]:
        """The means over the labels by metric, without labels that have no figure."""
        every_label = list(range(len(self.labels.keys)))
        means = {}
        for name, metric in ((one.name, one) for one in self.options.figures if one.mean):
            value = nanmean(of_label[name].value for of_label in self.estimates.values())
            means[name] = Estimate(value, self._estimate(metric, every_label).interval)
        return means

    def values(self, metric: Metric) -> Mapping[str, Mapping[str, float]]:
        """The value of each case and label; NaN where there is none."""
        table = metric.aggregate(self.parts[metric.name]).tolist()
        return {case: dict(zip(self.labels.keys, row)) for case, row in zip(self.cases.cases, table)}

    def count(self, metric: Metric, label: str) -> int:
        """How many cases have a value."""
        place = list(self.labels.keys).index(label)
        return int(np.count_nonzero(self.parts[metric.name][:, place, :, 1]))

    def _estimate(self, metric: Metric, places: list[int]) -> Estimate:
        """The figure of the labels at some places, with its interval."""
        scores = SeedScores(tuple(self.cases.cases), self.parts[metric.name][:, places])
        return self.resampling.estimate([scores], metric.statistic)


@dataclass(frozen=True)
class _Files:
    """The files of one case; instances and thresholds only where they are needed."""

    case: str
    reference: Path
    prediction: Path
    instances: Path | None
    thresholds: Path | None
    labels: tuple[str, ...]  # that the case was annotated for


def score(
    cases: CaseSet,
    labels: ScoredLabels,
    folder: Path,
    options: Options | None = None,
    *,
    patients: Mapping[str, str] | None = None,
    resamples: int = 0,
    workers: int = 1,
) -> Result:
    """Compare the predictions in a folder with the references; without options, by Dice alone.

    A case is scored for the labels that it was annotated for, see `CaseSet.annotated`.

    Args:
        patients: that of each case; None takes every case for a patient of its own.
        resamples: for the intervals; 0 for no intervals.
        workers: processes, each with one case at a time, if it takes long; see `in_order`. The scores are the same.

    Raises:
        UserError: if a file cannot be read or does not go with the others of its case, or no case is annotated.
    """
    options = options or Options()
    annotated = cases.annotated(labels.keys)
    labels = replace(labels, keys={label: key for label, key in labels.keys.items() if annotated[label]})
    if not labels.keys:
        raise UserError(f"No case of {cases.title} was annotated for {', '.join(annotated)}, by its dataset.json.")
    ending = cases.description["file_ending"]
    reader = reader_for(cases.description, next(iter(cases.cases.values())).label)
    files = [
        _Files(
            name,
            case.label,
            folder / f"{name}{ending}",
            cases.instance_map(name) if options.lesions else None,
            thresholds_file(folder, name) if options.compared else None,
            tuple(label for label in labels.keys if name in annotated[label]),
        )
        for name, case in cases.cases.items()
    ]
    listed = declared_values(cases.description)
    score_case = partial(_score_case, reader=reader, labels=labels, listed=listed, options=options)
    progress = partial(tqdm, total=len(files), desc=f"Scoring {cases.title}", unit="case", disable=None, leave=False)
    with closing(in_order(score_case, files, workers=workers)) as scored:
        rows, points, places, others = zip(*progress(scored))
    pooled = {
        label: operating_points(point for of_case in points for point in of_case.get(label, ()))
        for label in labels.keys
        if options.thresholds
    }
    counts, scores = {label: len(of_label) for label, of_label in annotated.items()}, chain.from_iterable(rows)
    misplaced = {one.case: difference for one, difference in zip(files, places) if difference}
    for of_kind in zip(*others):  # references, predictions
        _check_have_labels(of_kind)
    unlisted = {one.case: str(maps[0] if maps[0].unlisted else maps[1]) for one, maps in zip(files, others)}
    unlisted = {case: found for case, found in unlisted.items() if found}
    return Result(cases, labels, options, case_scores(scores), counts, pooled, misplaced, unlisted, patients, resamples)


def _score_case(
    files: _Files, *, reader: Any, labels: ScoredLabels, listed: Collection[int], options: Options
) -> tuple[list[Row], dict[str, list[Point]], str, tuple["_Values", "_Values"]]:
    """The scores of one case, its operating points by label, a difference of place, and what its two maps hold.

    Arguments are as of `score`; `listed` are the values that dataset.json has for the references.
    """
    rows: list[Row] = []
    points = {}
    reached = None if files.thresholds is None else read_thresholds(files.thresholds)
    reference, prediction = _read_maps(files, reader)
    of_model = {*chain.from_iterable((*labels.of_model, *labels.keys.values()))}
    of_model |= set() if labels.ignore is None else {labels.ignore}
    values = (
        _Values.of(files.reference, reference.labels, listed),
        _Values.of(files.prediction, prediction.labels, of_model),
    )
    for name, label in _labels_in_case(files, reference, prediction, reader, labels, options, reached):
        measured = ((metric.name, metric.compute) for metric in options.metrics if metric.compute is not None)
        rows += [(files.case, name, metric, *compute(label)) for metric, compute in measured]
        if reached is not None and options.thresholds:
            points[name] = count_operating_points(
                label, reached.steps[name], reached.thresholds, thresholds=options.thresholds, lesions=options.lesions
            )
    return rows, points, _difference_of_place(prediction.properties, reference.properties), values


class _Map(NamedTuple):
    """A label map of a case, and what its file says of its place."""

    labels: Labels
    properties: Mapping[str, Any]


def _read_maps(files: _Files, reader: Any) -> tuple[_Map, _Map]:
    """Reference and prediction of a case."""
    reference, prediction = (_Map(*read_label_map(reader, file)) for file in (files.reference, files.prediction))
    if reference.labels.shape != prediction.labels.shape:
        theirs, ours = (size(one.labels.shape) for one in (reference, prediction))
        raise UserError(
            f"{files.reference} has {theirs} voxels, but {files.prediction} has {ours}. They must be of the same image."
        )
    if lacks_spacing(files.prediction):
        prediction = prediction._replace(properties=reference.properties)
    return reference, prediction


class _Values(NamedTuple):
    """What a label map holds."""

    file: Path
    unlisted: tuple[int, ...]  # that are no label's by dataset.json, and count as background
    listed: tuple[int, ...]  # that are
    has_labels: bool

    @classmethod
    def of(cls, file: Path, labels: Labels, listed: Collection[int]) -> "_Values":
        unlisted = unknown_values(labels, {0, *listed})
        foreground = sorted({*listed} - {0})
        has_labels = bool(np.isin(labels, foreground).any() if unlisted else labels.any())
        return cls(file, tuple(unlisted), (0, *foreground), has_labels)

    def __str__(self) -> str:
        return f"{self.file} has {some(self.unlisted)}" if self.unlisted else ""


def _check_have_labels(maps: Sequence[_Values]) -> None:
    """Raise a UserError if maps hold values, but none of a label, as masks of 0 and 255: scores would mean nothing."""
    if any(one.has_labels for one in maps) or not (first := next((one for one in maps if one.unlisted), None)):
        return
    raise UserError(
        f"{first}, and no file beside it has a label: by dataset.json these are {', '.join(map(str, first.listed))}. "
        "Write the files with these values, or fix dataset.json."
    )


def _difference_of_place(prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> str:
    """In what the places of the two maps differ; empty if they do not."""
    if not alike(prediction["spacing"], reference["spacing"]):
        ours, theirs = told_apart(prediction["spacing"], reference["spacing"], " × ")
        return f"the spacings of prediction and reference differ: {ours} and {theirs} mm"
    return misplaced(prediction, reference, what="prediction and reference")


def _labels_in_case(
    files: _Files,
    reference_map: _Map,
    prediction_map: _Map,
    reader: Any,
    labels: ScoredLabels,
    options: Options,
    reached: ReachedThresholds | None,
) -> Iterator[tuple[str, LabelInCase]]:
    """Each label that a case was annotated for, by its name."""
    reference, prediction = reference_map.labels, prediction_map.labels
    if options.largest_component is not None:
        prediction = largest_component(prediction, pieces(options.largest_component, labels.of_model))
    maps = CaseMaps(
        reference,
        prediction,
        # the prediction has the geometry of the image; that of a reference may have been lost when it was made
        prediction_map.properties["spacing"],
        values=tuple(sorted(set(chain.from_iterable(labels.keys.values())))),
        ignore=labels.ignore,
        instances=_read_instances(reader, files, reference, ignore=labels.ignore),
        cropped=not options.thresholds,  # probabilities reach thresholds anywhere
    )
    for name in files.labels:
        tolerance = options.tolerances[name] if NSD.group in options.groups else 0.0
        key, decided = labels.keys[name], maps
        if options.threshold is not None and reached is not None:
            # by itself: below 1/2 two labels can have the same voxel
            is_label = reached.steps[name] > reached.thresholds.index(options.threshold)
            decided = replace(maps, prediction=np.where(is_label, key[0], 0).astype(prediction.dtype))
        label = LabelInCase(decided, key, options.overlap, tolerance)
        yield name, label if maps.instances is None else _by_instances(label, files.reference)


def _read_instances(reader: Any, files: _Files, reference: Labels, *, ignore: int | None) -> Labels | None:
    """A case's map of instances, if it has one; UserError if it does not go with the reference."""
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


def _by_instances(label: LabelInCase, labels: Path) -> LabelInCase:
    """The label as its map of instances counts it; as components if the map leaves out a value, such as an organ.

    Raises:
        UserError: if it covers a value in part, or part of the label would go uncounted.
    """
    covered = True
    for value in label.key:
        numbered = label.instances[label.maps.reference[label.box] == value] > 0  # type: ignore[index]
        covered &= bool(numbered.all())
        if numbered.any() and not numbered.all():
            raise UserError(
                f"{np.count_nonzero(~numbered)} of {numbered.size} voxels with the value {value} in {labels} belong to "
                "no instance of the case's map. Give maps of all instances, or leave out --instances: then connected "
                "components are the instances."
            )
    return replace(label, by_instances=covered)
