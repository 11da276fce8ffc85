"""Can a trainer train a configuration of a plans file? What would stop or mislead it is found before it starts."""

import glob
import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import nn

from nnunet_ext.checkpoints.adaptation import adapt
from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.networks import build_network
from nnunet_ext.checkpoints.sources import read_source
from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding
from nnunet_ext.formats.annotated_labels import annotated_labels
from nnunet_ext.formats.dataset_json import channel_names, read_dataset_json
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import counted, some
from nnunet_ext.nnunet_folders import dataset_number
from nnunet_ext.nnunet_names import EPOCHS
from nnunet_ext.plans.plans_file import read_plans, vanished_configurations
from nnunet_ext.plans.settings import Settings
from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset
from nnunet_ext.techniques.fine_tuning import FINE_TUNING, FineTuningSettings
from nnunet_ext.techniques.mixup import MIXUP
from nnunet_ext.techniques.partial_labels import PARTIAL_LABELS, without_prediction

RAMPED = ("pseudo_label_weight", "uspc_weight", "mpcc_weight")  # settings that rise over ``ramp_epochs``
DECISIVE = ("labels", "regions_class_order", "channel_names", KEY)  # in dataset.json


def check_planned_training(
    trainer: Any, raw: RawDataset, preprocessed: Path, *, plans_name: str, configuration: str
) -> Iterator[Finding]:
    """What would stop or mislead a training; after a problem with plans or settings nothing more is looked at."""
    file = preprocessed / f"{plans_name}.json"
    plans_finding = check_plans(file, configuration)
    yield plans_finding
    if plans_finding.severity == "problem":
        return
    model = ModelDescription(read_plans(file), configuration, read_dataset_json(preprocessed / "dataset.json"))
    try:
        settings: Settings = trainer.planned_settings(model.plans, configuration)
        trainer.resolved_plans(dict(model.plans), configuration, model.dataset_json)
        trainer.refuse_unsupported(dict(model.plans), configuration, dict(model.dataset_json))
    except (UserError, NotImplementedError) as error:
        yield Finding("problem", "settings", " ".join(str(error).split()))
        return
    yield check_settings(settings, trainer)
    yield from check_libraries(trainer)
    yield from check_normalization(model)
    yield check_preprocessed(preprocessed, model, raw)
    yield from check_previous_stage(trainer, model, raw, settings)
    if FINE_TUNING in trainer.techniques:
        yield from check_fine_tuning(trainer, model, settings)
    if MIXUP in trainer.techniques:
        yield check_batch(model)


def check_plans(file: Path, configuration: str) -> Finding:
    """Is the configuration in the plans file?"""
    try:
        configurations = read_plans(file)["configurations"]
        vanished = vanished_configurations(file)
    except UserError as error:
        number = dataset_number(file.parent.name)
        return Finding("problem", "plans", str(error), f"nnUNetv2_plan_and_preprocess -d {number}")
    if configuration in configurations:
        return Finding("ok", "plans", f"{file.name} has the configuration {configuration}.")
    detail = f"{file} has no configuration {configuration!r}; it has: {', '.join(configurations)}."
    if configuration in vanished:
        detail = f"the configuration {configuration} was in {file} and has gone, as when other plans are moved there."
    return Finding("problem", "plans", detail, vanished.get(configuration, ""))


def check_settings(settings: Settings, trainer: Any) -> Finding:
    """Which settings a training would have, and whether its length fits them."""
    epochs = settings.num_epochs or EPOCHS
    sections = [technique.name for technique in trainer.techniques if technique.settings]
    for section in sections:
        values = getattr(settings, section)
        ramp, has_weight = getattr(values, "ramp_epochs", None), any(getattr(values, name, 0) for name in RAMPED)
        if ramp is not None and ramp > epochs and has_weight:
            detail = f"{section}.ramp_epochs is {ramp} and the training has {epochs} epochs: the terms that rise with "
            return Finding("warning", "settings", f"{detail}it never reach their weight. Set one of the two anew.")
    chosen = settings.model_dump(mode="json", exclude_unset=True)
    listed = ", ".join(f"{key} {value}" for key, value in flat(chosen, sections=sections))
    return Finding("ok", "settings", f"{counted(epochs, 'epoch')}{'; ' * bool(listed)}{listed}.")


def check_libraries(trainer: Any) -> Iterator[Finding]:
    """Are the optional libraries there that the trainer needs?"""
    for name in trainer.libraries:
        if find_spec(name) is None:
            detail = f"{trainer.__name__} needs this library, which is not installed."
            yield Finding("problem", name, detail, f"pip install -U {name}")


