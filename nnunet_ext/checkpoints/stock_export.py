"""A trained model as one that plain nnU-Net predicts with, without this package."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_ext.checkpoints.adaptation import aliases
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.heads import PRETEXTS, outputs_of
from nnunet_ext.checkpoints.missing_labels import BACKGROUND, takes_missing_for_background
from nnunet_ext.checkpoints.networks import build_network, find_trainer, input_channels, resolved_plans
from nnunet_ext.checkpoints.postprocessing import TEXT, copy_postprocessing
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.checkpoints.sources import stunet
from nnunet_ext.checkpoints.standalone import standalone_source
from nnunet_ext.checkpoints.trained_model import TrainedModel, training_of
from nnunet_ext.checkpoints.writing import write_checkpoint
from nnunet_ext.errors import UserError
from nnunet_ext.files import sha256, write_json, write_text
from nnunet_ext.formats.annotated_labels import MISSING, NAMING_CASES, AnnotatedLabels, annotated_labels
from nnunet_ext.formats.names import check_names
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.formats.pairing import without_folders
from nnunet_ext.formats.plans import require
from nnunet_ext.formats.typed import read_typed
from nnunet_ext.messages import last_line, size, some
from nnunet_ext.nnunet_names import FINAL
from nnunet_ext.version import __version__

PROVENANCE = "nnunet_ext_export.json"
TRAINER_FOLDER = "nnUNet_extTrainer"
OF_NETWORK = {stunet.NETWORK: "nnunet_ext.trainers.stunet_inference"}
"""The modules of trainers for the classes of this package that plans name."""
SEED = 0
POSTPROCESSING = "crossval_results_folds_"
"""What nnU-Net's names of folders with postprocessing begin with, before its folds."""
PATIENTS = "dataset"
"""The key of dataset.json that names the training cases and where they are."""


@dataclass(frozen=True)
class Export:
    """What was exported."""

    trainer: str  # the original trainer
    exported_trainer: str  # nnU-Net's, or that of the file beside the model
    configuration: str  # its name
    dataset: str  # nnU-Net's name of it
    plans: str  # identifier of the plans
    folds: Mapping[str, Mapping[str, Any]]  # what became of each, as nnunet_ext_export.json has it
    has_trainer_file: bool  # whether the model needs `TRAINER_FOLDER`
    postprocessing: str | None  # name of the folder with nnU-Net's postprocessing, if it was exported
    other_postprocessing: tuple[str, ...]  # names of such folders of other folds, which stay behind
    previous_stage: str | None  # the configuration whose predictions it needs, for the second stage of a cascade
    missed_labels: bool = False  # whether the postprocessing was decided by cases in which nobody looked for some label

    @property
    def folder_name(self) -> str:
        """As nnU-Net names the model's folder."""
        return f"{self.exported_trainer}__{self.plans}__{self.configuration}"


def export(model: TrainedModel, folder: Path) -> Export:
    """Write a model of any trainer into an empty folder as plain nnU-Net reads it, and compare the logits.

    Raises:
        UserError: if a checkpoint is refused or does not fit the plans, if the folds are of different trainings, if the
            network gives no segmentation, if neither plain nnU-Net nor a file beside it can build it, or if the logits
            differ.
    """
    return _Exporter(model, folder).run()


