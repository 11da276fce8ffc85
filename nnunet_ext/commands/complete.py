"""Label the instances that nobody annotated by a trained model, as a new raw dataset.

Annotated voxels stay as they are. What the model predicts elsewhere is added, in connected regions of at least
--min-voxels; a region that overlaps or touches an annotated instance is not, for it would only thicken it. With
--uncertain, un-annotated voxels whose foreground probability is at least LOW become the ignore label unless they are
added, which then takes HIGH. The images stay where they are. A run that was interrupted goes on if the same is asked
again. completion.json in the new dataset counts by case and label what was added. Example:

    nnunet_ext complete MODEL_FOLDER -d 5 -o Dataset006_Completed --min-voxels 20
    nnunet_ext complete MODEL_FOLDER -d 5 -o Dataset007_Completed -f 0 1 2 3 4 --out-of-fold --uncertain 0.3 0.7
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.arguments import add_new_dataset_options, fold_name, positive
from nnunet_ext.checkpoints.trained_model import TrainedModel, find_trained_model
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.text_table import aligned
from nnunet_ext.files import sha256, size_and_time, write_json
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.messages import next_steps, size, some
from nnunet_ext.plans.plans_file import preprocessed_folder, raw_folder
from nnunet_ext.registration import register
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    from nnunet_ext.preprocessing.pseudo_labels.completion import LabelCounts, Rules
    from nnunet_ext.preprocessing.raw.raw_dataset import RawDataset

RECORD = "completion.json"

CaseFolds = Mapping[str, Sequence[int | str]]
"""The folds of the model that predict each case."""

Counts = Mapping[str, Mapping[str, "LabelCounts"]]
"""What became of each label, by case and by the label's name."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="nnU-Net's TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the raw dataset to complete")
    add_new_dataset_options(parser)
    folds = "folds of the model; several are an ensemble (default: 0)"
    parser.add_argument("-f", "--folds", type=fold_name, nargs="+", default=[0], metavar="FOLD", help=folds)
    parser.add_argument(
        "--out-of-fold",
        action="store_true",
        help="predict each case by those of the folds that have not trained on it: a fold has learned that the "
        "un-annotated instances of its own cases are background",
    )
    parser.add_argument("--checkpoint", default="checkpoint_final.pth", help="file in each fold (default: %(default)s)")
    threshold = "probability of foreground from which a voxel is predicted (default: %(default)s)"
    parser.add_argument("--threshold", type=float, default=0.5, metavar="P", help=threshold)
    parser.add_argument(
        "--uncertain",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="un-annotated voxels from a probability of LOW on become ignore; only those from HIGH on can be added. "
        "LOW <= P <= HIGH",
    )
    smallest = "minimum instance size in voxels (default: %(default)s)"
    parser.add_argument("--min-voxels", type=positive, default=1, metavar="N", help=smallest)
    devices = ("auto", "cpu", "cuda", "mps")
    parser.add_argument("--device", choices=devices, default="auto", help="device to predict on (default: %(default)s)")
    parser.add_argument("--disable-tta", action="store_true", help="predict without mirroring: faster, less accurate")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.evaluation import model_evaluation
    from nnunet_ext.evaluation.machine import choose_device
    from nnunet_ext.preprocessing.pseudo_labels.completion import Rules
    from nnunet_ext.preprocessing.raw.new_dataset import check_new_name, copy_splits, new_dataset, write_description
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.simulate.weaker_dataset import DENSE, INSTANCES

    register()
    rules = Rules(args.threshold, tuple(args.uncertain) if args.uncertain else None, args.min_voxels)
    source = read_raw_dataset(args.dataset)
    if args.output == source.folder.name:
        raise UserError(f"{args.output} is the dataset that is to be completed. Choose another name for the new one.")
    check_new_name(args.output, force=args.force)
    device = choose_device(args.device)
    model = find_trained_model(args.model, list(dict.fromkeys(args.folds)), checkpoint=args.checkpoint)
    check_source(source, model)
    folds = folds_of_cases(source, model, out_of_fold=args.out_of_fold)
    mirroring = not args.disable_tta
    predictor = model_evaluation.load_predictor(model, device=device, mirroring=mirroring)
    weights = dict(zip(model.folds, predictor.list_of_parameters))
    labels = dict(source.description["labels"])
    if rules.uncertain is not None and source.ignore_label is None:
        labels["ignore"] = max(source.foreground_values().values()) + 1  # nnU-Net wants it behind all others

    # what decides the new labels, beside the files of the cases: with the same, interrupted work goes on
    common = {"version": __version__, **asdict(rules)}
    request = {
        **common,
        "model": str(model.folder.resolve()),
        "checkpoint": model.checkpoint,
        "states of the checkpoints": [size_and_time(file) for file in model.checkpoints().values()],
        "mirroring": mirroring,
        "dataset": str(source.folder.resolve()),
        "labels": source.description["labels"],
        "folds of the cases": {case: list(chosen) for case, chosen in folds.items()},
    }
    with new_dataset(args.output, force=args.force, request=request) as folder:
        counts = complete_cases(source, predictor, folds, weights, rules, folder=folder, ignore=labels.get("ignore"))
        about = {
            "made_by": "complete",
            **common,
            "completed_from": source.folder.name,
            "model": {
                "folder": model.folder.resolve().name,
                "trained_on": trained_on(model),
                "folds": list(model.folds),
                "out_of_fold": args.out_of_fold,
                "checkpoint": model.checkpoint,
                "sha256": {str(fold): sha256(file) for fold, file in model.checkpoints().items()},
                "mirroring": mirroring,
                "nnunetv2": metadata.version("nnunetv2"),
            },
        }
        write_json(folder / RECORD, {**about, "total": totals(counts), "cases": counts}, default=asdict)
        write_description(folder, args.output, source.cases, {**source.description, "labels": labels}, about=about)
        copy_splits(source, folder)
        for name in (DENSE, INSTANCES):  # what a simulated annotation was made from, to compare the new labels with
            if (source.folder / name).is_dir():
                # contents alone: the source may be read-only
                shutil.copytree(source.folder / name, folder / name, copy_function=shutil.copyfile, dirs_exist_ok=True)
                (folder / name).chmod(0o755)

    print_outcome(args.output, counts)
    if not args.out_of_fold and trained_on(model) == source.folder.name:
        print(
            "The folds may have trained on the cases that they completed, with what is un-annotated there as "
            "background. With all folds trained, -f 0 1 2 3 4 --out-of-fold avoids that."
        )
    print(next_steps(args.output))
    return 0


