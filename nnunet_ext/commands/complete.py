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
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.arguments import add_new_dataset_options, add_teacher_options, positive, teacher_options
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json
from nnunet_ext.messages import aligned
from nnunet_ext.nnunet_folders import raw_folder
from nnunet_ext.registration import register
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from nnunet_ext.preprocessing.raw.raw_dataset import Case, Labels

RECORD = "completion.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="nnU-Net's TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the raw dataset to complete")
    add_new_dataset_options(parser)
    threshold = "probability of foreground from which a voxel is predicted (default: %(default)s)"
    parser.add_argument("--threshold", type=float, default=0.5, metavar="P", help=threshold)
    between = "un-annotated voxels from a probability of LOW on become ignore; only those from HIGH on can be added. "
    between += "LOW <= P <= HIGH"
    parser.add_argument("--uncertain", type=float, nargs=2, metavar=("LOW", "HIGH"), help=between)
    smallest = "minimum instance size in voxels (default: %(default)s)"
    parser.add_argument("--min-voxels", type=positive, default=1, metavar="N", help=smallest)
    add_teacher_options(parser)


def run(args: argparse.Namespace) -> int:
    import pandas as pd

    from nnunet_ext.plans.channel_roles import roles_in
    from nnunet_ext.preprocessing.raw.new_dataset import (
        CaseProgress,
        check_new_name,
        copy_dense_labels,
        copy_splits,
        new_dataset,
        write_description,
    )
    from nnunet_ext.preprocessing.raw.next_steps import next_steps
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.pseudo_labels.completion import Rules, completed_labels
    from nnunet_ext.pseudo_labels.teachers import (
        check_all_annotated,
        check_shape,
        label_cases,
        load_teacher,
    )

    register()
    rules = Rules(args.threshold, tuple(args.uncertain) if args.uncertain else None, args.min_voxels)
    source = read_raw_dataset(args.dataset)
    if args.output == source.folder.name:
        raise UserError(f"{args.output} is the dataset that is to be completed. Choose another name for the new one.")
    check_new_name(args.output, force=args.force)
    check_all_annotated(source, instead="Let `nnunet_ext pseudo-label` complete it first")
    teacher = load_teacher(args.model, source, out_of_fold=args.out_of_fold, **teacher_options(args))
    labels = dict(source.description["labels"])
    names = {value: name for name, value in source.foreground_values().items()}
    if rules.uncertain is not None and source.ignore_label is None:
        labels["ignore"] = max(names) + 1  # nnU-Net wants it behind all others

    # what decides the new labels, beside the files of the cases: with the same, interrupted work goes on
    common = {"version": __version__, **asdict(rules)}
    request = {**common, **teacher.request(), "dataset": str(source.folder.resolve())}
    request["labels"] = source.description["labels"]

    def label(name: str, case: Case, before: Labels) -> tuple[Labels, Any]:
        probabilities = teacher.probabilities(name, case)
        check_shape(probabilities, before, case)
        ignore = labels.get("ignore")
        new, found = completed_labels(before, probabilities, foreground=sorted(names), ignore=ignore, rules=rules)
        return new, {names[value]: asdict(count) for value, count in found.items()}

    def say(found: Mapping[str, Any]) -> str:
        total = pd.DataFrame(found).sum(axis=1)
        doubtful = f", {total['ignored_voxels']} voxels ignored" if rules.uncertain else ""
        return f"{total['annotated_instances']} annotated, {total['added_instances']} added{doubtful}"

    with new_dataset(args.output, force=args.force, made_from=source.files, request=request) as folder:
        kept = label_cases(source, folder, label, say)
        # a row for each count, a column for each label
        total = pd.concat(map(pd.DataFrame, kept.values())).groupby(level=0, sort=False).sum()
        about = {"made_by": "complete", **common, "completed_from": source.folder.name, "model": teacher.origin()}
        about |= roles_in(source.description)
        write_json(folder / RECORD, {**about, "total": total.to_dict(), "cases": kept})
        write_description(folder, args.output, source.cases, {**source.description, "labels": labels}, about=about)
        copy_splits(source, folder)
        copy_dense_labels(source, folder)
        CaseProgress(folder).close()

    print_outcome(args.output, total)
    if not args.out_of_fold and teacher.model.trained_on == source.folder.name:
        print(
            "The folds may have trained on the cases that they completed, with what is un-annotated there as "
            "background. With all folds trained, -f 0 1 2 3 4 --out-of-fold avoids that."
        )
    print(next_steps(args.output))
    return 0


def print_outcome(output: str, total: pd.DataFrame) -> None:
    """Show what was added to which label, by the counts (rows) of each (columns), and what it is worth."""
    counts = ["annotated_instances", "found_instances", "added_instances", "small_instances", "ignored_voxels"]
    heads = ["instances", "annotated", "found again", "added", "too small", "ignored voxels"]
    table = aligned([heads, *([str(name), *map(str, numbers)] for name, numbers in total.loc[counts].items())])
    print(f"\n{table}\n\nWrote {raw_folder(output)}")
    if not total.loc["added_instances"].any():
        print("Nothing was added. A lower --threshold (with --uncertain, a lower HIGH) adds more.")
    print("What was added are guesses of a model: look at them before you train on them, above all if there are many.")
