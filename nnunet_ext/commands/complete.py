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
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.arguments import fold_name, positive
from nnunet_ext.errors import UserError
from nnunet_ext.files import sha256
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    from nnunet_ext.checkpoints.trained_model import TrainedModel
    from nnunet_ext.preprocessing.pseudo_labels.completion import LabelCounts, Rules
    from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset

RECORD = "completion.json"
PROGRESS = ".progress.json"

CaseFolds = Mapping[str, Sequence[int | str]]
"""The folds of the model that predict each case."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="nnU-Net's TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the raw dataset to complete")
    parser.add_argument("-o", "--output", required=True, metavar="DatasetXXX_Name", help="raw dataset to write")
    parser.add_argument(
        "-f",
        "--folds",
        type=fold_name,
        nargs="+",
        default=[0],
        metavar="FOLD",
        help="of the model; several are an ensemble (default: 0)",
    )
    parser.add_argument(
        "--out-of-fold",
        action="store_true",
        help="predict each case by those of the folds that have not trained on it: a fold has learned that the "
        "un-annotated instances of its own cases are background",
    )
    parser.add_argument("--checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.5,
        metavar="P",
        help="probability of foreground from which a voxel is predicted (default: %(default)s)",
    )
    parser.add_argument(
        "--uncertain",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="un-annotated voxels from LOW on become ignore, those from HIGH on can be added; LOW <= P <= HIGH",
    )
    parser.add_argument(
        "--min-voxels",
        type=positive,
        default=1,
        metavar="N",
        help="minimum instance size in voxels (default: %(default)s)",
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: %(default)s")
    parser.add_argument("--disable-tta", action="store_true", help="predict without mirroring: faster, less accurate")
    parser.add_argument("--force", action="store_true", help="replace the new dataset, if this package made it")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.checkpoints.trained_model import find_trained_model
    from nnunet_ext.evaluation import model_evaluation
    from nnunet_ext.evaluation.machine import choose_device
    from nnunet_ext.files import write_json
    from nnunet_ext.preprocessing.pseudo_labels.completion import Rules
    from nnunet_ext.preprocessing.raw.new_dataset import check_new_name, copy_splits, new_dataset, write_description
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.registration import register

    register()
    rules = Rules(args.threshold, tuple(args.uncertain) if args.uncertain else None, args.min_voxels)
    check_new_name(args.output, force=args.force)
    device = choose_device(args.device)
    model = find_trained_model(args.model, list(dict.fromkeys(args.folds)), checkpoint=args.checkpoint)
    source = read_raw_dataset(args.dataset)
    check_source(source, model, output=args.output)
    folds = folds_of_cases(source, model, out_of_fold=args.out_of_fold)
    mirroring = not args.disable_tta
    predictor = model_evaluation.load_predictor(model, device=device, mirroring=mirroring)
    weights = dict(zip(model.folds, predictor.list_of_parameters))
    labels = dict(source.description["labels"])
    if rules.uncertain is not None and source.ignore_label is None:
        labels["ignore"] = max(source.foreground_values().values()) + 1  # nnU-Net wants it behind all others

    request = asked(model, source, folds, rules, mirroring=mirroring)
    with new_dataset(args.output, force=args.force, request=request) as folder:
        counts = complete_cases(source, predictor, folds, weights, rules, folder=folder, ignore=labels.get("ignore"))
        about = {
            "made_by": "complete",
            "version": __version__,
            "completed_from": source.folder.name,
            "model": model_record(model, out_of_fold=args.out_of_fold, mirroring=mirroring),
            "threshold": rules.threshold,
            "uncertain": rules.uncertain,
            "min_voxels": rules.min_voxels,
        }
        write_json(folder / RECORD, {**about, **counts_record(counts, source.foreground_values())})
        write_description(folder, args.output, source.cases, {**source.description, "labels": labels}, about=about)
        copy_splits(source, folder)
        copy_references(source, folder)
        (folder / PROGRESS).unlink()

    in_fold = not args.out_of_fold and trained_on(model) == source.folder.name
    print_outcome(args.output, counts, source.foreground_values(), in_fold=in_fold)
    return 0


def copy_references(source: RawDataset, folder: Path) -> None:
    """Keep what a simulated partial annotation was made from beside the new labels, to measure them against."""
    from nnunet_ext.preprocessing.simulate.partial_annotation import DENSE, INSTANCES

    for name in (DENSE, INSTANCES):
        if (source.folder / name).is_dir():
            (folder / name).mkdir(exist_ok=True)
            for file in sorted((source.folder / name).iterdir()):
                shutil.copyfile(file, folder / name / file.name)  # its content alone: the source may be read-only


def trained_on(model: TrainedModel) -> str:
    """The dataset that a model was trained on, by nnU-Net's own layout of results."""
    return model.folder.resolve().parent.name