def trained_on(model: TrainedModel) -> str:
    """The dataset that a model was trained on, by nnU-Net's own layout of results."""
    return model.folder.resolve().parent.name


def check_source(source: RawDataset, model: TrainedModel) -> None:
    """Raise a UserError unless the model fits the dataset, and the dataset's files are there, before any prediction."""
    from nnunet_ext.evaluation.model_evaluation import check_inputs
    from nnunet_ext.evaluation.scored_labels import match_labels

    name, values = source.folder.name, sorted(source.foreground_values().values())
    check_inputs(model.dataset_json, source.description, name=name)
    matched = match_labels(model.dataset_json, source.description, name=name)
    if matched.only_model or matched.only_dataset:
        raise UserError(
            f"The labels of the model and of {name} differ: only the model has {some(matched.only_model) or 'none'}; "
            f"only the dataset has {some(matched.only_dataset) or 'none'}. To complete a dataset both need the same."
        )
    if values != list(range(1, len(values) + 1)):
        raise UserError(f"The labels of {name} have the values {some(values)}, not 1, 2, 3, …")
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
                f"{missing[0]} of case {case} of {name} does not exist. A case that nobody annotated needs an empty "
                "label map."
            )


def folds_of_cases(source: RawDataset, model: TrainedModel, *, out_of_fold: bool) -> CaseFolds:
    """The folds that predict each case: all, or those that have not trained on it; a UserError if there are none."""
    from nnunet_ext.evaluation.probabilities import folds_that_have_not_seen
    from nnunet_ext.preprocessing.raw.splits import SPLITS, read_splits

    if not out_of_fold:
        return dict.fromkeys(source.cases, model.folds)
    if trained_on(model) != source.folder.name:
        raise UserError(
            f"{model.folder} was trained on {trained_on(model)}, and not on {source.folder.name}, so that no fold of "
            "it has trained on the cases. Leave --out-of-fold out."
        )
    file = preprocessed_folder(source.folder.name) / SPLITS
    return folds_that_have_not_seen(source.cases, read_splits(file), model.folds, file=file)


