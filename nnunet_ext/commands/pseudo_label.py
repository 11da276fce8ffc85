"""Label by trained models what nobody annotated, as a new raw dataset for a next training.

Every voxel that is open is labelled where all models and folds agree and their mean probability is at least
--threshold, and becomes the ignore label elsewhere. What somebody annotated stays as it is. Open are

- the voxels of the ignore label, such as those between scribbles;
- the background of a case that was annotated for some labels alone, by the lists `annotated_labels` and `default` in
  dataset.json (docs/techniques/partial-labels.md). Only background and the missing labels can be there: the
  probabilities of the others become 0, and the rest are divided by their sum. The model must be one of
  nnUNetTrainerPartialLabels, or of cases that have every label;
- all voxels of a dataset of `nnunet_ext unlabelled`.

With --largest-component a body is one piece: all labels together, as those of a heart, or each label by itself. A body
is the component that somebody annotated in part or, if nobody annotated any, the largest one. What a model predicts
away from every body becomes background. In one piece with a body of another label it becomes the ignore label.

--with adds the cases of a labelled dataset: its folds are kept, and the pseudo-labelled cases are in every training
part. pseudo_labels.csv in the new dataset has a row for each case, and least_certain has pictures of those in which the
least of the foreground was labelled: contours of the labels in colour, of what is ignored in white. A run that was
interrupted goes on if the same is asked again. Examples:

    nnunet_ext pseudo-label MODEL_FOLDER -d 5 -o Dataset006_SelfTraining -f 0 1 2 3 4 --out-of-fold
    nnunet_ext pseudo-label MODEL_FOLDER -d 5 -o Dataset007_Taught --largest-component foreground
    nnunet_ext pseudo-label MODEL_FOLDER -d 50 -o Dataset051_Completed
    nnunet_ext pseudo-label MODEL_A MODEL_B -d 12 -o Dataset013_Student --with 5 -f 0 1 2 3 4
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext.arguments import (
    add_largest_component_option,
    add_new_dataset_options,
    add_teacher_options,
    fraction,
    probability,
    teacher_options,
)
from nnunet_ext.errors import UserError
from nnunet_ext.files import write_json, write_text, written_whole
from nnunet_ext.messages import aligned, some
from nnunet_ext.nnunet_folders import raw_folder
from nnunet_ext.registration import register
from nnunet_ext.version import __version__

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd

    from nnunet_ext.preprocessing.raw.raw_dataset import Case, Labels, RawDataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    models = "nnU-Net's TRAINER__PLANS__CONFIGURATION; several must agree"
    parser.add_argument("models", type=Path, nargs="+", metavar="MODEL_FOLDER", help=models)
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the raw dataset to label")
    add_new_dataset_options(parser)
    parser.add_argument("--with", dest="labelled", metavar="DATASET", help="labelled raw dataset whose cases are added")
    threshold = "mean probability from which a voxel is labelled (default: %(default)s)"
    parser.add_argument("--threshold", type=probability, default=0.8, metavar="P", help=threshold)
    least = "leave out a case if less than this share of the foreground that any model sees was labelled as foreground "
    least += "(default: %(default)s, which leaves out none); a case that was annotated for some labels stays"
    parser.add_argument("--least-share", type=fraction, default=0.0, metavar="S", help=least)
    add_largest_component_option(parser.add_argument, purpose="what is predicted away from a body is no label")
    add_teacher_options(parser, several="must agree")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.nnunet_names import SPLITS
    from nnunet_ext.plans.channel_roles import roles_in
    from nnunet_ext.preprocessing.raw.new_dataset import (
        CaseProgress,
        check_new_name,
        copy_dense_labels,
        new_dataset,
        write_description,
    )
    from nnunet_ext.preprocessing.raw.next_steps import next_steps
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset, remove_label_map
    from nnunet_ext.pseudo_labels.agreement import (
        Agreement,
        agreed_labels,
        given_annotation,
        open_voxels,
        without_islands,
    )
    from nnunet_ext.pseudo_labels.datasets import (
        TABLE,
        check_addition,
        check_open,
        copy_annotated,
        folds_for,
        has_empty_part,
        labels_of_all,
        missing_values,
    )
    from nnunet_ext.pseudo_labels.table import doubtful_cases, pseudo_label_table
    from nnunet_ext.pseudo_labels.teachers import check_shape, label_cases, load_teacher

    register()
    source = read_raw_dataset(args.dataset)
    labelled = None if args.labelled is None else read_raw_dataset(args.labelled)
    if args.output in (source.folder.name, labelled and labelled.folder.name):
        raise UserError(f"{args.output} is one of the datasets that are read. Choose another name for the new one.")
    check_new_name(args.output, force=args.force)
    has_labels = check_open(source)
    missing = missing_values(source) if has_labels else {}
    options = {**teacher_options(args), "out_of_fold": args.out_of_fold, "labels_count": has_labels}
    teachers = [load_teacher(folder, source, **options) for folder in args.models]
    labels = labels_of_all([teacher.model.dataset_json for teacher in teachers])
    names = {value: name for name, value in labels.items() if value and name != "ignore"}
    if labelled is not None:
        check_addition(source, labelled, labels)
    rule = {"version": __version__, "threshold": args.threshold, "largest_component": args.largest_component}
    request = {**rule, "dataset": str(source.folder.resolve())}
    request["labels"] = source.description["labels"]
    request |= {"with": labelled and str(labelled.folder.resolve()), "models": [one.request() for one in teachers]}

    def label(name: str, case: Case, before: Labels) -> tuple[Labels, Any]:
        absent = missing.get(name, [])
        is_open = open_voxels(before, ignore=source.ignore_label, missing=absent) if has_labels else before >= 0
        if not is_open.any():
            return before, asdict(Agreement.without_open_voxels(names.values()))

        def possible(found: npt.NDArray[np.float32]) -> npt.NDArray[np.floating]:
            check_shape(found, before, case)
            found = given_annotation(found, before, missing=absent)
            if args.largest_component is None:
                return found
            return without_islands(found, before, is_open=is_open, one_piece=args.largest_component, names=names)

        probabilities = (possible(one) for teacher in teachers for one in teacher.probabilities_by_fold(name, case))
        rules = {"names": names, "threshold": args.threshold, "ignore": labels["ignore"]}
        new, agreement = agreed_labels(probabilities, before, is_open=is_open, **rules)
        return new, asdict(agreement)

    read = [*source.files, *(labelled.files if labelled else [])]
    with new_dataset(args.output, force=args.force, made_from=read, request=request) as folder:
        kept = label_cases(source, folder, label, say, also_decides=missing)
        partial = missing if any(missing.values()) else {}
        annotated = [case for case, values in partial.items() if len(values) < len(names)]
        table = pseudo_label_table(kept, args.least_share, annotated)
        chosen = table["case"][~table["left_out"]].to_list()
        if not chosen and labelled is None:
            largest = table["foreground_share"].fillna(0.0).max()
            raise UserError(f"Every case would be left out. The largest share is {largest:.2f}; lower --least-share.")
        for name in set(kept) - set(chosen):
            remove_label_map(folder / "labelsTr" / f"{name}{source.ending}")
        cases = {name: source.cases[name] for name in chosen}
        copy_dense_labels(source, folder)
        if labelled is not None:
            copy_annotated(labelled, folder)
            cases |= labelled.cases
        write_text(folder / TABLE, table.to_csv(index=False, lineterminator="\n"))
        draw_cases(doubtful_cases(table), source, folder, labels)
        about = {"made_by": "pseudo-label", **rule, "least_share": args.least_share}
        about |= {"labelled_from": source.folder.name}
        about |= {"with": labelled and labelled.folder.name, "models": [teacher.origin() for teacher in teachers]}
        about |= roles_in(source.description)
        write_description(folder, args.output, cases, {**source.description, "labels": labels}, about=about)
        folds = folds_for(source, labelled, chosen)
        if folds and not has_empty_part(folds):
            write_json(folder / SPLITS, folds)
        CaseProgress(folder).close()

    print_outcome(table, names, args.threshold)
    if has_empty_part(folds):
        print("The folds are not kept, as one would have no case left for a part: nnU-Net will draw new ones.")
    is_single = labelled is not None and not folds
    if is_single:
        print("There are no folds: the one annotated case is for training. Score the model on other annotated cases.")
    print(f"\nWrote {raw_folder(args.output)}\n{next_steps(args.output, fold='all' if is_single else None)}")
    return 0


def say(found: Mapping[str, Any]) -> str:
    """A case in a line."""
    share = found["foreground_share"]
    if not found["open_voxels"]:
        return "annotated in full"
    return f"{found['labelled_voxels'] / found['open_voxels']:.1%} of the open voxels labelled" + (
        "" if share is None else f", {share:.0%} of the foreground that a model sees"
    )


def draw_cases(cases: list[str], source: RawDataset, folder: Path, labels: Mapping[str, int]) -> None:
    """Draw the new labels of cases, and what is ignored, each as a PNG in the folder of pictures."""
    import numpy as np

    from nnunet_ext.preprocessing.raw.places import patient_axes
    from nnunet_ext.preprocessing.raw.raw_dataset import read_images, read_label_map
    from nnunet_ext.pseudo_labels.datasets import PICTURES
    from nnunet_ext.report.cases import Label
    from nnunet_ext.report.overlays import LABEL_COLOURS, draw_overlay, visible

    *colours, white = LABEL_COLOURS
    named = [Label(name, (value,)) for name, value in labels.items() if value]
    shown = {label: colours[place % len(colours)] for place, label in enumerate(named[:-1])} | {named[-1]: white}
    reader = source.reader_writer()
    for case in cases:
        image, properties = read_images(reader, source.cases[case])
        found, _ = read_label_map(reader, folder / "labelsTr" / f"{case}{source.ending}")
        spacing = [float(value) for value in properties["spacing"]]
        (folder / PICTURES).mkdir(exist_ok=True)
        with written_whole(folder / PICTURES / f"{case}.png") as temporary:
            nothing, axes = np.zeros_like(found), patient_axes(properties)
            picture = visible(image) if len(source.cases[case].images) == 1 else image[0]
            temporary.write_bytes(draw_overlay(picture, found, nothing, spacing, shown, axes=axes))


def print_outcome(table: pd.DataFrame, names: Mapping[int, str], threshold: float) -> None:
    """Show what was labelled in all, and the cases of which the least was."""
    from nnunet_ext.pseudo_labels.datasets import PICTURES
    from nnunet_ext.pseudo_labels.table import doubtful_cases

    kept = table[~table["left_out"]]
    counts = [[name, str(kept[f"voxels_{name}"].sum())] for name in names.values()]
    print(f"\n{aligned([['label', 'voxels added'], *counts])}")
    if kept.empty:
        largest = table["foreground_share"].fillna(0.0).max()
        print(
            f"No case was kept: the largest share is {largest:.2f}. Do not train on this. Take a lower --least-share, "
            "a lower --threshold or a better model."
        )
    elif not kept["open_voxels"].any():
        print("No voxel was open: every voxel of every case has a label already.")
    elif not kept["labelled_voxels"].any():
        print(
            f"No voxel was labelled: nowhere do the models agree with a mean probability of {threshold}. Do not train "
            "on this. Take a lower --threshold or a better model."
        )
    elif not any(int(count) for _, count in counts):
        print("No voxel was labelled as foreground. Take a lower --threshold or a better model.")
    if len(kept) < len(table):
        print(f"Left out: {some(table['case'][table['left_out']])}.")
    if doubtful := doubtful_cases(table):
        print(f"Least sure, to be looked at in {PICTURES}: {', '.join(doubtful)}.")
