"""Models that label the cases of a dataset: those of their folds that may predict a case, and a loop over the cases."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunet_ext.checkpoints.missing_labels import takes_missing_for_background
from nnunet_ext.checkpoints.trained_model import TrainedModel, find_trained_model
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.model_evaluation import check_inputs, load_predictor
from nnunet_ext.evaluation.probabilities import predict_probabilities
from nnunet_ext.evaluation.scored_labels import match_labels
from nnunet_ext.files import sha256, size_and_time
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.plans import require
from nnunet_ext.formats.splits import read_splits
from nnunet_ext.machine import choose_device
from nnunet_ext.messages import size, some
from nnunet_ext.nnunet_folders import preprocessed_folder
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.preprocessing.raw.new_dataset import PROGRESS, CaseProgress
from nnunet_ext.preprocessing.raw.raw_dataset import Case, Labels, RawDataset, write_label_map
from nnunet_ext.preprocessing.raw.splits import folds_that_have_not_seen

CaseFolds = Mapping[str, Sequence[int | str]]
"""The folds of the model that predict each case."""


@dataclass(frozen=True)
class Teacher:
    """A trained model, loaded to label the cases of a dataset."""

    model: TrainedModel
    folds: CaseFolds
    mirroring: bool  # whether predictions are averaged over flips
    out_of_fold: bool  # whether a case is predicted by folds alone that have not trained on it
    predictor: Any  # nnU-Net's, with the model in it
    weights: Mapping[int | str, Any]  # of each fold

    def probabilities(self, name: str, case: Case) -> npt.NDArray[np.float32]:
        """Those of the folds that predict a case as nnU-Net's ensemble, the softmax of their mean logits.

        Their shape is (C, Z, Y, X), background first.
        """
        return predict_probabilities(self.predictor, case.images, [self.weights[fold] for fold in self.folds[name]])

    def probabilities_by_fold(self, name: str, case: Case) -> Iterator[npt.NDArray[np.float32]]:
        """The same of each fold by itself, one after the other."""
        for fold in self.folds[name]:
            yield predict_probabilities(self.predictor, case.images, [self.weights[fold]])

    def request(self) -> dict[str, Any]:
        """What decides its predictions, beside the files of the cases: with the same, interrupted work goes on."""
        return {
            "model": str(self.model.folder.resolve()),
            "checkpoint": self.model.checkpoint,
            "states of the checkpoints": [size_and_time(file) for file in self.model.checkpoints().values()],
            "mirroring": self.mirroring,
            "folds of the cases": {case: list(chosen) for case, chosen in self.folds.items()},
        }

    def origin(self) -> dict[str, Any]:
        """What the new dataset says about it."""
        return {
            "folder": self.model.folder.resolve().name,
            "trained_on": self.model.trained_on,
            "folds": list(self.model.folds),
            "out_of_fold": self.out_of_fold,
            "checkpoint": self.model.checkpoint,
            "sha256": {str(fold): sha256(file) for fold, file in self.model.checkpoints().items()},
            "mirroring": self.mirroring,
            "nnunetv2": metadata.version("nnunetv2"),
        }


def load_teacher(
    folder: Path,
    source: RawDataset,
    *,
    folds: Sequence[int | str],
    checkpoint: str,
    out_of_fold: bool = False,
    device: str = "auto",
    mirroring: bool = True,
    labels_count: bool = True,
) -> Teacher:
    """Load a model that fits a dataset.

    Args:
        folder: nnU-Net's ``TRAINER__PLANS__CONFIGURATION``.
        source: the dataset to label.
        folds: those of the model to predict with.
        checkpoint: the name of the file to take of each.
        out_of_fold: whether a case is predicted by folds alone that have not trained on it.
        device: ``cuda``, ``mps`` or ``cpu``; ``auto`` takes the best that is there.
        mirroring: whether predictions are averaged over flips.
        labels_count: False where the dataset's labels are placeholders.

    Raises:
        UserError: if the model is not whole, does not fit the dataset, or has trained on a case with every fold.
    """
    model = find_trained_model(folder, list(dict.fromkeys(folds)), checkpoint=checkpoint)
    check_fit(source, model, labels_count=labels_count)
    check_has_learned_all(model)
    chosen = folds_of_cases(source, model, out_of_fold=out_of_fold)
    predictor = load_predictor(model, device=choose_device(device), mirroring=mirroring)
    weights = dict(zip(model.folds, predictor.list_of_parameters))
    return Teacher(model, chosen, mirroring, out_of_fold, predictor, weights)


def check_fit(source: RawDataset, model: TrainedModel, *, labels_count: bool) -> None:
    """Raise a UserError unless the model fits the dataset, and the files are there, before any prediction."""
    name = source.folder.name
    check_inputs(model.dataset_json, source.description, name=name)
    if labels_count:
        check_labels(source, model)
    require(model.plans, ["image_reader_writer"], where=model.folder / "plans.json")
    ours, theirs = model.plans["image_reader_writer"], type(source.reader_writer()).__name__
    if ours != theirs:
        raise UserError(
            f"The model reads images by {ours}, and {name} is read by {theirs}, whose axes may differ. Add "
            f'"overwrite_image_reader_writer": "{ours}" to {source.folder / "dataset.json"} if that reads its files.'
        )
    for case, files in source.cases.items():
        if not files.has_channels(len(channel_names(source.description))):
            raise UserError(f"Case {case} of {name} has {len(files.images)} images, which is not one for each channel.")
        if missing := [file for file in (*files.images, files.label) if not file.is_file()]:
            raise UserError(
                f"{missing[0]} of case {case} of {name} does not exist. A case that nobody annotated needs a label map "
                "of zeros, or of the ignore label."
            )


def check_labels(source: RawDataset, model: TrainedModel) -> None:
    """Raise a UserError unless a model has the labels of a dataset, 1, 2, 3, …"""
    name = source.folder.name
    matched = match_labels(model.dataset_json, source.description, name=name)
    if matched.only_model or matched.only_dataset:
        raise UserError(
            f"The labels of the model and of {name} differ: only the model has {some(matched.only_model) or 'none'}; "
            f"only the dataset has {some(matched.only_dataset) or 'none'}. Both need the same."
        )
    values = sorted(source.foreground_values().values())
    if values != list(range(1, len(values) + 1)):
        raise UserError(f"The labels of {name} have the values {some(values)}, not 1, 2, 3, …")


def folds_of_cases(source: RawDataset, model: TrainedModel, *, out_of_fold: bool) -> CaseFolds:
    """The folds that predict each case: all, or those that have not trained on it; a UserError if there are none."""
    if not out_of_fold:
        return dict.fromkeys(source.cases, model.folds)
    if model.trained_on != source.folder.name:
        raise UserError(
            f"{model.folder} was trained on {model.trained_on}, and not on {source.folder.name}, so that no fold of "
            "it has trained on the cases. Leave --out-of-fold out."
        )
    file = preprocessed_folder(source.folder.name) / SPLITS
    return folds_that_have_not_seen(source.cases, read_splits(file), model.folds, file=file)


def label_cases(
    source: RawDataset,
    folder: Path,
    label: Callable[[str, Case, Labels], tuple[Labels, Any]],
    say: Callable[[Any], str],
    *,
    part: str = "labelsTr",
    record: str = PROGRESS,
    also_decides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a new label map of each case, but for those that an interrupted run has finished.

    Args:
        source: whose cases they are; each has a label map.
        folder: the unfinished dataset, or another folder. It keeps what is done until `CaseProgress` is closed.
        label: takes a case's name, files and label map; returns the new one and what is kept of the case, as JSON.
        say: what is said of a case, in a line, by what was kept.
        part: the folder in `folder` that the label maps go to.
        record: the file in `folder` that keeps what is done.
        also_decides: what decides the new labels of each case beside its files, as JSON; a case for which it has
            changed is done again.

    Returns:
        What was kept of each case.
    """
    reader, progress = source.reader_writer(), CaseProgress(folder, record)
    kept: dict[str, Any] = {}
    for number, (name, case) in enumerate(source.cases.items(), start=1):
        position = f"[{number}/{len(source.cases)}] {name}"
        state = [size_and_time(file) for file in (*case.images, case.label)]
        state += [also_decides[name]] if also_decides else []
        kept[name] = progress.result(name, state)
        new = folder / part / f"{name}{source.ending}"
        if kept[name] and new.is_file():
            print(f"{position}: done before", flush=True)
            continue
        before, properties = source.read_labels(reader, name)
        labels, kept[name] = label(name, case, before)
        write_label_map(reader, labels, new, properties)
        progress.keep(name, state, kept[name])
        print(f"{position}: {say(kept[name])}", flush=True)
    return kept


