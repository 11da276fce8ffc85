"""Cases that were scored: their files, and what nnU-Net's summary.json says of them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import with_references
from nnunet_ext.evaluation.metrics import DICE
from nnunet_ext.evaluation.metrics.metric import plain
from nnunet_ext.evaluation.scores_table import case_scores
from nnunet_ext.files import read_json
from nnunet_ext.formats.annotated_labels import AnnotatedLabels
from nnunet_ext.formats.dataset_json import read_dataset_json
from nnunet_ext.formats.summary import Summary, path_of
from nnunet_ext.formats.typed import validated
from nnunet_ext.preprocessing.raw.raw_dataset import raw_test_cases, training_cases

VARIABLE = "nnUNet_raw"

AGAIN = "Run nnUNetv2_evaluate_folder on the predictions first."


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case, as far as they are known; they may not exist."""

    prediction: Path  # label map
    reference: Path | None  # label map
    image: Path | None  # first channel


@dataclass(frozen=True)
class RawFiles:
    """A raw dataset's dataset.json, and the first image and the reference of each case; empty if it was not found."""

    description: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Path] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)


def find_raw_files(dataset: str, near: Iterable[Path], *, references: str | None = None) -> RawFiles:
    """The files of a raw dataset's training and test cases.

    The dataset is looked for in the folder that the variable nnUNet_raw names, then in a folder ``nnUNet_raw`` beside
    those that hold the files and folders `near` it, such as results (as beside nnUNet_results), then among these
    folders themselves. `dataset` is empty if it is not known; `references` names the folder with the references, where
    it is not labelsTr and labelsTs.
    """
    root = os.environ.get(VARIABLE)
    candidates = [Path(root) / dataset] if root else []
    for path in near:
        for parent in path.parents:
            candidates += [parent] if parent.name == dataset else []
            candidates.append(parent / VARIABLE / dataset)
    folder = next((one for one in candidates if dataset and _is_raw(one)), None)
    if folder is None:
        return RawFiles()
    description = read_dataset_json(folder / "dataset.json")
    cases = raw_test_cases(folder, description) | training_cases(folder, description)
    cases = with_references(cases, folder, description, references)
    images = {name: case.images[0] for name, case in cases.items() if case.images}
    return RawFiles(description, images, {name: case.label for name, case in cases.items()})


def _is_raw(folder: Path) -> bool:
    return (folder / "dataset.json").is_file() and any((folder / name).is_dir() for name in ("labelsTr", "labelsTs"))


@dataclass(frozen=True)
class Label:
    """A label or region that is scored: its name, and the values in the label map that belong to it."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """A summary.json, read."""

    labels: tuple[Label, ...]  # in the order of their values
    scores: pd.DataFrame  # see `case_scores`; labels in the same order
    references: Mapping[str, Path]  # by case
    predictions: Mapping[str, Path]
    left_out: frozenset[str] = frozenset()  # cases with a score of a label that they were not annotated for

    def of_annotated_labels(self, lists: AnnotatedLabels) -> Evaluation:
        """The same without scores of labels that a case was not annotated for, as far as these references go.

        nnU-Net takes these for absent, so that whoever finds the organ is wrong, and nothing is defined for whoever
        predicts none.
        """
        lists = lists.against(self.a_reference.parent.name)
        is_known = np.array(
            [
                label not in lists.labels or lists.is_annotated(case, label)
                for case, label in zip(self.scores["case"], self.scores["label"])
            ]
        )
        defined = self.scores[~is_known & (self.scores["denominator"] > 0)]
        return replace(self, scores=self.scores[is_known], left_out=frozenset(defined["case"]))

    @property
    def a_reference(self) -> Path:
        """The first case's reference."""
        return next(iter(self.references.values()))


def read_labels(dataset_json: Mapping[str, Any]) -> dict[tuple[int, ...], str]:
    """Names of labels and regions by their values, from dataset.json."""
    labels = dataset_json["labels"].items()
    return {tuple(values) if isinstance(values, list) else (int(values),): str(name) for name, values in labels}


def read_summary(file: Path, dataset_json: Mapping[str, Any]) -> Evaluation:
    """Read a summary.json; `dataset_json` is that of the model or the dataset.

    If predictions are no longer where it says, those beside it are taken, as in a folder that was moved. A UserError
    says if it is missing, no summary of nnU-Net, or holds no case.
    """
    summary = validated(Summary, read_json(file), where=file, what="a summary.json")
    names, ending = read_labels(dataset_json), str(dataset_json["file_ending"])
    dice: list[tuple[tuple[int, ...], str, float]] = []
    references: dict[str, Path] = {}
    predictions: dict[str, Path] = {}
    for case in summary.metric_per_case:
        prediction, reference = path_of(case.prediction_file), path_of(case.reference_file)
        name = prediction.name.removesuffix(ending)
        keys = [tuple(int(number) for number in re.findall(r"\d+", key)) for key in case.metrics]
        if name in references or len(set(keys)) < len(keys):
            raise UserError(f"{file} has the case {name}, or a label of it, twice. {AGAIN}")
        references[name] = Path(reference)
        predictions[name] = Path(prediction) if Path(prediction).is_file() else file.parent / prediction.name
        for values, metrics in zip(keys, case.metrics.values(), strict=True):
            found = metrics["Dice"]
            dice.append((values, name, math.nan if found is None else found))
    if not dice:
        raise UserError(f"{file} holds no evaluated case. {AGAIN}")
    dice.sort(key=itemgetter(0))
    labels = {values: Label(names.get(values, f"label {', '.join(map(str, values))}"), values) for values, _, _ in dice}
    scores = case_scores((case, labels[values].name, DICE.name, *plain(value)) for values, case, value in dice)
    return Evaluation(tuple(labels.values()), scores, references, predictions)
