"""A trained model on cases of datasets: what can be scored, and the predictions, made by nnU-Net's predictor."""

import errno
import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.networks import build_network, find_trainer
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.checkpoints.trained_model import TrainedModel, training_of
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.evaluation.operating_points import (
    ReachedThresholds,
    known_thresholds,
    reached_thresholds,
    thresholds_file,
    write_thresholds,
)
from nnunet_ext.evaluation.probabilities import Predictor, predict_case, unreadable_images_named
from nnunet_ext.evaluation.scored_labels import label_channels
from nnunet_ext.files import size_and_time
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.plans import require
from nnunet_ext.formats.whole_images import check_whole
from nnunet_ext.messages import counted
from nnunet_ext.plans.plans_file import check_configuration
from nnunet_ext.preprocessing.raw.raw_dataset import Case, read_images

TRANSPOSED = ("transpose_forward", "transpose_backward")
NEEDED = ("patch_size", "spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name")
"""What nnU-Net's predictor reads of plans, and of a configuration."""

BATCH = 32  # cases that are predicted between two states that an interruption leaves, where there are many cores
PROCESSES = 3  # nnUNetv2_predict's own number, for preprocessing and for export


def check_inputs(model: Mapping[str, Any], dataset: Mapping[str, Any], *, name: str) -> None:
    """Raises UserError if a model takes other channels or another file ending than the dataset `name`."""
    ours, theirs = channel_names(model), channel_names(dataset)
    if ours != theirs:
        raise UserError(
            f"The model takes {counted(len(ours), 'channel')} ({', '.join(ours)}), but {name} has {len(theirs)} "
            f"({', '.join(theirs)}). Number and names must be equal."
        )
    if model["file_ending"] != dataset["file_ending"]:
        raise UserError(
            f"The model takes images ending in {model['file_ending']}, but those of {name} end in "
            f"{dataset['file_ending']}. Convert the images."
        )


def load_predictor(model: TrainedModel, *, device: str, mirroring: bool) -> nnUNetPredictor:
    """nnU-Net's predictor with the model in it.

    nnU-Net's own loading would run what is pickled in a checkpoint; here checkpoints are read as data.

    Raises:
        UserError: if a checkpoint is refused, if the model cannot be built, or if it needs the predictions of another
            one.
    """
    files = list(model.checkpoints().values())
    checkpoints = [read_checkpoint(file) for file in files]
    trainer_name, configuration = training_of(checkpoints[0], files[0])
    description = ModelDescription(model.plans, configuration, model.dataset_json)
    check_can_predict(description, file=model.folder / "plans.json")
    weights = [checkpoint["network_weights"] for checkpoint in checkpoints]
    plans_manager = PlansManager(dict(model.plans))
    try:
        with redirect_stdout(io.StringIO()):  # where nnU-Net tells how it searches for the trainer
            network = build_network(find_trainer(trainer_name), description, deep_supervision=False)
            network.load_state_dict(weights[0])
    except RuntimeError as error:
        raise UserError(f"The model in {model.folder} cannot be loaded: {error}") from error
    predictor = Predictor(
        use_mirroring=mirroring,
        perform_everything_on_device=device == "cuda",
        device=torch.device(device),
        allow_tqdm=sys.stderr.isatty(),
    )
    predictor.manual_initialization(
        network,
        plans_manager,
        plans_manager.get_configuration(configuration),
        weights,
        dict(model.dataset_json),
        trainer_name,
        checkpoints[0].get("inference_allowed_mirroring_axes"),
    )
    if (previous := predictor.configuration_manager.previous_stage_name) is not None:
        raise UserError(
            f"{model.folder.name} is the second stage of a cascade, which needs the predictions of {previous}. Predict "
            "with nnUNetv2_predict -prev_stage_predictions. Then score the predictions: nnunet_ext evaluate "
            "--predictions FOLDER --labels FOLDER -o OUT."
        )
    return predictor


def check_can_predict(model: ModelDescription, *, file: Path) -> None:
    """Raise a UserError if a model's plans, which are in a file, lack what nnU-Net needs to predict."""
    require(model.plans, ("plans_name", "dataset_name", "image_reader_writer", *TRANSPOSED), where=file)
    check_configuration(model.plans, model.configuration, file=file)
    model.architecture()
    content = PlansManager(dict(model.plans)).get_configuration(model.configuration).configuration
    require(content, NEEDED, where=f"Configuration {model.configuration!r} in {file}")


