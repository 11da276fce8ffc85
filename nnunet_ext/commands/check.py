"""Is this dataset right for that trainer?

Reads every image and label map of a raw dataset and looks at what nnU-Net needs of any dataset, and at what the trainer
needs beyond that: for nnUNetTrainerDBDMP the number and sizes of the annotated instances, cases and folds without any,
and the set of labels; for nnUNetTrainerTDNet, DMPLS and PartialCE the ignore label, scribbles of each label (background
included) by case and fold, and their agreement with labelsTr_dense, if it is there. It changes nothing. Exit status 0
if there is no problem (warnings alone count as none), 1 if there is one. Examples:

    nnunet_ext check -d 712 --trainer nnUNetTrainerDBDMP
    nnunet_ext check -d 27 --trainer nnUNetTrainerTDNet
"""

from __future__ import annotations

import argparse

from nnunet_ext.commands.doctor import count, counted, layout
from nnunet_ext.errors import UserError
from nnunet_ext.registry import TRAINERS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", "--dataset", required=True, help="id or name of the raw dataset")
    parser.add_argument("-tr", "--trainer", required=True, help="trainer that is to learn from it")


def run(args: argparse.Namespace) -> int:
    entry = next((entry for entry in TRAINERS if entry.name == args.trainer), None)
    if entry is None:
        names = ", ".join(entry.name for entry in TRAINERS)
        raise UserError(f"There is no trainer {args.trainer!r} in this package. It has: {names}.")

    from nnunet_ext.preprocessing.checks import check_dataset
    from nnunet_ext.preprocessing.raw_dataset import read_raw_dataset

    dataset = read_raw_dataset(args.dataset)
    findings = check_dataset(dataset, entry.name)
    print(f"{dataset.folder.name} for {entry.name}: {entry.technique}\n")
    for finding in findings:
        print(layout(finding))
    print(f"\n{counted(count(findings, 'problem'), count(findings, 'warning')) or 'No problem'} found.")
    return 1 if count(findings, "problem") else 0
