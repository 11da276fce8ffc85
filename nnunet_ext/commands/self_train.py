"""Self-training: a teacher labels cases, a student learns from them and teaches in turn, while held-out cases improve.

Round 0 trains the trainer on the cases of --with, or takes the --teacher that is given. In each further round the best
model so far labels the cases of -d (nnunet_ext pseudo-label: what it is not sure of becomes the ignore label), and the
trainer is trained on these and on the labelled cases, by nnUNetv2_train with the plans of the labelled dataset. Then it
is scored on the held-out cases, which nothing is trained on: the validation cases of the fold, or --held-out. Other
cases of their patients are refused, too, where --patients or pairs.json in a dataset names them.

A round is better if the mean over the held-out cases of its Dice minus that of the best round before is above --margin.
The first round that is not better ends the self-training, and so does a teacher that labels no foreground, or --rounds.
The best round is kept. OUT/report.html shows the rounds, why they ended, and which model to use.

The rounds are datasets of nnU-Net with the ids --id, --id + 1, and so on. A run that was interrupted goes on if the
same is asked again; --rounds may be higher then. Examples:

    nnunet_ext self-train -d 12 --with 5 -c 3d_fullres -tr nnUNetTrainerConfigurable --id 601 -o SELF_TRAINING
    nnunet_ext self-train -d 12 --with 5 -c 2d -tr nnUNetTrainer --teacher MODEL --held-out 8:all --id 611 -o RUN
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nnunet_ext.arguments import (
    DEVICES,
    add_interval_options,
    add_largest_component_option,
    dataset_and_cases,
    fold_name,
    fraction,
    not_negative_number,
    positive,
    probability,
)
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import check_apart
from nnunet_ext.folders import prepare_output_folder
from nnunet_ext.messages import aligned
from nnunet_ext.nnunet_folders import DATA, folder_of_variable, preprocessed_folder
from nnunet_ext.nnunet_names import PLANS
from nnunet_ext.plans.plans_file import check_configuration, read_plans
from nnunet_ext.programs import check_system
from nnunet_ext.registration import register


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-d", "--dataset", required=True, help="id or name of the raw dataset to label, see nnunet_ext unlabelled")
    add("--with", dest="labelled", required=True, metavar="DATASET", help="id or name of the labelled, planned dataset")
    add("-c", "--configuration", required=True, help="configuration in the plans of the labelled dataset")
    add("-tr", "--trainer", required=True, help="class name of the students' trainer")
    add("-p", "--plans", default=PLANS, help="plans identifier (default: %(default)s)")
    add("-f", "--fold", type=fold_name, default=0, help="fold of the labelled dataset, or all (default: %(default)s)")
    add("--id", dest="first_id", type=positive, required=True, metavar="N", help="id of the first round's dataset")
    add(
        "-o",
        "--output",
        "--out",
        type=Path,
        required=True,
        metavar="OUT",
        help="folder for the state, scores and the page",
    )
    teacher = "model folder TRAINER__PLANS__CONFIGURATION of round 0 (default: train on the labelled cases)"
    add("--teacher", type=Path, metavar="MODEL_FOLDER", help=teacher)
    folds = "folds of the teacher; several must agree (default: FOLD)"
    add("--teacher-folds", type=fold_name, nargs="+", metavar="FOLD", help=folds)
    weights = "start each student from its teacher's weights, but for the heads (default: from scratch)"
    add("--continue-from-teacher", action="store_true", help=weights)
    held_out = "labelled cases to score on, as for nnunet_ext evaluate --on (default: the validation cases of the fold)"
    add("--held-out", type=dataset_and_cases, metavar="DATASET[:CASES]", help=held_out)
    add("--rounds", type=positive, default=3, metavar="N", help="maximum number of students (default: %(default)s)")
    margin = "mean gain in Dice that a round must exceed to be better (default: %(default)s)"
    add("--margin", type=not_negative_number, default=0.0, metavar="DICE", help=margin)
    threshold = "probability from which a voxel is labelled (default: %(default)s)"
    add("--threshold", type=probability, default=0.8, metavar="P", help=threshold)
    least = "leave out a case if less than this share of the foreground that the teacher sees was labelled as "
    add("--least-share", type=fraction, default=0.0, metavar="S", help=f"{least}foreground (default: %(default)s)")
    add_largest_component_option(add, purpose="what is predicted away from a body is no label")
    add_interval_options(parser, purpose="the intervals and the held-out cases")
    add("--device", choices=DEVICES, default="auto", help="device to train and predict on (default: %(default)s)")
    add("--disable-tta", action="store_true", help="predict without mirroring: faster, less accurate")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.programs import CommandFailed

    check_system()
    try:
        with only_run(args.output):
            return self_train(args)
    except CommandFailed as error:
        print(f"nnunet_ext self-train: {error}\nRepeat nnunet_ext self-train to go on.", file=sys.stderr)
        return 1


def self_train(args: argparse.Namespace) -> int:
    """Check what was asked, begin or go on, and say what came of it."""
    from nnunet_ext.checkpoints.networks import find_trainer
    from nnunet_ext.checkpoints.trained_model import find_trained_model
    from nnunet_ext.evaluation.case_sets import select_cases
    from nnunet_ext.evaluation.patients import read_patients
    from nnunet_ext.jobs.preparation import prepare_splits
    from nnunet_ext.machine import choose_device
    from nnunet_ext.plans.cascades import PREVIOUS, inherited_value
    from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
    from nnunet_ext.self_training.checks import check_data, check_free
    from nnunet_ext.self_training.page import commands_to_use, write_page
    from nnunet_ext.self_training.rounds import SelfTraining
    from nnunet_ext.self_training.state import STATE, SelfTrainingRequest, State, read_state

    register()
    unlabelled, labelled = read_raw_dataset(args.dataset), read_raw_dataset(args.labelled)
    file = preprocessed_folder(labelled.folder.name) / f"{args.plans}.json"
    plans = read_plans(file)
    check_configuration(plans, args.configuration, file=file)
    if inherited_value(plans["configurations"], args.configuration, PREVIOUS) is not None:
        raise UserError(
            f"{args.configuration} is the second stage of a cascade, which cannot label by itself. Choose another."
        )
    if not getattr(find_trainer(args.trainer), "segments", True):
        raise UserError(f"{args.trainer} is a pre-training and does not segment. Choose another trainer.")
    folder = args.output.absolute()
    begun = (folder / STATE).is_file()
    if not begun and args.teacher is None and args.teacher_folds:
        raise UserError("--teacher-folds are those of --teacher. Give the model's folder, or leave them out.")
    teacher_folds = list(dict.fromkeys(args.teacher_folds or [args.fold]))
    teacher = None if args.teacher is None else find_trained_model(args.teacher, teacher_folds)
    if args.fold != "all":
        prepare_splits(file.parent)
    dataset, selection = args.held_out or (labelled.folder.name, "val")
    held_out = select_cases(dataset, selection, folds=[args.fold])
    if teacher is not None and held_out.selection == "val" and teacher_folds != [args.fold]:
        raise UserError("Validation cases are those of one fold. Leave --teacher-folds out, or give other --held-out.")
    if args.patients is not None:
        read_patients(args.patients, held_out.cases)
    request = SelfTrainingRequest(
        unlabelled=unlabelled.folder.name,
        labelled=labelled.folder.name,
        held_out=f"{held_out.dataset}:{held_out.selection}",
        first_id=args.first_id,
        trainer=args.trainer,
        configuration=args.configuration,
        plans=args.plans,
        fold=args.fold,
        teacher=None if teacher is None else str(teacher.folder.resolve()),
        teacher_folds=teacher_folds,
        continue_from_teacher=args.continue_from_teacher,
        threshold=args.threshold,
        least_share=args.least_share,
        margin=args.margin,
        mirroring=not args.disable_tta,
        patients=None if args.patients is None else str(args.patients.resolve()),
        resamples=args.bootstrap,
        folders={variable: str(folder_of_variable(variable).absolute()) for variable in DATA},
        largest_component=args.largest_component,
    )
    check_apart(args.output, [*unlabelled.files, *labelled.files, *([] if teacher is None else [teacher.folder])])
    remarks = check_data(unlabelled, labelled, held_out, args.fold, teacher, patients=args.patients)
    state = read_state(folder, request) if begun else State(request, remarks=remarks)
    training = SelfTraining(folder, state, device=choose_device(args.device), most=args.rounds)
    if not training.reason:
        check_free([args.first_id + number - 1 for number in range(max(1, state.begun), args.rounds + 1)])
    if not begun:
        prepare_output_folder(folder, force=False)
        state.write(folder)
    training.run(lambda: write_page(training))
    page = write_page(training)
    print(f"\n{aligned(training.table())}\n\n{training.reason} The best is round {training.best.number}.")
    print("".join(f"{remark}\n" for remark in state.remarks), end="")
    print("\n".join(["\nNext:", *(f"  {line}" for line in commands_to_use(training.best)), f"\nWrote {page}"]))
    return 0 if any(one.dice is not None for one in training.state.rounds[1:]) else 1
