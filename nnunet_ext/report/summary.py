"""Reading summary.json, nnU-Net's scores of predictions."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.metrics import DICE
from nnunet_ext.evaluation.metrics.metric import plain
from nnunet_ext.evaluation.scores_table import case_scores
from nnunet_ext.files import read_json
from nnunet_ext.formats.summary import Summary, path_of
from nnunet_ext.formats.typed import validated


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
        references[name] = Path(reference)
        predictions[name] = Path(prediction) if Path(prediction).is_file() else file.parent / prediction.name
        for key, metrics in case.metrics.items():
            values = tuple(int(number) for number in re.findall(r"\d+", key))
            found = metrics["Dice"]
            dice.append((values, name, math.nan if found is None else found))
    if not dice:
        raise UserError(f"{file} holds no evaluated case. Run nnUNetv2_evaluate_folder on the predictions first.")
    dice.sort(key=itemgetter(0))
    labels = {values: Label(names.get(values, f"label {', '.join(map(str, values))}"), values) for values, _, _ in dice}
    scores = case_scores((case, labels[values].name, DICE.name, *plain(value)) for values, case, value in dice)
    return Evaluation(tuple(labels.values()), scores, references, predictions)
