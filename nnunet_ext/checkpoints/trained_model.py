"""A trained model as nnU-Net leaves it on disk: plans.json, dataset.json and a checkpoint in each fold's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.formats.dataset_json import read_dataset_json
from nnunet_ext.formats.plans import checked_plans
from nnunet_ext.nnunet_names import FINAL


@dataclass(frozen=True)
class TrainedModel:
    """A trained model."""

    folder: Path  # nnU-Net's ``TRAINER__PLANS__CONFIGURATION``
    folds: tuple[int | str, ...]  # some of its folds
    checkpoint: str  # name of the file in each ``fold_X``
    plans: Mapping[str, Any]  # content of its plans.json
    dataset_json: Mapping[str, Any]  # content of its dataset.json

    @property
    def trained_on(self) -> str:
        """The dataset that it was trained on, ``DatasetXXX_Name``, wherever its folder is."""
        return dataset_of(self.folder, self.plans)

    def checkpoints(self) -> dict[int | str, Path]:
        """The file of each fold."""
        return {fold: self.folder / f"fold_{fold}" / self.checkpoint for fold in self.folds}


def find_trained_model(
    folder: Path, folds: Sequence[int | str] | None = None, *, checkpoint: str = FINAL
) -> TrainedModel:
    """The model in a folder of nnU-Net, by default with all its folds; a UserError if a part is missing."""
    check_model_folder(folder)
    if folds is None:
        folds = folds_of(folder)
    if not folds:
        raise UserError(f"{folder} has no fold_0, fold_1, … with a checkpoint.")
    plans = checked_plans(read_json(folder / "plans.json"), where=folder / "plans.json")
    model = TrainedModel(folder, tuple(folds), checkpoint, plans, read_dataset_json(folder / "dataset.json"))
    for file in model.checkpoints().values():
        if not file.is_file():
            there = ", ".join(sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("fold_*/*.pth")))
            raise UserError(f"{file} does not exist. {folder.name} has: {there or 'no checkpoint'}.")
    return model


def check_model_folder(folder: Path) -> None:
    """Raise a UserError if a folder is none of nnU-Net's for a model."""
    for part in ("plans.json", "dataset.json"):
        if not (folder / part).is_file():
            expected = "Expected: a folder nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION."
            raise UserError(f"{folder} is no model folder of nnU-Net: it has no {part}. {expected}")


def dataset_of(folder: Path, plans: Mapping[str, Any]) -> str:
    """The dataset that a model was trained on by its plans, or, where these do not say it, by nnU-Net's layout."""
    return str(plans.get("dataset_name") or folder.resolve().parent.name)


def training_of(checkpoint: Mapping[str, Any], file: Path) -> tuple[str, str]:
    """Trainer and configuration by their names; a UserError if the checkpoint does not say them."""
    trainer, arguments = checkpoint.get("trainer_name"), checkpoint.get("init_args")
    if not isinstance(trainer, str) or not isinstance(arguments, Mapping) or "configuration" not in arguments:
        missing = "does not say which trainer and configuration it is of (trainer_name, init_args)"
        raise UserError(f"{file} {missing}. Expected: a checkpoint that nnU-Net wrote in training.")
    return trainer, str(arguments["configuration"])


def folds_of(folder: Path, checkpoint: str = "*.pth") -> list[int | str]:
    """The folds of a model that have a checkpoint of a name or pattern, in order; ``all`` last."""
    names = {path.parent.name.removeprefix("fold_") for path in folder.glob(f"fold_*/{checkpoint}")}
    numbers: list[int | str] = sorted(int(name) for name in names if name.isdecimal())
    return [*numbers, *(["all"] if "all" in names else [])]
