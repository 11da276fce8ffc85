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

from nnunet_ext.arguments import add_teacher_options, positive
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart, write_text
from nnunet_ext.messages import aligned, counted
from nnunet_ext.registration import register

if TYPE_CHECKING:
    import pandas as pd

    from nnunet_ext.evaluation.disagreement import Disagreement
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
    parser.add_argument("--force", action="store_true", help="empty OUT first, if this command made it")


def run(args: argparse.Namespace) -> int:
    register()
    with only_run(args.out):
        return review(args)


def review(args: argparse.Namespace) -> int:
    """Predict, compare, write and print."""
    from nnunet_ext.evaluation.disagreement import Compared, disagreement
    from nnunet_ext.evaluation.output_folder import open_output
    from nnunet_ext.formats.typed import read_typed
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.pseudo_labels.teachers import check_all_annotated, check_shape, label_cases, load_teacher
    from nnunet_ext.report.cases import CaseFiles
    from nnunet_ext.report.review_page import write_review

    every = read_raw_dataset(args.dataset)
    labels = every.foreground_values()
    args.folds = args.folds or trained_folds(args.model, args.checkpoint)
    source = with_unseen_cases(every, args)
    check_apart(args.out, [args.model, *every.files])
    check_all_annotated(source, instead="Review the cases of each source in a dataset of their own")
    teacher = load_teacher(args.model, source, args)
    wanted = {**teacher.request(), "dataset": str(source.folder.resolve()), "labels": source.description["labels"]}
    open_output(args.out, wanted, force=args.force, holds="a review")
    reader = source.reader_writer()

    def compare(name: str, case: Case, before: Labels) -> tuple[Labels, Any]:
        probabilities = teacher.probabilities(name, case)
        check_shape(probabilities, before, case)
        spacing = [float(step) for step in source.geometry(reader, name, before.shape)["spacing"]]
        predicted, found = disagreement(before, probabilities, spacing, ignore=source.ignore_label)
        return predicted, found.model_dump(mode="json")

    def say(found: Mapping[str, Any]) -> str:
        return counted(int(found.get("number", 0)), "region")

    label_cases(source, args.out, compare, say, part=PREDICTIONS, record=RECORD)
    # some may be of an earlier run, or of one that was interrupted
    found = {name: one.result for name, one in read_typed(dict[str, Compared], args.out / RECORD).items()}
    regions, centres = regions_table(source, found, labels)
    cases = review_table(found, labels)
    for name, table in (("regions.csv", regions), ("cases.csv", cases)):
        write_text(args.out / name, table.to_csv(index=False, lineterminator="\n"))
    seen = len(every.cases) - len(source.cases)
    left_out = f"{counted(seen, 'case')} left out, on which every given fold has trained." if seen else ""
    first, *others = teacher.model.folds
    by = f"fold {first} of {args.model.resolve().name}, which has not trained on it"
    folds = ", ".join(map(str, [first, *others]))
    if not args.out_of_fold:
        numbered = f"fold{'s' * bool(others)} {folds}"
        by = f"{numbered} of {args.model.resolve().name}, which was trained on {teacher.model.trained_on}"
    elif others:
        by = f"those of the folds {folds} of {args.model.resolve().name} that have not trained on it"
    write_review(
        args.out / "review.html",
        regions.head(args.top),
        cases,
        {
            name: CaseFiles(args.out / PREDICTIONS / f"{name}{source.ending}", case.label, case.images[0])
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


def trained_folds(model: Path, checkpoint: str) -> list[int]:
    """The numbered folds of a model that have the checkpoint; a UserError if none has."""
    if not model.is_dir():
        expected = "a folder nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION"
        raise UserError(f"{model} does not exist. Expected: {expected}.")
    files = [file for file in model.glob(f"fold_*/{checkpoint}") if file.parent.name[len("fold_") :].isdecimal()]
    if not files:
        of_all = " Fold all has trained on every case of its own dataset; for another dataset, give -f all."
        more = of_all if (model / "fold_all" / checkpoint).is_file() else " Train a fold first."
        raise UserError(f"{model} has no {checkpoint} in a folder fold_0, fold_1, …: no fold of it was trained.{more}")
    return sorted(int(file.parent.name[len("fold_") :]) for file in files)


def with_unseen_cases(source: RawDataset, args: argparse.Namespace) -> RawDataset:
    """The dataset with the cases alone that a fold has not trained on; all, where the model is of another dataset."""
    from nnunet_ext.checkpoints.trained_model import check_model_folder, dataset_of
    from nnunet_ext.formats.typed import read_typed
    from nnunet_ext.nnunet_names import SPLITS
    from nnunet_ext.plans.plans_file import preprocessed_folder
    from nnunet_ext.preprocessing.raw.splits import check_has_folds, read_splits

    check_model_folder(args.model)
    plans = read_typed(dict[str, Any], args.model / "plans.json", maker="nnU-Net")
    args.out_of_fold = dataset_of(args.model, plans) == source.folder.name
    if not args.out_of_fold:
        return source
    file = preprocessed_folder(source.folder.name) / SPLITS
    splits = read_splits(file)
    unseen = "A review needs folds that have not trained on the cases that they judge. Give some that are there."
    check_has_folds(splits, args.folds, file=file, advice=unseen)
    trained = set.intersection(*(set(splits[fold]["train"]) for fold in args.folds))
    if not (cases := {name: case for name, case in source.cases.items() if name not in trained}):
        raise UserError(f"The folds {' '.join(map(str, args.folds))} have trained on every case. Give others after -f.")
    return replace(source, cases=cases)


def regions_table(
    source: RawDataset, found: Mapping[str, Disagreement], labels: Mapping[str, int]
) -> tuple[pd.DataFrame, list[tuple[int, int, int]]]:
    """A row for each region, the highest score first; and of each the voxel at its centre."""
    import pandas as pd

    from nnunet_ext.evaluation.disagreement import world_position

    names, reader, rows = {0: "background", **{value: name for name, value in labels.items()}}, None, []
    for case, of_case in found.items():
        if not of_case.regions:
            continue
        reader = reader or source.reader_writer()
        shape = source.read_labels(reader, case)[0].shape
        properties = source.geometry(reader, case, shape)
        for region in of_case.regions:
            (i, j, k), place = world_position(region.centre, shape, properties)
            right, anterior, superior = place or (None, None, None)
            row: dict[str, Any] = {"case": case, "label": names[region.label], "predicted": names[region.predicted]}
            row |= {"score": region.score, "size": region.size, "unit": unit_of_size(reader, shape)}
            row |= {"confidence": region.confidence, "voxels": region.voxels, "i": i, "j": j, "k": k}
            rows.append((row | {"right": right, "anterior": anterior, "superior": superior}, region.centre))
    rows.sort(key=lambda one: -one[0]["score"])
    columns = ["case", "label", "predicted", "score", "size", "unit", "confidence", "voxels", "i", "j", "k"]
    table = pd.DataFrame([row for row, _ in rows], columns=[*columns, "right", "anterior", "superior"])
    table = table.astype(dict.fromkeys(("right", "anterior", "superior"), float))
    table.insert(0, "rank", range(1, len(table) + 1))
    return table, [centre for _, centre in rows]


def unit_of_size(reader: Any, shape: Sequence[int]) -> str:
    """The unit of a region in a volume, a slice or a picture such as PNG, whose pixels have no size."""
    from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO

    if isinstance(reader, NaturalImage2DIO):
        return "pixels"
    return "mm³" if shape[0] > 1 else "mm²"


def review_table(found: Mapping[str, Disagreement], labels: Mapping[str, int]) -> pd.DataFrame:
    """A row for each case, the largest disagreement first."""
    import pandas as pd

    lower, upper = pd.Series([one.share for one in found.values()]).quantile([0.25, 0.75]).tolist()
    rows = []
    for name, one in found.items():
        apart = [label for label, value in labels.items() if value in one.missed]
        flags = ["disagrees more than others"] * (one.share > upper + 1.5 * (upper - lower))
        flags += [f"no overlap: {', '.join(apart)}"] * bool(apart)
        dice = sum(one.dice.values()) / len(one.dice) if one.dice else float("nan")
        row: dict[str, Any] = {"case": name, "flagged": "; ".join(flags), "disagreement": one.share, "dice": dice}
        rows.append({**row, "regions": one.number})
    table = pd.DataFrame(rows).sort_values("disagreement", ascending=False, kind="stable")
    table.insert(0, "rank", range(1, len(table) + 1))
    return table
