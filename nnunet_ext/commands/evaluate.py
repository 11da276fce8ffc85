"""Score a trained model on cases of datasets, or a folder of predictions.

MODEL_FOLDER with --on predicts the cases of one or several datasets with nnU-Net's predictor and scores them side by
side. So a tuned model is scored on its own data and on the data of the model it was tuned from, which shows what it has
forgotten. Validation cases (val) of another dataset that the model has trained on are refused.

--predictions FOLDER --labels FOLDER scores predictions that are there, whoever made them: ensembles, cascades, other
tools. Labels and file ending are those of the dataset.json in the folder of predictions, of the one beside the folder
of labels, or of --dataset-json.

Dice is nnU-Net's. A case with a label in neither reference nor prediction has no Dice; it is left out of the label's
mean and counted. Aggregated Dice (DSCagg) is computed once from all cases: twice the volume that reference and
prediction share, divided by the sum of both volumes. In brackets are 95 % bootstrap intervals over patients. Where a
patient has several cases, say so with --patients: otherwise the intervals are too narrow.

OUT gets evaluation.json (the summary), evaluation.csv (for spreadsheets: a row for each case, a column for each label
and metric), scores.csv (the scores table: a row for each case, label and metric, with numerator and denominator) and a
model's predictions. An interrupted run continues if the same is asked again. Asked again with other metrics, it scores
the predictions that are there.

Metrics beside Dice: surface is ASSD and HD95 in mm (MONAI's definition: voxels at the surface, each counted alike), for
cases where reference and prediction both have the label. nsd is normalized surface Dice: the share of these voxels that
are at most --tolerance away from the other surface. The tolerance has no default, because which deviation is harmless
is a clinical choice. lesions counts instances over all cases. One of the reference is found if a tenth of it is
predicted; a predicted one is right if a tenth of it is in the reference (--overlap).

--thresholds draws precision against recall, in voxels and, with the metric lesions, in instances. At each threshold a
label is every voxel whose probability reaches it. operating_points.csv has the numbers, operating_points.png the
curves. Only new thresholds predict again. Choose a threshold on validation cases, and report its scores on others: with
--threshold all metrics are those of the voxels that reach it, and the label maps in OUT stay nnU-Net's.

--largest-component scores what is left if predicted islands are removed, as nnU-Net's postprocessing removes them: of
the foreground as a whole, where all labels are parts of one body such as the heart, or of each label. The label maps in
OUT stay nnU-Net's; postprocessing.pkl in OUT is for nnUNetv2_apply_postprocessing.

Where dataset.json lists the labels that cases were annotated for, a case is scored for these alone (against labelsTr
and labelsTs; other folders of --labels have every label, and so has a test case that is not listed).

With several folders after --labels, one set of predictions is scored against each of them. Where only some cases have
complete labels, --partial scores a model on these. Scoring that takes longer than some seconds continues in several
processes (--workers); the scores are the same. Example:

    nnunet_ext evaluate nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__2d --on 4 -o OUT
    nnunet_ext evaluate TUNED_MODEL --on 27:val --on 4:all -f 1 -o OUT
    nnunet_ext evaluate --predictions ENSEMBLE --labels nnUNet_raw/Dataset004_Hippocampus/labelsTs -o OUT
    nnunet_ext evaluate --predictions CASCADE --labels LABELS --dataset-json dataset.json --json -o OUT
    nnunet_ext evaluate MODEL --on 702:val --labels labelsTr labelsTr_dense --metrics surface lesions -o OUT
    nnunet_ext evaluate MODEL --on 702:val --metrics nsd --tolerance tumour=1 2 -o OUT
    nnunet_ext evaluate MODEL --on 702:val --metrics lesions --thresholds 0.5 0.95 -o OUT
    nnunet_ext evaluate MODEL --on 702:val --largest-component foreground -o OUT
    nnunet_ext evaluate MODEL --on 811:val --patients nnUNet_raw/Dataset811_Heart/pairs.json -o OUT
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_ext import arguments
from nnunet_ext.arguments import (
    DEVICES,
    dataset_and_cases,
    fold_name,
    not_negative_number,
    positive,
    probability,
    share,
)
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.metrics import DICE, GROUPS, LESIONS_RECALL, NSD
from nnunet_ext.evaluation.metrics.label_in_case import OVERLAP
from nnunet_ext.files import check_apart
from nnunet_ext.nnunet_names import FINAL

if TYPE_CHECKING:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunet_ext.evaluation.case_sets import CaseSet
    from nnunet_ext.evaluation.scored_labels import ScoredLabels
    from nnunet_ext.evaluation.scoring import Options, Result

# options that need a model
OF_MODELS = ("on", "folds", "threshold", "thresholds", "checkpoint", "device", "disable_tta")

CURVES, CURVES_PICTURE = "operating_points.csv", "operating_points.png"


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
    add = parser.add_argument
    add("model", type=Path, nargs="?", metavar="MODEL_FOLDER", help="nnU-Net's TRAINER__PLANS__CONFIGURATION")
    on = (
        "dataset id or name, and its cases: test (imagesTs with labelsTs), val (the validation cases of the fold, by "
        "the dataset's splits_final.json) or all (imagesTr with labelsTr). The default is test if each image in "
        "imagesTs has a label, with --partial if one has, else val. Can be given several times"
    )
    add("--on", type=dataset_and_cases, action="append", metavar="DATASET[:CASES]", help=on)
    ensemble = "folds to predict with; several are an ensemble, as all five are in nnUNetv2_predict; val takes one "
    add("-f", "--folds", type=fold_name, nargs="+", metavar="FOLD", help=f"{ensemble}(default: 0)")
    add("--predictions", type=Path, metavar="FOLDER", help="score the label maps in this folder, in place of a model")
    described = "for --predictions: dataset.json with the labels and the file ending (default: the one among the "
    described += "predictions, or beside the folder of labels)"
    add("--dataset-json", type=Path, metavar="FILE", help=described)
    left_out = "score only the cases that have a label in every folder of --labels, and a prediction in that of "
    left_out += "--predictions (default: a missing file is an error)"
    add("--partial", action="store_true", help=left_out)
    add("-o", "--output", "--out", dest="out", type=Path, required=True, help="folder to write")
    add("--json", action="store_true", help="print evaluation.json, and nothing else, on stdout")
    metrics = "metrics to score by; dice is always among them (default: dice)"
    add("--metrics", nargs="+", choices=GROUPS, default=[DICE.group], help=metrics)
    millimetres = "for nsd: tolerance in mm, for a label by its name, or for all other labels; each label needs one"
    add("--tolerance", type=tolerance, nargs="+", metavar="[LABEL=]MM", help=millimetres)
    labels = (
        "folders with the references; each is scored against by itself. For a model they are folders of the dataset, "
        "such as labelsTr_dense (default: labelsTr, labelsTs); for --predictions they are paths"
    )
    add("--labels", nargs="+", metavar="FOLDER", help=labels)
    instances = (
        "for lesions: folder with maps of the references' instances, such as instancesTr (of the dataset for a model, "
        "a path for --predictions). Without it, and for labels that the maps leave out, instances are connected "
        "components of the reference"
    )
    add("--instances", metavar="FOLDER", help=instances)
    overlap = "for lesions: share of an instance's voxels that must overlap for it to count as found, or as right "
    add("--overlap", type=share, metavar="SHARE", help=f"{overlap}(default: {OVERLAP})")
    thresholds = "draw precision against recall at these thresholds of the probability, above 0 and below 1; without "
    thresholds += "numbers, at 21 from 0.001 to 0.999"
    decision = parser.add_mutually_exclusive_group()
    decision.add_argument("--thresholds", type=probability, nargs="*", metavar="T", help=thresholds)
    threshold = "score as a label every voxel whose probability reaches this threshold, in place of nnU-Net's decision"
    decision.add_argument("--threshold", type=probability, metavar="T", help=threshold)
    arguments.add_largest_component_option(decision.add_argument, purpose="score the largest component alone")
    arguments.add_interval_options(parser, purpose="the intervals")
    workers = "maximum number of processes that score; each holds a whole case in memory (default: the available "
    add("--workers", type=positive, metavar="N", help=f"{workers}cores, at most 8)")
    add("--checkpoint", help=f"file name of the checkpoint in each fold (default: {FINAL})")
    add("--device", choices=DEVICES, help="device to predict on (default: auto)")
    add("--disable-tta", action="store_true", help="predict without mirroring: faster, less accurate")
    add("--force", action="store_true", help="replace what is in OUT, if this command made it")


def run(args: argparse.Namespace) -> int:
    check_options(args)
    with only_run(args.out), redirect_stdout(sys.stderr if args.json else sys.stdout):
        summary = evaluate(args)
    if args.json:
        print(summary.read_text(encoding="utf-8"), end="")
    return 0


def check_options(args: argparse.Namespace) -> None:
    """Raises UserError if the options do not go together."""
    of_model = [f"--{name.replace('_', '-')}" for name in OF_MODELS if getattr(args, name) not in (None, False)]
    by_folder, nsd, folders = args.predictions is not None, NSD.group in args.metrics, args.labels or []
    refusals: dict[str, Any] = {
        "MODEL_FOLDER and --predictions exclude each other: score one of them.": by_folder and args.model is not None,
        f"{', '.join(of_model)}: only for a model. Leave them out.": by_folder and of_model,
        "--predictions needs --labels FOLDER, the folder with the references.": by_folder and args.labels is None,
        "Give MODEL_FOLDER and --on DATASET, or --predictions FOLDER and --labels FOLDER.": not by_folder
        and (args.model is None or args.on is None),
        "--dataset-json is only for --predictions. Leave it out for a model.": not by_folder
        and args.dataset_json is not None,
        "--instances is for the lesions alone. Add lesions to --metrics, or leave --instances out.": (
            args.instances is not None and LESIONS_RECALL.group not in args.metrics
        ),
        "--overlap is for the lesions alone. Add lesions to --metrics, or leave --overlap out.": (
            args.overlap is not None and LESIONS_RECALL.group not in args.metrics
        ),
        "--tolerance is for NSD alone. Add nsd to --metrics, or leave --tolerance out.": args.tolerance and not nsd,
        "NSD needs a tolerance, as only you can say which deviation is harmless. Add --tolerance MM, or --tolerance "
        "LABEL=MM for each label.": nsd and args.tolerance is None,
        f"--labels names a folder twice: {' '.join(folders)}. Leave one out.": len(set(map(Path, folders)))
        < len(folders),
        "--patients is for the intervals alone. Leave it or --bootstrap 0 out.": args.patients and not args.bootstrap,
    }
    for message, wrong in refusals.items():
        if wrong:
            raise UserError(message)


@dataclass(frozen=True)
class Job:
    """What to score."""

    sets: Sequence[tuple[CaseSet, ScoredLabels]]
    origin: Mapping[str, Any]  # what evaluation.json says about the predictions
    wanted: Mapping[str, Any]  # what decides the predictions
    read: Sequence[Path]  # files and folders
    remarks: Sequence[str] = ()
    load: Callable[[], nnUNetPredictor | None] = lambda: None  # the predictor; None for predictions that are there


def of_folder(args: argparse.Namespace) -> Job:
    """Predictions that are there."""
    from nnunet_ext.evaluation.predicted_folders import in_all_folders, predicted_cases

    folders, instances = list(map(Path, args.labels)), None if args.instances is None else Path(args.instances)
    more: dict[str, Any] = {"dataset_json": args.dataset_json, "instances": instances, "partial": args.partial}
    found = in_all_folders([predicted_cases(args.predictions, folder, **more) for folder in folders])
    wanted = {"predictions": str(args.predictions.resolve())}
    given: dict[str, Any] = {"partial": True} if args.partial else {}
    given |= {name: str(more[name].resolve()) for name in ("dataset_json", "instances") if more[name] is not None}
    return Job(
        sets=[(cases, labels) for cases, labels, _ in found],
        origin={**wanted, "labels": [str(folder.resolve()) for folder in folders], **given},
        wanted=wanted,
        read=[args.predictions, *folders, *filter(None, (args.dataset_json, instances))],
        remarks=[remark for _, _, remarks in found for remark in remarks],
    )


def of_model(args: argparse.Namespace) -> Job:
    """A model that predicts."""
    from nnunet_ext.checkpoints.trained_model import find_trained_model
    from nnunet_ext.evaluation.case_sets import labelled_cases, select_cases
    from nnunet_ext.evaluation.evaluation_files import origin_of_model, remark_on_folds
    from nnunet_ext.evaluation.model_evaluation import check_inputs, load_predictor, request
    from nnunet_ext.evaluation.scored_labels import match_labels
    from nnunet_ext.evaluation.trained_cases import check_not_trained_on
    from nnunet_ext.machine import choose_device
    from nnunet_ext.registration import register

    register()
    device, mirroring = choose_device(args.device or "auto"), not args.disable_tta
    folds = list(dict.fromkeys(args.folds or [0]))
    model = find_trained_model(args.model, folds, checkpoint=args.checkpoint or FINAL)
    more: dict[str, Any] = {"folds": model.folds, "instances": args.instances, "partial": args.partial}
    chosen = [
        select_cases(dataset, selection, references=references, **more)
        for dataset, selection in args.on
        for references in args.labels or [None]
    ]
    asked = chosen  # the same after further cases have got their labels
    chosen, remarks = labelled_cases(asked) if args.partial else (asked, [])
    for cases in chosen:
        check_inputs(model.dataset_json, cases.description, name=cases.dataset)
    for cases in {one.name: one for one in chosen}.values():
        remarks += check_not_trained_on(model, cases)
    every_case = [case for one in chosen for case in one.cases.values()]
    return Job(
        sets=[(one, match_labels(model.dataset_json, one.description, name=one.dataset)) for one in chosen],
        origin={**origin_of_model(model, mirroring=mirroring), **({"partial": True} if args.partial else {})},
        wanted=request(model, asked, mirroring=mirroring),
        read=[model.folder, *(file for case in every_case for file in (*case.images, case.label))],
        remarks=[*remark_on_folds(model), *remarks],
        load=partial(load_predictor, model, device=device, mirroring=mirroring),
    )


def evaluate(args: argparse.Namespace) -> Path:
    """Predict if a model is given, score, write and print; returns evaluation.json."""
    from nnunet_ext.checkpoints.postprocessing import PICKLE
    from nnunet_ext.evaluation.evaluation_files import JSON, remarks, results_table, write_results
    from nnunet_ext.evaluation.operating_points import DEFAULT_THRESHOLDS
    from nnunet_ext.evaluation.output_folder import open_output
    from nnunet_ext.evaluation.patients import read_patients
    from nnunet_ext.evaluation.scoring import Options, score
    from nnunet_ext.evaluation.tolerances import tolerances_by_label
    from nnunet_ext.machine import FEW_CORES, available_cores, default_workers

    job = of_model(args) if args.predictions is None else of_folder(args)
    titles = [cases.title for cases, _ in job.sets]
    if len(set(titles)) < len(titles):
        raise UserError(f"The same cases are given twice: {', '.join(titles)}. Leave one out.")
    every_case = dict.fromkeys(case for cases, _ in job.sets for case in cases.cases)
    scored = dict.fromkeys(label for _, labels in job.sets for label in labels.keys)
    patients = None if args.patients is None else read_patients(args.patients, every_case)
    options = Options(
        groups=tuple(args.metrics),
        overlap=OVERLAP if args.overlap is None else args.overlap,
        tolerances=tolerances_by_label(args.tolerance, scored) if args.tolerance else {},
        thresholds=() if args.thresholds is None else tuple(sorted(set(args.thresholds or DEFAULT_THRESHOLDS))),
        threshold=args.threshold,
        largest_component=args.largest_component,
    )
    of_models = {_in_one_order(labels.of_model) for _, labels in job.sets}
    if options.largest_component is not None and len(of_models) > 1:
        raise UserError(
            "The dataset.json beside the folders of labels differ in their labels, so that it is not known which are "
            "in the predictions. Add --dataset-json FILE, or score one folder at a time."
        )
    check_apart(args.out, job.read)
    predictor = job.load()
    few_cores, workers = available_cores() <= FEW_CORES, args.workers or default_workers()
    results = []
    with open_output(args.out, job.wanted, force=args.force, holds="an evaluation") as out:
        for cases, labels in job.sets:
            folder = args.predictions or out / cases.name
            if predictor is not None:
                from nnunet_ext.evaluation.model_evaluation import predict_missing

                folder.mkdir(exist_ok=True)
                log, names = out / "nnunet.log", list(labels.keys)
                predict_missing(
                    predictor, cases, folder, log=log, few_cores=few_cores, labels=names, thresholds=options.compared
                )
            results.append(
                score(cases, labels, folder, options, patients=patients, resamples=args.bootstrap, workers=workers)
            )
        write_postprocessing(out, options, of_models.pop())
        write_results(out, job.origin, results)
        write_curves(out, results)
    print(f"\n{results_table(results)}")
    for line in [*job.remarks, *(line for result in results for line in remarks(result))]:
        print(line)
    say_curves(args.out, results)
    if options.largest_component is not None:
        print(f"\nWrote {args.out / PICKLE}, for nnUNetv2_apply_postprocessing")
    print(f"\nWrote {args.out / JSON}")
    return args.out / JSON


def _in_one_order(keys: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    """A model's labels in the order of their values; regions as they are, as these may share values."""
    return keys if any(len(key) > 1 for key in keys) else tuple(sorted(keys))