def check_all_annotated(dataset: RawDataset, *, instead: str) -> None:
    """Raise a UserError if a case was not annotated for every label: what is missing would count as background.

    Args:
        dataset: to look at.
        instead: what to do beside taking such cases out, as a clause.
    """
    lists = dataset.annotated_labels()
    if lists.are_partial(dataset.cases) or lists.scribbled:
        raise UserError(
            f"By its dataset.json, {dataset.folder.name} is not annotated for every label in every case. What is "
            f"missing there would count as background. {instead}, or take such cases out of the dataset."
        )


def check_has_learned_all(model: TrainedModel) -> None:
    """Raise a UserError if a model was taught that labels which nobody looked for are background."""
    trainer, where = model.folder.resolve().name.partition("__")[0], model.folder / "dataset.json"
    if takes_missing_for_background(trainer, model.dataset_json, where=where):
        raise UserError(
            f"{model.folder} was trained by {trainer} on cases in which labels are missing, which it takes for "
            "background: so it would label them. Train nnUNetTrainerPartialLabels on these cases, or take a model of "
            "cases that have every label."
        )


def check_shape(probabilities: npt.NDArray[Any], labels: Labels, case: Case) -> None:
    """Raise a UserError if a label map does not have the shape of its image."""
    if probabilities.shape[1:] != labels.shape:
        raise UserError(
            f"{case.label} has {size(labels.shape)} voxels, but its image has {size(probabilities.shape[1:])}. "
            "Fix or replace the file."
        )
