"""Is this dataset right for that trainer?

Reads every image and label map of a raw dataset, those for testing included. It looks at what nnU-Net needs of any
dataset, at cases that have the same images, and at what the trainer needs beyond that: for nnUNetTrainerDBDMP the
number and sizes of the annotated instances, cases and folds without any, and the set of labels; for nnUNetTrainerTDNet,
DMPLS and PartialCE the ignore label, scribbles of each label (background included) by case and fold, and their
agreement with labelsTr_dense, if it is there; for nnUNetTrainerPartialLabels the lists of annotated labels by case and
fold, and whether they contradict the label maps.

With -c, it looks at the plans too: whether the configuration is there, its settings are valid and the trainer can do
what it asks, whether every case is preprocessed, whether the model fits that a fine-tuning starts from, and whether a
batch has two patches to mix.

It changes nothing. Exit status 0 if there is no problem (warnings alone count as none), 1 if there is one. Examples:

    nnunet_ext check -d 712 --trainer nnUNetTrainerDBDMP
    nnunet_ext check -d 27 --trainer nnUNetTrainerTDNet -c 3d_fullres
"""

import argparse

from nnunet_ext.arguments import add_plans_options
from nnunet_ext.errors import UserError
from nnunet_ext.findings import Finding, problems_and_warnings
from nnunet_ext.nnunet_folders import preprocessed_folder
from nnunet_ext.nnunet_names import PLANS
from nnunet_ext.registry import technique_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_plans_options(parser)
    parser.add_argument("-tr", "--trainer", required=True, help="trainer to check the dataset for")
    parser.add_argument("-c", "--configuration", help="check this configuration of the plans too")


def run(args: argparse.Namespace) -> int:
    technique, entry = technique_of(args.trainer)
    if args.configuration is None and args.plans != PLANS:
        raise UserError("-p is for the check of a configuration. Add -c CONFIGURATION, or leave it out.")

    from nnunet_ext.preprocessing.checks import check_dataset
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset

    dataset = read_raw_dataset(args.dataset)
    findings = check_dataset(dataset, technique.checks)
    if args.configuration is not None:
        from nnunet_ext.checkpoints.networks import find_trainer  # torch takes seconds to import
        from nnunet_ext.diagnosis.planned_training import check_planned_training

        asked = {"plans_name": args.plans, "configuration": args.configuration}
        try:
            folder = preprocessed_folder(dataset.folder.name)
        except UserError as error:
            findings += [Finding("problem", "plans", str(error))]
        else:
            findings += check_planned_training(find_trainer(entry.name), dataset, folder, **asked)
    print(f"{dataset.folder.name} for {entry.name}: {entry.summary}\n")
    print(*findings, sep="\n")
    problems, _, found = problems_and_warnings(findings)
    print(f"\n{found or 'No problem'} found.")
    return 1 if problems else 0