def complete_cases(
    source: RawDataset,
    predictor: Any,
    folds: CaseFolds,
    weights: Mapping[int | str, Any],
    rules: Rules,
    *,
    folder: Path,
    ignore: int | None,
) -> Counts:
    """Write the completed label map of each case to labelsTr, but for those that an interrupted run has finished."""
    from nnunet_ext.evaluation.probabilities import predict_probabilities
    from nnunet_ext.formats.whole_images import check_whole
    from nnunet_ext.preprocessing.pseudo_labels.completion import LabelCounts, completed_labels
    from nnunet_ext.preprocessing.raw.new_dataset import CaseProgress
    from nnunet_ext.preprocessing.raw.raw_dataset import check_values, read_label_map

    names = {value: name for name, value in source.foreground_values().items()}
    reader, progress = source.reader_writer(), CaseProgress(folder)
    (folder / "labelsTr").mkdir(exist_ok=True)
    counts = {}
    for number, (name, case) in enumerate(source.cases.items(), start=1):
        position = f"[{number}/{len(source.cases)}] {name}"
        state = [size_and_time(file) for file in (*case.images, case.label)]
        if done := progress.result(name, state):
            counts[name] = {label: LabelCounts(**found) for label, found in done.items()}
            print(f"{position}: done before", flush=True)
            continue
        labels, properties = read_label_map(reader, case.label)
        check_values(labels, source.known_values, file=case.label)
        probabilities = predict_probabilities(predictor, case.images, [weights[fold] for fold in folds[name]])
        if probabilities.shape[1:] != labels.shape:
            raise UserError(
                f"{case.label} has {size(labels.shape)} voxels, but its image has {size(probabilities.shape[1:])}. "
                "Fix or replace the file."
            )
        completed, found = completed_labels(labels, probabilities, foreground=sorted(names), ignore=ignore, rules=rules)
        counts[name] = {names[value]: count for value, count in found.items()}
        new = folder / "labelsTr" / f"{name}{source.ending}"
        reader.write_seg(completed, str(new), properties)
        check_whole(new)
        progress.keep(name, state, {label: asdict(count) for label, count in counts[name].items()})
        total = sum(counts[name].values(), LabelCounts())
        print(
            f"{position}: {total.annotated_instances} annotated, {total.added_instances} added"
            + (f", {total.ignored_voxels} voxels ignored" if rules.uncertain else ""),
            flush=True,
        )
    progress.close()
    return counts


def totals(counts: Counts) -> dict[str, LabelCounts]:
    """The counts of all cases together, by the label's name."""
    first, *others = counts.values()
    return {label: sum((found[label] for found in others), count) for label, count in first.items()}


def print_outcome(output: str, counts: Counts) -> None:
    """Show what was added to which label, and what it is worth."""
    columns = ("annotated_instances", "found_instances", "added_instances", "small_instances", "ignored_voxels")
    rows = {name: attrgetter(*columns)(count) for name, count in totals(counts).items()}
    heads = ["instances", "annotated", "found again", "added", "too small", "ignored voxels"]
    table = aligned([heads, *([name, *map(str, numbers)] for name, numbers in rows.items())])
    print(f"\n{table}\n\nWrote {raw_folder(output)}")
    if not any(added for _, _, added, _, _ in rows.values()):
        print("Nothing was added. A lower --threshold (with --uncertain, a lower HIGH) adds more.")
    print("What was added are guesses of a model: look at them before you train on them, above all if there are many.")
