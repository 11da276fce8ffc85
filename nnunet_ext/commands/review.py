"""Show where the labels of a dataset look wrong: where a model that has not trained on a case disagrees with them.

Each case is predicted by those folds of the model that have not trained on it, and its prediction is compared with its
label. Regions of disagreement, connected parts with one label and another one predicted, are ranked by their score:
size times the model's confidence, which is how much more probable it finds its own answer than the label, on average.
So large regions that the model is sure of come first, and thin doubtful rims last. Either of the two may be right.

OUT gets review.html (the cases, and pictures of the --top regions), regions.csv (at most 100 of each case) with
coordinates in mm (right, anterior, superior, as 3D Slicer shows them and ITK-SNAP under NIfTI) and voxel indices from
0, cases.csv, review.json and predictions. A case is flagged if it disagrees more than 1.5 interquartile ranges above
the upper quartile of all cases, or has a label that does not meet its prediction anywhere. Asked again, the command
predicts only the cases whose image or label has changed, such as those that were corrected. Example:

    nnunet_ext review MODEL_FOLDER -d 4 -o REVIEW
    nnunet_ext review MODEL_FOLDER -d 4 -f 0 1 2 3 4 -o REVIEW --top 50
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.arguments import add_teacher_options, positive, teacher_options
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart, write_text
from nnunet_ext.messages import aligned, counted
from nnunet_ext.registration import register

if TYPE_CHECKING:
    from nnunet_ext.preprocessing.raw.raw_dataset import Case, Labels, RawDataset

RECORD, PREDICTIONS = "review.json", "predictions"
SHOWN = 10  # cases on the screen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="nnU-Net's TRAINER__PLANS__CONFIGURATION")
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the raw dataset to review")
    parser.add_argument("-o", "--output", "--out", dest="out", type=Path, required=True, help="folder to write")
    top = "number of regions with a picture on the page (default: %(default)s)"
    parser.add_argument("--top", type=positive, default=20, metavar="N", help=top)
    add_teacher_options(parser, never_seen=True)
    parser.add_argument("--force", action="store_true", help="replace what is in OUT, if this command made it")


def run(args: argparse.Namespace) -> int:
    register()
    with only_run(args.out):
        return review(args)


def review(args: argparse.Namespace) -> int:
    """Predict, compare, write and print."""
    from nnunet_ext.evaluation.disagreement import Compared, disagreement
    from nnunet_ext.evaluation.disagreement_tables import regions_table, review_table
    from nnunet_ext.evaluation.output_folder import open_output
    from nnunet_ext.formats.typed import read_typed
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.pseudo_labels.teachers import check_all_annotated, check_shape, label_cases, load_teacher
    from nnunet_ext.report.cases import CaseFiles
    from nnunet_ext.report.review_page import write_review

    every = read_raw_dataset(args.dataset)
    labels = every.foreground_values()
    options = teacher_options(args)
    options["folds"] = folds = args.folds or numbered_folds(args.model, args.checkpoint)
    is_own = is_trained_on(args.model, every)
    source = with_unseen_cases(every, folds) if is_own else every
    check_apart(args.out, [args.model, *every.files])
    check_all_annotated(source, instead="Review the cases of each source in a dataset of their own")
    teacher = load_teacher(args.model, source, out_of_fold=is_own, **options)
    wanted = {**teacher.request(), "dataset": str(source.folder.resolve()), "labels": source.description["labels"]}
    reader = source.reader_writer()

    def compare(name: str, case: Case, before: Labels) -> tuple[Labels, Any]:
        probabilities = teacher.probabilities(name, case)
        check_shape(probabilities, before, case)
        spacing = [float(step) for step in source.geometry(reader, name, before.shape)["spacing"]]
        predicted, found = disagreement(before, probabilities, spacing, ignore=source.ignore_label)
        return predicted, found.model_dump(mode="json")

    def say(found: Mapping[str, Any]) -> str:
        return counted(int(found.get("number", 0)), "region")

    seen = len(every.cases) - len(source.cases)
    left_out = f"{counted(seen, 'case')} left out, on which every given fold has trained." if seen else ""
    first, *others = teacher.model.folds
    by = f"fold {first} of {args.model.resolve().name}, which has not trained on it"
    named = ", ".join(map(str, [first, *others]))
    if not is_own:
        numbered = f"fold{'s' * bool(others)} {named}"
        by = f"{numbered} of {args.model.resolve().name}, which was trained on {teacher.model.trained_on}"
    elif others:
        by = f"those of the folds {named} of {args.model.resolve().name} that have not trained on it"
    with open_output(args.out, wanted, force=args.force, holds="a review") as out:
        label_cases(source, out, compare, say, part=PREDICTIONS, record=RECORD)
        # some may be of an earlier run, or of one that was interrupted
        found = {name: one.result for name, one in read_typed(dict[str, Compared], out / RECORD).items()}
        regions, centres = regions_table(source, found, labels)
        cases = review_table(found, labels)
        for name, table in (("regions.csv", regions), ("cases.csv", cases)):
            write_text(out / name, table.to_csv(index=False, lineterminator="\n"))
        write_review(
            out / "review.html",
            regions.head(args.top),
            cases,
            {
                name: CaseFiles(out / PREDICTIONS / f"{name}{source.ending}", case.label, case.images[0])
                for name, case in source.cases.items()
            },
            centres[: args.top],
            labels=labels,
            description=source.description,
            title=f"Review of {source.folder.name}",
            subtitle=f"{counted(len(found), 'case')}, each predicted by {by}. {left_out}",
        )
    rows = [[row["case"], row["flagged"] or "", f"{row['disagreement']:.3f}"] for row in cases.to_dict("records")]
    print(f"\n{aligned([['case', 'flagged', 'disagreement'], *rows[:SHOWN]])}")
    print(f"{left_out}\nWrote {args.out / 'review.html'}, with regions.csv and cases.csv beside it.")
    return 0


def numbered_folds(model: Path, checkpoint: str) -> list[int | str]:
    """The folds of a model but ``all`` that have the checkpoint; a UserError if none has."""
    from nnunet_ext.checkpoints.trained_model import folds_of

    if not model.is_dir():
        expected = "a folder nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION"
        raise UserError(f"{model} does not exist. Expected: {expected}.")
    there = folds_of(model, checkpoint)
    if not (numbered := [fold for fold in there if fold != "all"]):
        of_all = " Fold all has trained on every case of its own dataset; for another dataset, give -f all."
        more = of_all if there else " Train a fold first."
        raise UserError(f"{model} has no {checkpoint} in a folder fold_0, fold_1, …: no fold of it was trained.{more}")
    return numbered


def is_trained_on(model: Path, source: RawDataset) -> bool:
    """Whether a model was trained on a dataset; a UserError if it is none."""
    from nnunet_ext.checkpoints.trained_model import check_model_folder, dataset_of
    from nnunet_ext.formats.typed import read_typed

    check_model_folder(model)
    plans = read_typed(dict[str, Any], model / "plans.json", maker="nnU-Net")
    return dataset_of(model, plans) == source.folder.name


def with_unseen_cases(source: RawDataset, folds: Sequence[int | str]) -> RawDataset:
    """The dataset with those cases alone that one of the folds has not trained on; a UserError if there are none."""
    from nnunet_ext.formats.splits import check_has_folds, read_splits
    from nnunet_ext.nnunet_folders import preprocessed_folder
    from nnunet_ext.nnunet_names import SPLITS

    file = preprocessed_folder(source.folder.name) / SPLITS
    splits = read_splits(file)
    unseen = "A review needs folds that have not trained on the cases that they judge. Give some that are there."
    check_has_folds(splits, folds, file=file, advice=unseen)
    trained = set.intersection(*(set(splits[int(fold)]["train"]) for fold in folds))
    if not (cases := {name: case for name, case in source.cases.items() if name not in trained}):
        raise UserError(f"The folds {' '.join(map(str, folds))} have trained on every case. Give others after -f.")
    return replace(source, cases=cases)