def stock_weights(weights: Mapping[str, Tensor], stock: nn.Module) -> tuple[dict[str, Tensor], dict[str, int]]:
    """The part of a state dict that a plain network has, and how many entries of each other part are left out.

    Raises:
        ValueError: naming what the plain network needs and is missing or of another shape.
    """
    expected = stock.state_dict()
    problems = [f"{key} is missing" for key in expected if key not in weights]
    problems += [
        f"{key} is {list(weights[key].shape)}, not {list(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    if problems:
        raise ValueError(some(problems))
    left_out = Counter[str]()
    for keys, tensor in aliases(weights):
        if not any(key in expected for key in keys):
            left_out[keys[0].partition(".")[0]] += tensor.numel()
    # one tensor for all names of a weight; of copies that differ, loading would take the last
    tied = {key: weights[keys[-1]] for keys, _ in aliases(expected) for key in keys}
    return {key: tied[key] for key in expected}, dict(left_out)


class _Exporter:
    """One run of `export`."""

    def __init__(self, model: TrainedModel, folder: Path) -> None:
        self.model, self.folder = model, folder
        file = next(iter(model.checkpoints().values()))
        first = read_checkpoint(file)
        self.trainer_name, self.configuration = training_of(first, file)
        named = (model.plans.get("dataset_name"), model.plans.get("plans_name"), self.configuration)
        check_names(named, what="folder", where=model.folder / "plans.json")
        if (outputs := outputs_of(first)) in PRETEXTS:
            raise UserError(
                f"{model.folder} was pre-trained to {PRETEXTS[outputs]} and predicts no segmentation. Train a model "
                "that begins with its weights (-pretrained_weights), and export that."
            )
        dataset_json = {key: value for key, value in model.dataset_json.items() if key != PATIENTS}
        if isinstance(about := dataset_json.get(KEY), dict):
            kept = {key: value for key, value in without_folders(about).items() if key not in NAMING_CASES}
            where = model.folder / "dataset.json"
            if takes_missing_for_background(self.trainer_name, model.dataset_json, where=where):
                kept[MISSING] = BACKGROUND
            dataset_json[KEY] = kept
        self.description = ModelDescription(model.plans, self.configuration, dataset_json)
        if self.configuration not in model.plans["configurations"]:
            missing = (
                f"{model.folder / 'plans.json'} has no configuration {self.configuration!r}, the one that was trained"
            )
            raise UserError(f"{missing}. Put the plans.json back that belongs to the model.")
        self.trainer = find_trainer(self.trainer_name)
        network = str(self.description.architecture()["network_class_name"])
        self.inference_module: str | None = getattr(self.trainer, "inference_module", None) or OF_NETWORK.get(network)
        self.plans = resolved_plans(self.trainer, self.description)

    def run(self) -> Export:
        exported_trainer = self._write_trainer() if self.inference_module else nnUNetTrainer
        write_json(self.folder / "plans.json", self.plans)
        write_json(self.folder / "dataset.json", self.description.dataset_json)
        if (fingerprint := self.model.folder / "dataset_fingerprint.json").is_file():
            write_json(self.folder / fingerprint.name, read_typed(dict[str, Any], fingerprint, maker="nnU-Net"))
        files = self.model.checkpoints()
        folds = {
            str(fold): self._export_fold(fold, file, exported_trainer)
            for fold, file in tqdm(files.items(), desc="Exporting", unit="fold", disable=None, leave=False)
        }
        names = {
            "trainer": self.trainer_name,
            "exported_trainer": exported_trainer.__name__,
            "configuration": self.configuration,
        }
        record = {
            **names,
            "versions": {KEY: __version__, **{name: metadata.version(name) for name in ("nnunetv2", "torch")}},
            "verified": f"logits of {FINAL} equal to those before, float32, CPU, standard normal input of seed {SEED}",
            "folds": folds,
        }
        write_json(self.folder / PROVENANCE, record)
        postprocessing = self._copy_postprocessing()
        return Export(
            **names,
            dataset=str(self.plans["dataset_name"]),
            plans=str(self.plans["plans_name"]),
            folds=folds,
            has_trainer_file=self.inference_module is not None,
            postprocessing=postprocessing,
            other_postprocessing=() if postprocessing else tuple(self._postprocessing_of()),
            previous_stage=PlansManager(self.plans).get_configuration(self.configuration).previous_stage_name,
            missed_labels=postprocessing is not None and self._lists().have_gaps,
        )

    def _export_fold(self, fold: int | str, file: Path, exported_trainer: Any) -> dict[str, Any]:
        checkpoint = read_checkpoint(file)
        if training_of(checkpoint, file) != (self.trainer_name, self.configuration):
            raise UserError(
                f"{file} is of {' with '.join(training_of(checkpoint, file))}, the first fold of {self.trainer_name} "
                f"with {self.configuration}. Name folds of one training with -f."
            )
        own = build_network(self.trainer, self.description, deep_supervision=False)
        _load_strictly(own, checkpoint["network_weights"], file, f"{self.trainer_name} builds for plans.json")
        resolved = ModelDescription(self.plans, self.configuration, self.description.dataset_json)
        exported = build_network(exported_trainer, resolved, deep_supervision=False)
        try:
            kept, left_out = stock_weights(checkpoint["network_weights"], exported)
        except ValueError as error:
            raise UserError(
                f"The network of {self.trainer_name} is not the one that plain nnU-Net builds for these plans "
                f"({error}), so it cannot predict without its trainer."
            ) from None
        about = {
            "trainer": self.trainer_name,
            "settings": checkpoint.get(KEY, {}).get("settings"),
            "trained_with": {KEY: checkpoint.get(KEY, {}).get("version")},
            "epochs": checkpoint.get("current_epoch"),
            "file": f"fold_{fold}/{file.name}",
            "sha256": sha256(file),
            "left_out": left_out,
        }
        if started_from := checkpoint.get(KEY, {}).get("source"):
            about["started_from"] = started_from  # its citation and licence stay with what was made from it
        content = {
            "network_weights": kept,
            "init_args": {
                "plans": self.plans,
                "configuration": self.configuration,
                "fold": fold,
                "dataset_json": dict(self.description.dataset_json),
            },
            "trainer_name": exported_trainer.__name__,
            "inference_allowed_mirroring_axes": checkpoint.get("inference_allowed_mirroring_axes"),
            KEY: {"version": __version__, "exported_from": about},
        }
        target = self.folder / f"fold_{fold}" / FINAL
        target.parent.mkdir()
        write_checkpoint(target, content)
        _load_strictly(exported, read_checkpoint(target)["network_weights"], target, "nnU-Net builds")
        self._compare(own, exported, file)
        exported_about = {"sha256": sha256(target), "bytes": target.stat().st_size}
        return {**about, "bytes": file.stat().st_size, "exported": exported_about}

    def _compare(self, own: nn.Module, exported: nn.Module, file: Path) -> None:
        """Raise a UserError unless both networks give the same logits."""
        content = PlansManager(self.plans).get_configuration(self.configuration).configuration
        where = f"Configuration {self.configuration!r} in {self.model.folder / 'plans.json'}"
        require(content, ["patch_size"], where=where)
        patch = content["patch_size"]
        generator = torch.Generator().manual_seed(SEED)
        try:
            data = torch.randn(1, input_channels(self.description), *patch, generator=generator)
            with torch.inference_mode():
                before, after = own.eval()(data), exported.eval()(data)
        except RuntimeError as error:
            raise UserError(
                f"{where} has a patch_size of {size(patch)} voxels, which the network cannot take or the memory cannot "
                f"hold: {last_line(error)}. Put the plans.json back that belongs to the model."
            ) from None
        if not torch.equal(before, after):
            difference = float((before - after).abs().max())
            found = f"The exported model of {file} gives other logits (largest difference {difference:g})"
            raise UserError(f"{found}, so nothing was written. Please report this with the plans.json.")

    def _write_trainer(self) -> Any:
        """Write the module that builds the network, and load it from there."""
        assert self.inference_module
        name = self.inference_module.rpartition(".")[2]
        file = self.folder / TRAINER_FOLDER / f"{name}.py"
        file.parent.mkdir()
        write_text(file, standalone_source(self.inference_module))
        write_text(file.with_name("__init__.py"), "")
        spec: Any = spec_from_file_location(f"_exported_{name}", file)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        (trainer,) = (one for one in classes if issubclass(one, nnUNetTrainer) and one is not nnUNetTrainer)
        return trainer

    def _postprocessing_of(self) -> dict[str, frozenset[str]]:
        """The folders with what nnU-Net's search for the best configuration found, and the folds of each."""
        folders = sorted(file.parent.name for file in self.model.folder.glob(f"{POSTPROCESSING}*/{TEXT}"))
        return {name: frozenset(name.removeprefix(POSTPROCESSING).split("_")) for name in folders}

    def _lists(self) -> AnnotatedLabels:
        """What the training cases were annotated for."""
        return annotated_labels(self.model.dataset_json, where=self.model.folder / "dataset.json")

    def _copy_postprocessing(self) -> str | None:
        """Copy what was found for these folds, in whatever order they were given."""
        folds = frozenset(map(str, self.model.folds))
        name = next((name for name, theirs in self._postprocessing_of().items() if theirs == folds), None)
        if name is None:
            return None
        (self.folder / name).mkdir()
        copy_postprocessing(self.model.folder / name, self.folder / name)
        for part in ("plans.json", "dataset.json"):
            (self.folder / name / part).write_bytes((self.folder / part).read_bytes())
        return name


def _load_strictly(network: nn.Module, weights: Mapping[str, Tensor], file: Path, builder: str) -> None:
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise UserError(f"{file} does not fit the network that {builder}: {error}") from None
