"""Label by trained models what nobody annotated, as a new raw dataset for a next training.

Every voxel that is open is labelled where all models agree and their mean probability is at least --threshold, and
becomes the ignore label elsewhere. Open are the voxels of the ignore label, such as those between scribbles, and all
voxels of a dataset of `nnunet_ext unlabelled`; what somebody annotated stays as it is. Several folds of a model are
an ensemble; several models must agree. --with adds the cases of a labelled dataset: its folds are kept, and the
pseudo-labelled cases are in every training part. pseudo_labels.csv in the new dataset has a row for each case. A run
that was interrupted goes on if the same is asked again. Examples:

    nnunet_ext pseudo-label MODEL_FOLDER -d 5 -o Dataset006_SelfTraining -f 0 1 2 3 4 --out-of-fold
    nnunet_ext pseudo-label MODEL_A MODEL_B -d 12 -o Dataset013_Student --with 5 -f 0 1 2 3 4
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.arguments import add_new_dataset_options, add_teacher_options, probability, share_or_none
from nnunet_ext.errors import UserError
from nnunet_ext.files import sha256, write_json, write_text
from nnunet_ext.messages import aligned, next_steps, some
from nnunet_ext.plans.plans_file import raw_folder
from nnunet_ext.registration import register
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    import pandas as pd

    from nnunet_ext.preprocessing.raw.raw_dataset import Case, Labels, RawDataset
    from nnunet_ext.preprocessing.raw.splits import Fold

TABLE = "pseudo_labels.csv"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models = "nnU-Net's TRAINER__PLANS__CONFIGURATION; several must agree"
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL_FOLDER", help=models)
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the raw dataset to label")
    add_new_dataset_options(parser)
    parser.add_argument("--with", dest="labelled", metavar="DATASET", help="labelled raw dataset whose cases are added")
    threshold = "mean probability from which a voxel is labelled (default: %(default)s)"
    parser.add_argument("--threshold", type=probability, default=0.8, metavar="P", help=threshold)
    least = "leave out a case if less than this share of the foreground that any model sees was labelled as foreground "
    least += "(default: %(default)s, which leaves out none)"
    parser.add_argument("--least-share", type=share_or_none, default=0.0, metavar="S", help=least)
    add_teacher_options(parser)


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.preprocessing.raw.new_dataset import CaseProgress, check_new_name, new_dataset, write_description
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.preprocessing.raw.splits import SPLITS
    from nnunet_ext.preprocessing.raw.unlabelled import MADE_BY
    from nnunet_ext.pseudo_labels.agreement import agreed_labels
    from nnunet_ext.pseudo_labels.teachers import check_shape, label_cases, load_teacher

    register()
    source = read_raw_dataset(args.dataset)
    labelled = None if args.labelled is None else read_raw_dataset(args.labelled)
    if args.output in (source.folder.name, labelled and labelled.folder.name):
        raise UserError(f"{args.output} is one of the datasets that are read. Choose another name for the new one.")
    check_new_name(args.output, force=args.force)
    has_labels = source.description.get("nnunet_ext", {}).get("made_by") != MADE_BY
    if has_labels and source.ignore_label is None:
        raise UserError(
            f"Every voxel of {source.folder.name} has a label: there is neither an ignore label, nor was it made by "
            "`nnunet_ext unlabelled`. For instances that nobody annotated, use `nnunet_ext complete`."
        )
    teachers = [load_teacher(folder, source, args, labels_count=has_labels) for folder in args.models]
    labels = labels_of_all([teacher.model.dataset_json for teacher in teachers])
    names = {value: name for name, value in labels.items() if value and name != "ignore"}
    if labelled is not None:
        check_addition(source, labelled, labels)
    common = {"version": __version__, "threshold": args.threshold, "least_share": args.least_share}
    request = {"version": __version__, "threshold": args.threshold, "dataset": str(source.folder.resolve())}
    request["labels"] = source.description["labels"]
    request |= {"with": labelled and str(labelled.folder.resolve()), "models": [one.request() for one in teachers]}

    def label(name: str, case: Case, before: Labels) -> tuple[Labels, Any]:
        probabilities = [teacher.probabilities(name, case) for teacher in teachers]
        check_shape(probabilities[0], before, case)
        is_open = before == source.ignore_label if has_labels else before >= 0
        rules = {"names": names, "threshold": args.threshold, "ignore": labels["ignore"]}
        new, agreement = agreed_labels(probabilities, before, is_open=is_open, **rules)
        return new, asdict(agreement)

    with new_dataset(args.output, force=args.force, request=request) as folder:
        kept = label_cases(source, folder, label, say)
        table = cases_table(kept, args.least_share)
        chosen = table["case"][~table["left_out"]].to_list()
        if not chosen:
            largest = table["foreground_share"].fillna(0.0).max()
            raise UserError(f"Every case would be left out. The largest share is {largest:.2f}; lower --least-share.")
        for name in set(kept) - set(chosen):
            (folder / "labelsTr" / f"{name}{source.ending}").unlink()
        cases = {name: source.cases[name] for name in chosen}
        if labelled is not None:
            copy_annotated(labelled, folder)
            cases |= labelled.cases
        write_text(folder / TABLE, table.to_csv(index=False, lineterminator="\n"))
        about = {"made_by": "pseudo-label", **common, "labelled_from": source.folder.name}
        about |= {"with": labelled and labelled.folder.name, "models": [teacher.origin() for teacher in teachers]}
        write_description(folder, args.output, cases, {**source.description, "labels": labels}, about=about)
        folds = folds_for(source, labelled, chosen)
        if folds and not has_empty_part(folds):
            write_json(folder / SPLITS, folds)
        CaseProgress(folder).close()

    print_outcome(table, names)
    if has_empty_part(folds):
        print("The folds are not kept, as one would have no case left for a part: nnU-Net will draw new ones.")
    print(f"\nWrote {raw_folder(args.output)}\n{next_steps(args.output)}")
    return 0


def labels_of_all(models: list[Mapping[str, Any]]) -> dict[str, int]:
    """The labels of models, which must be equal, with an ignore label behind them; a UserError if they differ."""
    first, *others = [{name: value for name, value in one["labels"].items() if name != "ignore"} for one in models]
    if regions := [name for name, value in first.items() if isinstance(value, list)]:
        raise UserError(f"The models have regions ({', '.join(regions)}). Each label needs one value here.")
    if different := next((one for one in others if one != first), None):
        raise UserError(f"The models have different labels: {first} and {different}. They must be the same.")
    return {**first, "ignore": max(first.values()) + 1}


def check_addition(source: RawDataset, labelled: RawDataset, labels: Mapping[str, int]) -> None:
    """Raise a UserError if a labelled dataset cannot be added, or has a case that is to be labelled."""
    from nnunet_ext.evaluation.model_evaluation import check_inputs
    from nnunet_ext.pseudo_labels.teachers import check_all_annotated

    check_inputs(source.description, labelled.description, name=labelled.folder.name)
    theirs = {name: value for name, value in labelled.description["labels"].items() if name != "ignore"}
    if theirs != {name: value for name, value in labels.items() if name != "ignore"}:
        raise UserError(f"{labelled.folder.name} has the labels {theirs}, and the models have {dict(labels)}.")
    if same := sorted(set(source.cases) & set(labelled.cases)):
        raise UserError(f"{some(same, 3)}: cases of that name are in {source.folder.name} and {labelled.folder.name}.")
    check_all_annotated(labelled)
    reader = labelled.reader_writer()
    for name in labelled.cases:
        labelled.read_labels(reader, name)
    sizes = {case.images[0].stat().st_size for case in labelled.cases.values()}
    known = {sha256(case.images[0]): name for name, case in labelled.cases.items()}
    for name, case in source.cases.items():
        if case.images[0].stat().st_size in sizes and (twin := known.get(sha256(case.images[0]))):
            raise UserError(
                f"{case.images[0]} of case {name} is the image of {twin} in {labelled.folder.name}, whose annotation "
                f"would be lost among pseudo labels. Leave {name} out of {source.folder.name}."
            )


def copy_annotated(labelled: RawDataset, folder: Path) -> None:
    """Write the label maps of the labelled cases beside the others, with their ignore label, if any, as the new one's.

    A value of `ignore` stands behind all labels, so that it is the same in both datasets.
    """
    import shutil

    for name, case in labelled.cases.items():
        shutil.copyfile(case.label, folder / "labelsTr" / f"{name}{labelled.ending}")


def folds_for(source: RawDataset, labelled: RawDataset | None, chosen: list[str]) -> list[Fold]:
    """The folds of the annotated cases, with pseudo-labelled cases for training alone where both are there."""
    from nnunet_ext.preprocessing.raw.splits import cross_validation, read_splits, splits_files

    origin = source if labelled is None else labelled
    files = splits_files(origin.folder)[-1:]
    if labelled is None:
        folds = read_splits(files[0]) if files else []
        return [{part: [case for case in cases if case in chosen] for part, cases in fold.items()} for fold in folds]
    folds = read_splits(files[0]) if files else cross_validation({name: [name] for name in labelled.cases})
    return [{"train": [*fold["train"], *chosen], "val": fold["val"]} for fold in folds]


def has_empty_part(folds: list[Fold]) -> bool:
    """Whether a fold has no case to train on or none to validate."""
    return any(not cases for fold in folds for cases in fold.values())


def cases_table(kept: Mapping[str, Mapping[str, Any]], least_share: float) -> pd.DataFrame:
    """The table of pseudo_labels.csv: a row for each case, by what was counted; NaN for an undefined share."""
    import pandas as pd

    table = pd.DataFrame(kept.values()).astype({"foreground_share": float})
    table.insert(0, "case", list(kept))
    table["left_out"] = table["foreground_share"] < least_share  # never where it is undefined
    voxels = pd.DataFrame(table.pop("voxels").to_list()).add_prefix("voxels_")
    return pd.concat([table, voxels], axis=1)


def say(found: Mapping[str, Any]) -> str:
    """A case in a line."""
    share = found["foreground_share"]
    return f"{found['labelled_voxels'] / max(1, found['open_voxels']):.1%} of the open voxels labelled" + (
        "" if share is None else f", {share:.0%} of the foreground that a model sees"
    )


def print_outcome(table: pd.DataFrame, names: Mapping[int, str]) -> None:
    """Show what was labelled in all, and the cases of which the least was."""
    kept = table[~table["left_out"]]
    counts = [[name, str(kept[f"voxels_{name}"].sum())] for name in names.values()]
    print(f"\n{aligned([['label', 'voxels added'], *counts])}")
    if not any(int(count) for _, count in counts):
        print("No voxel was labelled as foreground. Take a lower --threshold or a better model.")
    if len(kept) < len(table):
        print(f"Left out: {some(table['case'][table['left_out']])}.")
    doubtful = kept.dropna(subset="foreground_share").sort_values("foreground_share", kind="stable")["case"]
    if len(doubtful):
        print(f"Least sure, to be looked at: {', '.join(doubtful[:5])}.")