def write_postprocessing(out: Path, options: Options, of_model: Sequence[tuple[int, ...]]) -> None:
    """Write nnU-Net's postprocessing that is scored, or remove what an earlier run wrote."""
    from nnunet_ext.checkpoints import postprocessing
    from nnunet_ext.evaluation.largest_component import pieces

    if options.largest_component is None:
        postprocessing.remove(out)
    else:
        postprocessing.write(out, pieces(options.largest_component, of_model))


def write_curves(out: Path, results: list[Result]) -> None:
    """Write precision against recall, or remove what an earlier run with thresholds wrote."""
    table, picture = out / CURVES, out / CURVES_PICTURE
    if not results[0].options.thresholds:
        table.unlink(missing_ok=True)
        picture.unlink(missing_ok=True)
        return
    from nnunet_ext.evaluation import operating_point_files as files  # matplotlib takes a while

    files.write_operating_points(table, results)
    files.draw_operating_points(picture, results)


def say_curves(out: Path, results: list[Result]) -> None:
    """Print what `write_curves` has written."""
    if not results[0].options.thresholds:
        return
    from nnunet_ext.evaluation import operating_point_files as files

    for result in results:
        print(f"\n{files.operating_points_table(result)}")
    for line in [line for result in results for line in files.remarks_on_operating_points(result)]:
        print(line)
    print(files.OPTIMISTIC)
    print(f"\nWrote {out / CURVES} and {out / CURVES_PICTURE}")