def flat(settings: Mapping[str, Any], *, sections: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Settings with the names that ``nnunet_ext configure`` takes; those of other techniques left out."""
    for key, value in settings.items():
        if key in sections:
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        elif key != "num_epochs" and not isinstance(value, Mapping):
            yield key, value


def check_normalization(model: ModelDescription) -> Iterator[Finding]:
    """Does the configuration have a normalisation for each channel of the dataset?"""
    manager = PlansManager(dict(model.plans))
    schemes = manager.get_configuration(model.configuration).normalization_schemes
    channels = channel_names(model.dataset_json)
    if len(schemes) != len(channels):
        number = dataset_number(manager.dataset_name)
        detail = f"{model.configuration} has {counted(len(schemes), 'normalisation')} for "
        detail += f"{counted(len(channels), 'channel')} ({', '.join(channels)}), as plans have that were copied from "
        detail += "another dataset. nnUNetv2_preprocess would stop. Make a configuration of the source's network that "
        detail += "goes by the channels' names."
        fix = f"nnunet_ext plan --like SOURCE.pth -d {number} --new-plans {manager.plans_name}_like"
        yield Finding("problem", "normalisation", detail, fix)


def check_preprocessed(preprocessed: Path, model: ModelDescription, raw: RawDataset) -> Finding:
    """Is every case of the raw dataset preprocessed, and for the labels and channels of today?"""
    changed = [key for key in DECISIVE if raw.description.get(key) != model.dataset_json.get(key)]
    if changed:
        detail = f"{' and '.join(changed)} in the dataset.json of {raw.folder} differ from those in {preprocessed}."
        fix = f"nnUNetv2_plan_and_preprocess -d {dataset_number(raw.folder.name)} --clean"
        return Finding("problem", "preprocessed", detail, fix)
    plans_manager = PlansManager(dict(model.plans))
    folder = preprocessed / plans_manager.get_configuration(model.configuration).data_identifier
    done = {path.stem for path in folder.glob("*.pkl")}
    missing = [case for case in raw.cases if case not in done]
    if missing:
        detail = f"{len(missing)} of {len(raw.cases)} cases are not in {folder}: {some(missing)}."
        command = ["nnUNetv2_preprocess", "-d", dataset_number(raw.folder.name)]
        command += ["-plans_name", str(model.plans["plans_name"]), "-c", model.configuration]
        return Finding("problem", "preprocessed", detail, shlex.join(command))
    return Finding("ok", "preprocessed", f"all {len(raw.cases)} cases are in {folder.name}.")


def check_previous_stage(
    trainer: Any, model: ModelDescription, raw: RawDataset, settings: Settings
) -> Iterator[Finding]:
    """Are the predictions of the first stage of a cascade there, which the second one is trained on?"""
    manager = PlansManager(dict(model.plans))
    stage = manager.get_configuration(model.configuration).previous_stage_name
    if stage is None:
        return
    results, number = os.environ.get("nnUNet_results"), dataset_number(raw.folder.name)
    name = f"{trainer.__name__}__{manager.plans_name}__{stage}"
    folder = Path(results or "nnUNet_results", manager.dataset_name, name, "predicted_next_stage", model.configuration)
    unlabelled = unlabelled_cases(trainer, model, raw)
    left_out = set() if not unlabelled or trainer.learns_from_unlabelled(settings) else unlabelled
    needed = [case for case in raw.cases if case not in left_out]
    missing = [case for case in needed if not any(folder.glob(f"{glob.escape(case)}.*"))]
    if not missing:
        yield Finding("ok", "previous stage", f"all cases {'that are learned from ' * bool(left_out)}are in {folder}.")
        return
    if unlabelled.issuperset(missing):
        fold, detail = "all", without_prediction(missing, stage)
    else:
        fold, detail = "0", f"{len(missing)} of {len(needed)} cases are not in {folder}: {some(missing)}."
        detail += f" Train every fold of {stage} first."
    command = ["nnUNetv2_train", number, stage, fold, "-tr", trainer.__name__, "-p", manager.plans_name]
    yield Finding("problem", "previous stage", detail, shlex.join(command))


def unlabelled_cases(trainer: Any, model: ModelDescription, raw: RawDataset) -> set[str]:
    """The cases that a trainer knows to be annotated for nothing."""
    if PARTIAL_LABELS not in trainer.techniques:
        return set()
    annotated = annotated_labels(model.dataset_json)
    return {case for case in raw.cases if annotated.lists.get(case, annotated.default) == ()}


def check_fine_tuning(trainer: Any, model: ModelDescription, settings: Settings) -> Iterator[Finding]:
    """Can the network be fine-tuned in the trainer's way, and does what it starts from fit?"""
    network = build_network(trainer, model, deep_supervision=True)
    try:
        freedoms = trainer.strategy(network)
    except ValueError as error:
        yield Finding("problem", "network", f"{trainer.__name__} cannot fine-tune it: {error}")
        return
    counts = Counter(freedom.value for freedom in freedoms.values()).items()
    moves = ", ".join(f"{count} tensors: {name}" for name, count in counts)
    yield Finding("ok", "network", f"what may move: {moves}.")
    yield check_start(trainer, network, model, settings.section(FINE_TUNING))


def check_start(trainer: Any, network: nn.Module, model: ModelDescription, settings: FineTuningSettings) -> Finding:
    """Does the checkpoint fit that a fine-tuning starts from?"""
    source = settings.source_file
    if source is None:
        detail = "fine_tuning.source is not set: nnUNetv2_train needs -pretrained_weights CHECKPOINT.pth, which leaves "
        detail += "the heads random. To keep them, name the checkpoint in the setting."
        if settings.allow_random_start:
            detail = "no model to start from: a training from random weights, as is allowed."
        return Finding("warning", "source", detail)
    try:
        adaptation = adapt(read_source(source).checkpoint, network, model, keep_heads=settings.keep_heads)
        trainer.refuse_random_weights(trainer.needed_of_source(network), adaptation.known)
    except UserError as error:
        return Finding("problem", "source", " ".join(str(error).split()))
    here = Path.cwd()
    shown = source.relative_to(here) if source.is_relative_to(here) else source
    return Finding("ok", "source", f"{shown} fits. {adaptation.table().splitlines()[-1]}")


def check_batch(model: ModelDescription) -> Finding:
    """Does a patch have another one to be mixed with?"""
    size = PlansManager(dict(model.plans)).get_configuration(model.configuration).batch_size
    if size < 2:
        detail = "the batch has one patch, which has no partner to mix with: the training would be one without MixUp."
        return Finding("problem", "batch", f"{detail} Set batch_size in a configuration of your own to at least 2.")
    return Finding("ok", "batch", f"{size} patches; with DDP each process needs two of its own.")
