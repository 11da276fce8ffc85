"""Small made-up results as nnU-Net and ``nnunet_ext evaluate`` leave them, and a reader of the page about them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch

from nnunet_ext.evaluation.scores_table import case_scores, write_scores

DATASET = "Dataset900_Made"
DATASET_JSON = {
    "channel_names": {"0": "MR"},
    "labels": {"background": 0, "liver": 1, "lesion": 2},
    "numTraining": 3,
    "file_ending": ".nii.gz",
}
PLANS = {
    "dataset_name": DATASET,
    "plans_name": "nnUNetPlans",
    "configurations": {
        "3d_fullres": {"patch_size": [12, 16, 16], "batch_size": 2, "spacing": [2.0, 1.5, 1.5], "architecture": {}},
        "3d_short": {"inherits_from": "3d_fullres", "nnunet_ext": {"num_epochs": 10, "mixup": {"alpha": 0.4}}},
        "3d_fullres_quick": {"inherits_from": "3d_fullres", "batch_size": 4, "nnunet_ext": {"num_epochs": 10}},
    },
}


def write_volume(target: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.5, 1.5, 2.0))
    sitk.WriteImage(image, str(target))


def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
    total = reference.sum() + prediction.sum()
    return float(2 * (reference & prediction).sum() / total) if total else math.nan


def write_raw(root: Path, cases: Sequence[str]) -> Path:
    """A raw dataset; the first case has no lesion."""
    folder = root / "nnUNet_raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number, case in enumerate(cases):
        labels = np.zeros((12, 16, 18), dtype=np.uint8)
        labels[3:9, 4:12, 4:12] = 1
        if number != 0:
            labels[5:7, 6:9, 6:9] = 2
        write_volume(folder / "labelsTr" / f"{case}.nii.gz", labels)
        write_volume(folder / "imagesTr" / f"{case}_0000.nii.gz", rng.normal(labels, 0.3).astype(np.float32))
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return folder


def write_predictions(folder: Path, raw: Path, shifts: Mapping[str, int]) -> None:
    """References moved by some voxels, with nnU-Net's summary.json of them."""
    folder.mkdir(parents=True, exist_ok=True)
    per_case = []
    for case, shift in shifts.items():
        reference = raw / "labelsTr" / f"{case}.nii.gz"
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(reference)))
        moved = np.roll(labels, shift, axis=2)
        write_volume(folder / f"{case}.nii.gz", moved)
        metrics = {str(value): {"Dice": dice(labels == value, moved == value)} for value in (1, 2)}
        files = {"reference_file": str(reference), "prediction_file": str(folder / f"{case}.nii.gz")}
        per_case.append({**files, "metrics": metrics})
    (folder / "summary.json").write_text(json.dumps({"metric_per_case": per_case}))


def write_checkpoint(
    fold: Path,
    *,
    trainer: str = "nnUNetTrainerExample",
    configuration: str = "3d_short",
    terms: Mapping[str, Sequence[float]] | None = None,
    name: str = "checkpoint_final.pth",
    settings: Mapping[str, Any] | None = None,
) -> Path:
    fold.mkdir(parents=True, exist_ok=True)
    epochs = np.arange(10)
    number = fold.name.removeprefix("fold_")
    checkpoint = {
        "network_weights": {"a.weight": torch.zeros(3, 4), "a.bias": torch.zeros(3)},
        "trainer_name": trainer,
        "init_args": {
            "configuration": configuration,
            "fold": int(number) if number.isdecimal() else number,
            "plans": PLANS,
        },
        "nnunet_ext": {"version": "0.0.7", "settings": settings or {"num_epochs": 10, "mixup": {"alpha": 0.4}}},
        "logging": {
            "train_losses": list(np.exp(-epochs / 4) - 0.5),
            "val_losses": list(np.exp(-epochs / 5) - 0.45),
            "mean_fg_dice": list(1 - np.exp(-epochs / 3)),
            "ema_fg_dice": list(1 - np.exp(-epochs / 5)),
            "dice_per_class_or_region": [[0.1, 0.2]] * 10,
            "lrs": list(0.01 * (1 - epochs / 10) ** 0.9),
            "epoch_start_timestamps": list(epochs * 3.0),
            "epoch_end_timestamps": list(epochs * 3.0 + 2.5),
            **(terms or {}),
        },
    }
    torch.save(checkpoint, fold / name)
    return fold / name


def write_model(
    root: Path,
    folds: Mapping[int | str, Mapping[str, int]],
    *,
    trainer: str = "nnUNetTrainerExample",
    configuration: str = "3d_short",
    **options: Any,
) -> Path:
    """A model folder with validated folds, `folds` being the shifts of each one's cases."""
    model = root / "nnUNet_results" / DATASET / f"{trainer}__nnUNetPlans__{configuration}"
    for fold, shifts in folds.items():
        write_checkpoint(model / f"fold_{fold}", trainer=trainer, configuration=configuration, **options)
        write_predictions(model / f"fold_{fold}" / "validation", root / "nnUNet_raw" / DATASET, shifts)
    (model / "dataset.json").write_text(json.dumps(DATASET_JSON))
    (model / "plans.json").write_text(json.dumps(PLANS))
    return model


def evaluated_set(
    values: Mapping[str, Mapping[str, float | None]], *, dataset: str = DATASET, tolerance: float = 1.0
) -> dict[str, Any]:
    """A data set of evaluation.json with Dice and all further metrics, which follow from Dice."""
    labels = list(next(iter(values.values())))
    return {
        "dataset": dataset,
        "cases": "val",
        "labels": {label: {} for label in labels},
        "tolerances": dict.fromkeys(labels, tolerance),
        "instances": "components",
        "overlap": 0.1,
        **dict.fromkeys(("assd", "hd95", "nsd"), {}),
        "dice": values,
    }


def scores_of(entry: Mapping[str, Any]) -> pd.DataFrame:
    """The scores table of such a data set; all metrics follow from Dice."""
    rows = [
        (case, label, metric, *parts)
        for case, by_label in entry["dice"].items()
        for label, value in by_label.items()
        for metric, parts in {
            **{
                metric: (0, 0) if value is None else (first + slope * value, 1)
                for metric, first, slope in (("dice", 0, 1), ("nsd", 0, 1), ("assd", 5, -5), ("hd95", 20, -20))
            },
            "aggregated_dice": (0, 0) if value is None else (200 * value, 200),
            "lesions_recall": (1, 2),
            "lesions_precision": (1, 4),
        }.items()
    ]
    dataset = f"{entry['dataset']}_{entry['cases']}"
    return case_scores(rows).assign(run="T", seed="", dataset=dataset, references="", patient="")


def write_evaluation(
    folder: Path,
    sets: Sequence[Mapping[str, Any]],
    *,
    model: Path | None = None,
) -> Path:
    """An output folder of ``nnunet_ext evaluate``, without predictions."""
    folder.mkdir(parents=True)
    content = {
        "model": "nnUNetTrainerExample__nnUNetPlans__3d_short" if model is None else model.name,
        "folds": [0],
        "checkpoint": "checkpoint_final.pth",
        "mirroring": False,
        "versions": {"nnunet_ext": "0.0.8", "nnunetv2": "2.8.0"},
        "datasets": list(sets),
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    write_scores(folder / "scores.csv", pd.concat(map(scores_of, sets)))
    if model is not None:
        (folder / "request.json").write_text(json.dumps({"model": str(model)}))
    return folder


class Elements(HTMLParser):
    """Every element's name and attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())