def check_source(source: RawDataset, model: TrainedModel, *, output: str) -> None:
    """See that the model fits the dataset, and that the dataset's files are there, before any prediction.

    Raises:
        UserError: if not.
    """
    from nnunet_ext.evaluation.case_sets import channel_names
    from nnunet_ext.evaluation.model_evaluation import check_inputs, match_labels
    from nnunet_ext.files import read_json

    name = source.folder.name
    if output == name:
        raise UserError(f"{output} is the dataset that is to be completed. Choose another name for the new one.")
    values = source.foreground_values()
    check_inputs(model.dataset_json, source.description, name=name)
    matched = match_labels(model.dataset_json, source.description, name=name)
    if matched.only_model or matched.only_dataset:
        raise UserError(
            f"The labels of the model and of {name} differ: only the model has {_listed(matched.only_model)}; only the "
            f"dataset has {_listed(matched.only_dataset)}. To complete a dataset both need the same."
        )
    if sorted(values.values()) != list(range(1, len(values) + 1)):
        raise UserError(f"The labels of {name} have the values {_listed(sorted(values.values()))}, not 1, 2, 3, …")
    ours, theirs = read_json(model.folder / "plans.json")["image_reader_writer"], type(source.reader_writer()).__name__
    if ours != theirs:
        raise UserError(
            f"The model reads images by {ours}, and {name} is read by {theirs}, whose axes may differ. Add "
            f'"overwrite_image_reader_writer": "{ours}" to {source.folder / "dataset.json"} if that reads its files.'
        )
    for case, files in source.cases.items():
        if len(files.images) != len(channel_names(source.description)):
            raise UserError(f"Case {case} of {name} has {len(files.images)} images, which is not one for each channel.")
        missing = [file for file in (*files.images, files.label) if not file.is_file()]
        if missing:
            raise UserError(
                f"{missing[0]} of case {case} of {name} does not exist. A case that nobody annotated needs an empty "
                "label map."
            )


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "none"


def folds_of_cases(source: RawDataset, model: TrainedModel, *, out_of_fold: bool) -> CaseFolds:
    """The folds that predict each case: all, or those that have not trained on it.

    Raises:
        UserError: if there are no such folds, or it is not known.
    """
    from nnunet_ext.evaluation.probabilities import folds_that_have_not_seen
    from nnunet_ext.plans.plans_file import preprocessed_folder
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


def asked(
    model: TrainedModel, source: RawDataset, folds: CaseFolds, rules: Rules, *, mirroring: bool
) -> dict[str, Any]:
    """What decides the new labels, beside the files of the cases, to tell whether interrupted work can go on.

    A checkpoint counts with its size and time, as in `nnunet_ext evaluate`.
    """
    return {
        "version": __version__,
        "model": str(model.folder.resolve()),
        "checkpoint": model.checkpoint,
        "states of the checkpoints": _states(list(model.checkpoints().values())),
        "mirroring": mirroring,
        "dataset": str(source.folder.resolve()),
        "labels": source.description["labels"],
        "folds of the cases": {case: list(chosen) for case, chosen in folds.items()},
        "threshold": rules.threshold,
        "uncertain": rules.uncertain,
        "least size": rules.min_voxels,
    }


def _states(files: Sequence[Path]) -> list[list[int]]:
    states = [file.stat() for file in files]
    return [[state.st_size, state.st_mtime_ns] for state in states]


def complete_cases(
    source: RawDataset,
    predictor: Any,
    folds: CaseFolds,
    weights: Mapping[int | str, Any],
    rules: Rules,
    *,
    folder: Path,
    ignore: int | None,
) -> dict[str, dict[int, LabelCounts]]:
    """Write the completed label map of each case to labelsTr, but for those that an interrupted run has finished.

    Args:
        source: the dataset to complete.
        predictor: nnU-Net's, with the model.
        folds: that predict each case.
        weights: of each fold.
        rules: when a prediction becomes a label.
        folder: of the new dataset.
        ignore: value of the ignore label in the new dataset.

    Returns:
        What was counted, by case and value of the label.
    """
    from dataclasses import asdict

    from nnunet_ext.evaluation.probabilities import predict_probabilities
    from nnunet_ext.files import read_json, write_json
    from nnunet_ext.preprocessing.pseudo_labels.completion import LabelCounts, completed_labels

    foreground = sorted(source.foreground_values().values())
    (folder / "labelsTr").mkdir(exist_ok=True)
    progress = read_json(folder / PROGRESS) if (folder / PROGRESS).is_file() else {}
    counts = {}
    for number, (name, case) in enumerate(source.cases.items(), start=1):
        position = f"[{number}/{len(source.cases)}] {name}"
        state = _states([*case.images, case.label])
        if name in progress and progress[name]["state"] == state:
            counts[name] = {int(value): LabelCounts(**found) for value, found in progress[name]["counts"].items()}
            print(f"{position}: done before", flush=True)
            continue
        labels, properties = source.read_labels(case.label)
        check_values(labels, source, case)
        probabilities = predict_probabilities(predictor, case.images, [weights[fold] for fold in folds[name]])
        if probabilities.shape[1:] != labels.shape:
            raise UserError(
                f"{case.label} has {_size(labels.shape)} voxels, but its image has {_size(probabilities.shape[1:])}. "
                "Mend or replace the file."
            )
        completed, counts[name] = completed_labels(
            labels, probabilities, foreground=foreground, ignore=ignore, rules=rules
        )
        unfinished = folder / f"unfinished{source.ending}"  # moved when it is whole
        source.write_labels(completed, unfinished, properties)
        unfinished.replace(folder / "labelsTr" / f"{name}{source.ending}")
        progress[name] = {"state": state, "counts": {value: asdict(found) for value, found in counts[name].items()}}
        write_json(folder / PROGRESS, progress)
        total = sum(counts[name].values(), LabelCounts())
        print(
            f"{position}: {total.annotated_instances} annotated, {total.added_instances} added"
            + (f", {total.ignored_voxels} voxels ignored" if rules.uncertain else ""),
            flush=True,
        )
    return counts


