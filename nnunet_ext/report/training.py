"""What a fold's checkpoint says about its training: curves, settings, version, and the commands that repeat it."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.checkpoints.trained_model import training_of
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.formats.checkpoint import Recorded
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.plans import checked_plans
from nnunet_ext.formats.typed import validated
from nnunet_ext.nnunet_folders import dataset_number
from nnunet_ext.nnunet_names import CHECKPOINTS, FINAL, PLANS, TRAINER
from nnunet_ext.plans.cascades import inherited_value, lineage
from nnunet_ext.plans.plans_file import check_configuration


@dataclass(frozen=True)
class TrainingRecord:
    """What a checkpoint says about how it came to be."""

    checkpoint: Path  # the file
    curves: Mapping[str, Sequence[float]]  # one value per epoch by the logger's key; NaN where an epoch has none
    settings: Mapping[str, str]  # in reading order
    moved: Mapping[str, tuple[int, int]]  # in a fine-tuning, by role: parameters that ever moved, and all of them
    version: str | None  # of this package in the training; None for stock nnU-Net
    commands: tuple[str, ...]  # that repeat the training, with comments

    @property
    def is_finished(self) -> bool:
        return self.checkpoint.name == FINAL


def find_checkpoint(fold_folder: Path) -> Path | None:
    """The checkpoint of a finished training, else the last one there is."""
    return next((fold_folder / name for name in CHECKPOINTS if (fold_folder / name).is_file()), None)


def read_training(fold_folder: Path) -> TrainingRecord:
    """Read what the checkpoint in nnU-Net's folder ``fold_X`` says; UserError if there is none, or it is refused."""
    source = find_checkpoint(fold_folder)
    if source is None:
        raise UserError(f"{fold_folder / FINAL} does not exist. The report needs a finished training.")
    checkpoint = read_checkpoint(source)
    trainer, configuration = training_of(checkpoint, source)
    arguments = checkpoint["init_args"]
    plans_file = fold_folder.parent / "plans.json"
    plans = checked_plans(arguments.get("plans") or read_json(plans_file), where=f"The plans of {source}")
    check_configuration(plans, configuration, file=source)
    fold = str(arguments.get("fold", fold_folder.name.removeprefix("fold_")))
    recorded = validated(Recorded, checkpoint, where=source, what="a checkpoint")
    own = recorded.nnunet_ext
    curves = {
        str(key): _numbers(values, where=f"{source}: the curve {key!r}")
        for key, values in recorded.logging.items()
        if all(isinstance(value, (int, float, np.number)) for value in values)
    }
    started, ended = curves.get("epoch_start_timestamps", []), curves.get("epoch_end_timestamps", [])
    seconds = [end - start for start, end in zip(started, ended)]
    shown = ("patch_size", "batch_size", "spacing")
    content = {key: inherited_value(plans["configurations"], configuration, key) for key in shown}
    # by place in memory: tensors that have several names count once
    sizes = {tensor.data_ptr(): tensor.numel() for tensor in checkpoint["network_weights"].values()}
    settings = {
        "Trainer": trainer,
        "Configuration": configuration,
        "Plans": str(plans.get("plans_name", "–")),
        "Fold": fold,
        "Epochs": str(len(curves.get("train_losses", []))),
        "Seconds per epoch (median)": f"{median(seconds):.1f}" if seconds else "–",
        "Patch size": " × ".join(map(str, content["patch_size"] or [])) or "–",
        "Batch size": str(content["batch_size"] or "–"),
        "Spacing in mm": " × ".join(f"{value:g}" for value in content["spacing"] or []) or "–",
        "Weights of the network": f"{sum(sizes.values()):,}",
        **{key: str(value) for key, value in flatten(own.settings).items()},
        **{f"Started from: {key}": str(value) for key, value in own.source.items()},
    }
    return TrainingRecord(
        checkpoint=source,
        curves=curves,
        settings=settings,
        moved=own.moved.shares,
        version=own.version,
        commands=training_commands(plans, trainer=trainer, configuration=configuration, fold=fold),
    )


def _numbers(values: Sequence[Any], *, where: str) -> list[float]:
    try:
        return [float(value) for value in values]
    except OverflowError:  # a whole number of hundreds of digits
        raise UserError(
            f"{where} has a number that is too large. Name a checkpoint that nnU-Net has written."
        ) from None


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        nested = isinstance(value, Mapping)
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def training_commands(plans: Mapping[str, Any], *, trainer: str, configuration: str, fold: str) -> tuple[str, ...]:
    """The commands that write a training's configurations and train, as far as the plans in its checkpoint tell."""
    dataset = dataset_number(str(plans.get("dataset_name", "DATASET")))
    name = str(plans.get("plans_name", PLANS))
    named = [] if name == PLANS else ["-p", name]
    train = ["nnUNetv2_train", dataset, configuration, fold]
    train += [] if trainer == TRAINER else ["-tr", trainer]
    lines = [
        _configure(dataset, named, one, plans["configurations"][one])
        for one in reversed(lineage(plans["configurations"], configuration))
        if KEY in plans["configurations"][one]
    ]
    return (*lines, shlex.join([*train, *named]))


def _configure(dataset: str, plans: Sequence[str], name: str, content: Mapping[str, Any]) -> str:
    """The command that writes a configuration, or a comment where `nnunet_ext configure` cannot have written it."""
    if set(content) != {"inherits_from", KEY} or not isinstance(content[KEY], Mapping):
        return f"# configuration {name}: take it from plans.json in the model's folder, as it sets more than nnunet_ext"
    flat = flatten(content[KEY]).items()
    settings = [f"{key}={value if isinstance(value, str) else json.dumps(value, default=str)}" for key, value in flat]
    command = ["nnunet_ext", "configure", "-d", dataset, *plans, "-c", content["inherits_from"], "--name", name]
    return shlex.join([*command, *settings])
