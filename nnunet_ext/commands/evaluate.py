"""Score a trained model on cases of one or several datasets, side by side.

So a tuned model is scored on its own data and on the data of the model it was tuned from, which shows what it has
forgotten. Predicts with nnU-Net's predictor and scores by nnU-Net's own Dice. Labels are matched by name. A case where
a label is in neither reference nor prediction has no Dice; it is left out of the label's mean and counted. OUT gets the
predictions, evaluation.json and evaluation.csv; a run that was interrupted goes on if the same is asked again. Asked
again with other metrics, it scores the predictions that are there.

Beside the mean of the cases' Dice stands aggregated Dice (DSCagg): of each label, twice the volume that reference and
prediction share, summed over the cases, by the sum of both their volumes; and the mean over the labels that some case
has. In brackets are 95 % bootstrap intervals over patients. Where a patient has several cases, say so with --patients:
else the intervals are too narrow.

Metrics beside Dice: surface is ASSD and HD95 in mm, of the cases where reference and prediction both have the label
(MONAI's: voxels at the surface, each counted alike). nsd is normalized surface Dice: the share of these voxels that are
at most --tolerance away from the other surface; 0 where only one of reference and prediction has the label. Which
deviation is harmless is for you to say: the tolerance has no default. lesions counts instances, over all cases: one of
the reference is found if a tenth of it is predicted, a predicted one is right if a tenth of it is in the reference
(--overlap); recall, precision and F1 follow.

--thresholds draws precision against recall: at each threshold T a label is every voxel whose probability is at least T,
each label by itself. operating_points.csv has precision, recall and F1 of the sums over the cases, in voxels (there F1
is Dice) and, with the metric lesions, in instances; operating_points.png shows them. Beside the predictions it is kept
which thresholds each voxel reaches, so that only new thresholds predict again, one case after the other. Choose a
threshold on validation cases, and report its scores on others.

With several folders after --labels, one set of predictions is scored against each of them, in a column of its own.
Scoring that takes longer than some seconds goes on in several processes (--workers); the scores are the same. Example:

    nnunet_ext evaluate nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__2d --on 4 -o OUT
    nnunet_ext evaluate TUNED_MODEL --on 27:val --on 4:all -f 1 -o OUT
    nnunet_ext evaluate MODEL --on 702:val --labels labelsTr_dense --metrics dice surface lesions -o OUT
    nnunet_ext evaluate MODEL --on 702:val --metrics nsd --tolerance tumour=1 2 -o OUT
    nnunet_ext evaluate MODEL --on 702:val --labels labelsTr labelsTr_dense --workers 4 -o OUT
    nnunet_ext evaluate MODEL --on 702:val --labels labelsTr_dense --metrics lesions --thresholds -o OUT
    nnunet_ext evaluate MODEL --on 702:test --thresholds 0.5 0.95 -o OUT
    nnunet_ext evaluate MODEL --on 811:val --patients nnUNet_raw/Dataset811_Heart/pairs.json -o OUT
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunet_ext.arguments import add_interval_options, fold_name, not_negative_number, positive, probability, share
from nnunet_ext.errors import UserError

REQUEST = "request.json"
METRICS = ("dice", "surface", "nsd", "lesions")


def dataset_and_cases(text: str) -> tuple[str, str | None]:
    """``DATASET`` or ``DATASET:CASES``."""
    dataset, colon, selection = text.partition(":")
    if not dataset or (colon and selection not in ("test", "val", "all")):
        raise argparse.ArgumentTypeError(f"{text} is not DATASET, DATASET:test, DATASET:val or DATASET:all")
    return dataset, selection or None


def tolerance(text: str) -> tuple[str | None, float]:
    """``LABEL=MM``, or ``MM`` for the labels that are not named."""
    label, equals, number = text.rpartition("=")
    if equals and not label:
        raise argparse.ArgumentTypeError(f"{text} names no label before the =")
    try:
        return label or None, not_negative_number(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is neither LABEL=MM nor MM, as {number!r} is no number") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL_FOLDER", help="nnU-Net's TRAINER__PLANS__CONFIGURATION")
    parser.add_argument(
        "--on",
        type=dataset_and_cases,
        action="append",
        required=True,
        metavar="DATASET[:CASES]",
        help="dataset id or name, and its cases: test (imagesTs with labelsTs), val (the validation cases of the fold, "
        "by the dataset's splits_final.json) or all (imagesTr with labelsTr); without: test if each image in imagesTs "
        "has a label, else val. Can be given several times",
    )
    parser.add_argument(
        "-f", "--folds", type=fold_name, nargs="+", default=[0], metavar="FOLD", help="of the model (default: 0)"
    )
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        default=["dice"],
        help="what to score by; dice is always among it (default: dice)",
    )
    parser.add_argument(
        "--tolerance",
        type=tolerance,
        nargs="+",
        metavar="[LABEL=]MM",
        help="for nsd: in mm, for a label by its name, or as a number alone for all others; each label needs one",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="FOLDER",
        help="folders of the dataset to take the references from, such as labelsTr_dense; each is scored against for "
        "itself (default: labelsTr, labelsTs)",
    )
    parser.add_argument(
        "--instances",
        metavar="FOLDER",
        help="for lesions: folder of the dataset with maps of the references' instances, such as instancesTr. Without, "
        "and for labels that they leave out, instances are connected components of the reference",
    )
    parser.add_argument(
        "--overlap",
        type=share,
        default=0.1,
        metavar="SHARE",
        help="for lesions: share of an instance's voxels that must overlap for it to count as found, or as right "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--thresholds",
        type=probability,
        nargs="*",
        metavar="T",
        help="of the probability, above 0 and below 1, to draw precision against recall at; without numbers, 21 from "
        "0.001 to 0.999",
    )
    add_interval_options(parser, purpose="the intervals")
    parser.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="processes to score with, at most; each holds a whole case in memory (default: the cores that are "
        "available, but not more than 8)",
    )
    parser.add_argument("--checkpoint", default="checkpoint_final.pth", help="default: %(default)s")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: %(default)s")
    parser.add_argument("--disable-tta", action="store_true", help="predict without mirroring: faster, less accurate")
    parser.add_argument("--force", action="store_true", help="empty OUT first, if this command made it")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.checkpoints.trained_model import find_trained_model
    from nnunet_ext.evaluation.case_sets import select_cases
    from nnunet_ext.evaluation.evaluation_files import remarks, results_table, write_results
    from nnunet_ext.evaluation.intervals import with_intervals
    from nnunet_ext.evaluation.machine import FEW_CORES, available_cores, choose_device, default_workers
    from nnunet_ext.evaluation.model_evaluation import (
        check_inputs,
        load_predictor,
        match_labels,
        predict_missing,
        request,
    )
    from nnunet_ext.evaluation.operating_point_files import (
        OPTIMISTIC,
        operating_points_table,
        remarks_on_operating_points,
        write_operating_points,
    )
    from nnunet_ext.evaluation.operating_points import DEFAULT_THRESHOLDS
    from nnunet_ext.evaluation.patients import read_patients
    from nnunet_ext.evaluation.scoring import Metrics, score
    from nnunet_ext.evaluation.tolerances import tolerances_by_label
    from nnunet_ext.registration import register

    if args.instances is not None and "lesions" not in args.metrics:
        raise UserError("--instances is for the lesions alone. Add lesions to --metrics, or leave --instances out.")
    if args.tolerance is not None and "nsd" not in args.metrics:
        raise UserError("--tolerance is for NSD alone. Add nsd to --metrics, or leave --tolerance out.")
    if args.tolerance is None and "nsd" in args.metrics:
        raise UserError(
            "NSD needs a tolerance, as only you can say which deviation is harmless. Add --tolerance MM, or "
            "--tolerance LABEL=MM for each label."
        )
    if args.labels is not None and len(set(map(Path, args.labels))) < len(args.labels):
        raise UserError(f"--labels names a folder twice: {' '.join(args.labels)}.")
    if args.patients is not None and not args.bootstrap:
        raise UserError("--patients is for the intervals alone. Leave it or --bootstrap 0 out.")
    register()
    device = choose_device(args.device)
    model = find_trained_model(args.model, list(dict.fromkeys(args.folds)), checkpoint=args.checkpoint)
    case_sets = [
        select_cases(dataset, selection, folds=model.folds, references=references, instances=args.instances)
        for dataset, selection in args.on
        for references in args.labels or [None]
    ]
    titles = [cases.title for cases in case_sets]
    if len(set(titles)) < len(titles):
        raise UserError(f"The same cases are given twice: {', '.join(titles)}.")
    every_case = dict.fromkeys(case for cases in case_sets for case in cases.cases)
    patients = None if args.patients is None else read_patients(args.patients, every_case)
    labels = {}
    for cases in case_sets:
        check_inputs(model.dataset_json, cases.description, name=cases.dataset)
        labels[cases.name] = match_labels(model.dataset_json, cases.description, name=cases.dataset)
    scored = dict.fromkeys(label for one in labels.values() for label in one.keys)
    metrics = Metrics(
        surface="surface" in args.metrics,
        lesions="lesions" in args.metrics,
        overlap=args.overlap,
        tolerances=tolerances_by_label(args.tolerance, scored) if args.tolerance else {},
        thresholds=() if args.thresholds is None else tuple(sorted(set(args.thresholds or DEFAULT_THRESHOLDS))),
    )
    mirroring = not args.disable_tta
    predictor = load_predictor(model, device=device, mirroring=mirroring)
    open_output(args.out, request(model, case_sets, mirroring=mirroring), force=args.force)

    results = []
    for cases in case_sets:
        folder = args.out / cases.name
        folder.mkdir(exist_ok=True)
        few_cores = available_cores() <= FEW_CORES
        predict_missing(
            predictor,
            cases,
            folder,
            log=args.out / "nnunet.log",
            few_cores=few_cores,
            labels=list(labels[cases.name].keys),
            thresholds=metrics.thresholds,
        )
        result = score(cases, labels[cases.name], folder, metrics, workers=args.workers or default_workers())
        results.append(with_intervals(result, patients, resamples=args.bootstrap) if args.bootstrap else result)
    write_results(args.out, model, results, mirroring=mirroring)
    print(f"\n{results_table(results)}")
    for result in results:
        for line in remarks(result):
            print(line)
    if metrics.thresholds:
        from nnunet_ext.evaluation.operating_point_picture import draw_operating_points  # matplotlib takes a while

        write_operating_points(args.out / "operating_points.csv", results)
        draw_operating_points(args.out / "operating_points.png", results)
        for result in results:
            print(f"\n{operating_points_table(result)}")
        for line in [line for result in results for line in remarks_on_operating_points(result)]:
            print(line)
        print(OPTIMISTIC)
        print(f"\nWrote {args.out / 'operating_points.csv'} and {args.out / 'operating_points.png'}")
    print(f"\nWrote {args.out / 'evaluation.json'}")
    return 0


def open_output(out: Path, wanted: dict[str, Any], *, force: bool) -> None:
    """Make the output folder, or go on in one where the same was asked.

    Args:
        out: the folder.
        wanted: what decides the predictions; it is recorded in the folder.
        force: begin anew.

    Raises:
        UserError: if the folder holds something else and `force` is off, or it was not made by this command.
    """
    from nnunet_ext.files import MARKER, prepare_output_folder, read_json, write_json

    record = out / REQUEST
    if record.is_file() and (out / MARKER).is_file() and not force:
        before = read_json(record)
        if before == wanted:
            return
        differing = ", ".join(key for key in wanted if before.get(key) != wanted[key])
        raise UserError(
            f"{out} holds an evaluation that differs in: {differing}. Choose another folder, or add --force to replace "
            "it."
        )
    prepare_output_folder(out, force=force)
    write_json(record, wanted)