def check_values(labels: Any, source: RawDataset, case: Case) -> None:
    """See that a label map holds nothing that the dataset does not describe.

    Raises:
        UserError: if it does.
    """
    import numpy as np

    known = {0, *source.foreground_values().values()}
    if source.ignore_label is not None:
        known.add(source.ignore_label)
    unknown = sorted(set(np.unique(labels).tolist()) - known)
    if unknown:
        raise UserError(
            f"{case.label} holds the values {_listed(unknown[:3])}, which {source.folder / 'dataset.json'} does not "
            "name. Mend the label map or add the label."
        )


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def model_record(model: TrainedModel, *, out_of_fold: bool, mirroring: bool) -> dict[str, Any]:
    """Which model predicted, for the new dataset's own files."""
    return {
        "folder": model.folder.resolve().name,
        "trained_on": trained_on(model),
        "folds": list(model.folds),
        "out_of_fold": out_of_fold,
        "checkpoint": model.checkpoint,
        "sha256": {str(fold): sha256(file) for fold, file in model.checkpoints().items()},
        "mirroring": mirroring,
        "nnunetv2": metadata.version("nnunetv2"),
    }


def counts_record(counts: Mapping[str, Mapping[int, LabelCounts]], values: Mapping[str, int]) -> dict[str, Any]:
    """The counts for completion.json: in total and by case, each by the label's name."""
    from dataclasses import asdict

    return {
        "total": {name: asdict(found) for name, found in totals(counts, values).items()},
        "cases": {
            case: {name: asdict(found[value]) for name, value in values.items()} for case, found in counts.items()
        },
    }


def totals(counts: Mapping[str, Mapping[int, LabelCounts]], values: Mapping[str, int]) -> dict[str, LabelCounts]:
    """The counts of all cases together, by the label's name."""
    from nnunet_ext.preprocessing.pseudo_labels.completion import LabelCounts

    return {name: sum((found[value] for found in counts.values()), LabelCounts()) for name, value in values.items()}


def print_outcome(
    output: str, counts: Mapping[str, Mapping[int, LabelCounts]], values: Mapping[str, int], *, in_fold: bool
) -> None:
    """Show what was added to which label, what it is worth, and how to go on."""
    from nnunet_ext.evaluation.text_table import aligned
    from nnunet_ext.plans.plans_file import raw_folder

    found = totals(counts, values)
    rows = [["instances", "annotated", "found again", "added", "too small", "ignored voxels"]]
    for name, count in found.items():
        numbers = (count.annotated_instances, count.found_instances, count.added_instances, count.small_instances)
        rows.append([name, *map(str, numbers), str(count.ignored_voxels)])
    print(f"\n{aligned(rows)}\n\nWrote {raw_folder(output)}")
    if not any(count.added_instances for count in found.values()):
        print("Nothing was added. A lower --threshold (with --uncertain, a lower HIGH) adds more.")
    print(
        "What was added are guesses of a model: look at them before you train on them, the more where there are many."
    )
    if in_fold:
        print(
            "The folds may have trained on the cases that they completed, with what is un-annotated there as "
            "background. With all folds trained, -f 0 1 2 3 4 --out-of-fold avoids that."
        )
    number = output[len("Dataset") :].partition("_")[0]
    print(
        "Next, with the trainer of your choice:\n"
        f"    nnUNetv2_plan_and_preprocess -d {number}\n"
        f"    nnUNetv2_train {number} CONFIGURATION FOLD"
    )