def predict_missing(
    predictor: nnUNetPredictor,
    cases: CaseSet,
    folder: Path,
    *,
    log: Path,
    few_cores: bool,
    labels: Sequence[str] = (),
    thresholds: Sequence[float] = (),
) -> None:
    """Predict the cases that have no prediction yet, or of which it is not known which thresholds they reach.

    Predictions are made in a folder beside and moved when they are whole, so that a cut-off file is never taken for a
    prediction, and a run that was interrupted goes on where it was.

    Args:
        folder: existing folder for the predictions, ``<case>.<ending>``.
        log: file that gets what nnU-Net prints.
        few_cores: predict one case after the other in this process. Starting nnU-Net's processes costs more than they
            save where few cores are there to share.
        labels: names of those whose probabilities are compared with the thresholds.
        thresholds: what to keep of the probabilities, in the files of `thresholds_file`. Then one case is predicted
            after the other, as probabilities take much memory, and predictions that are there stay as they are.
    """
    ending = predictor.dataset_json["file_ending"]
    known = {name: known_thresholds(thresholds_file(folder, name), labels) for name in cases.cases if thresholds}
    missing = [
        name
        for name in cases.cases
        if not _is_whole(folder / f"{name}{ending}") or not set(thresholds) <= set(known.get(name, ()))
    ]
    size = 1 if few_cores or thresholds else BATCH
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    for start in range(0, len(missing), size):
        names = missing[start : start + size]
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        done = len(cases.cases) - len(missing) + start + len(names)
        print(f"[{done}/{len(cases.cases)}] {cases.name}: {names[-1]}", flush=True)
        images = [[str(file) for file in cases.cases[name].images] for name in names]
        targets = [str(unfinished / name) for name in names]
        readable = unreadable_images_named(predictor, [cases.cases[name].images for name in names])
        with log.open("a", encoding="utf-8") as output, redirect_stdout(output), readable:
            if thresholds:
                wanted = sorted({*known[names[0]], *thresholds})
                reached = _predict_thresholds(predictor, cases.cases[names[0]], Path(targets[0]), labels, wanted)
                write_thresholds(thresholds_file(folder, names[0]), reached)
            elif few_cores:
                predictor.predict_from_files_sequential(images, targets)
            else:
                processes = {"num_processes_preprocessing": PROCESSES, "num_processes_segmentation_export": PROCESSES}
                predictor.predict_from_files(images, targets, **processes)
        for name in names:
            keep_prediction(unfinished, folder, name, ending)
    shutil.rmtree(unfinished, ignore_errors=True)


def keep_prediction(unfinished: Path, folder: Path, name: str, ending: str) -> None:
    """Move a prediction that is whole, with what belongs to it: TIFF keeps its spacing in a file beside it."""
    made = unfinished / f"{name}{ending}"
    if not _is_whole(made):
        raise OSError(errno.ENOSPC, "it could not be written to its end", str(folder / made.name))
    if _is_whole(folder / made.name):
        return
    if (spacing := unfinished / f"{name}.json").is_file():
        spacing.replace(folder / spacing.name)
    made.replace(folder / made.name)


def _is_whole(file: Path) -> bool:
    if not file.is_file():
        return False
    try:
        check_whole(file)
    except UserError:
        return False
    return True


def _predict_thresholds(
    predictor: nnUNetPredictor, case: Case, target: Path, labels: Sequence[str], thresholds: Sequence[float]
) -> ReachedThresholds:
    """Predict a case, write nnU-Net's decision to `target`, which lacks its ending, and compare the probabilities."""
    segmentation, probabilities = predict_case(predictor, case.images)
    reader = predictor.plans_manager.image_reader_writer_class()
    _, properties = read_images(reader, case)
    reader.write_seg(segmentation, f"{target}{predictor.dataset_json['file_ending']}", properties)
    return reached_thresholds(probabilities, label_channels(predictor.dataset_json, labels), thresholds)


def request(model: TrainedModel, case_sets: Sequence[CaseSet], *, mirroring: bool) -> dict[str, Any]:
    """What decides the predictions, to tell whether those in a folder are the ones that are asked for.

    Checkpoints and images count with their sizes and times, so that predictions of a model that was trained further, or
    of images that were replaced, are not taken for the ones that are asked for.
    """
    files = {cases.name: {name: case.images for name, case in cases.cases.items()} for cases in case_sets}
    return {
        "model": str(model.folder.resolve()),
        "folds": list(model.folds),
        "checkpoint": model.checkpoint,
        "states of the checkpoints": [size_and_time(file) for file in model.checkpoints().values()],
        "mirroring": mirroring,
        "cases": {name: list(images) for name, images in files.items()},
        "states of the images": {
            name: {case: [size_and_time(file) for file in images] for case, images in by_case.items()}
            for name, by_case in files.items()
        },
    }
