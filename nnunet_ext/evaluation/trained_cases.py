"""Which cases a model has trained on: scores on these say nothing."""

from collections.abc import Mapping

from nnunet_ext.checkpoints.trained_model import TrainedModel
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import CaseSet
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.splits import check_has_folds, read_splits
from nnunet_ext.messages import some
from nnunet_ext.nnunet_folders import preprocessed_folder
from nnunet_ext.nnunet_names import SPLITS
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset, read_raw_dataset
from nnunet_ext.preprocessing.raw.same_images import same_images


def training_cases_of(labelled: RawDataset, fold: int | str) -> list[str]:
    """The cases that a fold of a dataset trains on; a UserError if there is no such fold."""
    if fold == "all":
        return list(labelled.cases)
    file = preprocessed_folder(labelled.folder.name) / SPLITS
    folds = read_splits(file)
    check_has_folds(folds, [int(fold)], file=file, advice="Give a fold that is there, or all.")
    if unknown := [name for name in folds[int(fold)]["train"] if name not in labelled.cases]:
        raise UserError(f"Fold {fold} of {file} names cases that {labelled.folder.name} does not have: {some(unknown)}")
    return folds[int(fold)]["train"]


def cases_of_model(model: TrainedModel) -> Mapping[str, Case] | None:
    """The cases that a model has trained on, by its plans and their folds; None if these are not to be found."""
    try:
        dataset = read_raw_dataset(model.trained_on)
        names = {name for fold in model.folds for name in training_cases_of(dataset, fold)}
    except UserError:
        return None
    channels = len(channel_names(dataset.description))
    return {name: dataset.cases[name] for name in names if dataset.cases[name].has_channels(channels)}


def check_not_trained_on(model: TrainedModel, cases: CaseSet) -> list[str]:
    """Raise a UserError if a model has trained on validation cases of another dataset than its own.

    The fold of a model is one of its own dataset, and the fold of that number in another one has other cases. Cases are
    told by their first images, as a merged dataset has them under other names; by name where an image is missing.

    Returns:
        What is not known, as sentences.
    """
    if cases.selection != "val" or cases.dataset == model.trained_on:
        return []
    where, trained = f"{cases.dataset}:{cases.selection}", cases_of_model(model)
    if trained is None:
        return [
            f"Whether the model has trained on cases of {where} is not known: {model.trained_on} or its folds are not "
            "here."
        ]
    there = {name: case for name, case in trained.items() if case.images[0].is_file()}
    by_name = {name: name for name in cases.cases if name in trained}
    seen = {name: name for name in by_name if name not in there} | same_images(cases.cases, there)
    if seen:
        shown = some([ours if ours == theirs else f"{ours} (there {theirs})" for ours, theirs in sorted(seen.items())])
        raise UserError(
            f"{model.folder} has trained on {len(seen)} of the {len(cases.cases)} cases of {where}: {shown}. Its fold "
            f"{model.folds[0]} is one of {model.trained_on}, which has other folds. Choose cases that it has not seen, "
            f"such as {cases.dataset}:test or {model.trained_on}:val."
        )
    if by_name:
        return [
            f"Of {where}, {some(sorted(by_name))}: the model has trained on cases of that name in {model.trained_on}, "
            "with other images. If these are the same patients, the scores are too good."
        ]
    return []
