"""MixUp beside stock nnU-Net on real scans: ``python -m benchmarks.hippocampus_mixup --out FOLDER``.

Plans, trains both on fold 0 from the same seed, predicts the cases that neither saw, evaluates, and writes
``hippocampus_mixup.json`` and ``.md``. Needs nnUNet_raw with Dataset004_Hippocampus. Every step is one of nnU-Net's own
commands or of this package's; a step that was finished is not run again, and a training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.experiment import raw_dataset_folder
from benchmarks.provenance import markdown_table, provenance, provenance_lines, write_results
from benchmarks.resampling import Estimate, estimate
from benchmarks.steps import (
    Steps,
    epoch_seconds,
    open_folder,
    recorded_commands,
    resume_option,
    training_commits,
)
from nnunet_ext.cli import FINE, PROBLEM, WRONG_USAGE
from nnunet_ext.demo.run import (
    CommandFailed,
    CommandRunner,
    HeldOut,
    available_cores,
    child_environment,
    choose_device,
    find_held_out,
    link_or_copy,
)
from nnunet_ext.demo.stopping import stopping_signals_interrupt
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.report.sources import PredictedFolder, read_evaluation
from nnunet_ext.report.summary import Evaluation
from nnunet_ext.report.training import read_training

DATASET = "Dataset004_Hippocampus"
NUMBER = "4"
PLANS = "nnUNetPlans"
CONFIGURATION = "3d_fullres_bench"
TRAINERS = {"stock nnU-Net": "nnUNetTrainerConfigurable", "MixUp": "nnUNetTrainerMixUp"}
# one seed gives both trainings the same initial weights and batches; the layout is fixed so that times compare
SETTINGS = {"memory_format": "channels_last"}
COMMANDS = 9
MIN_MEAN_DICE = 0.75
BOOTSTRAP_SEED = 0


def open_run(out: Path, request: Mapping[str, Any]) -> None:
    """Make the output folder with a link to the dataset in it, or see that it was begun with the same request.

    Raises:
        UserError: if it was not, or if there is no dataset.
    """
    dataset = raw_dataset_folder(
        DATASET,
        advice="Get Task04_Hippocampus of the Medical Segmentation Decathlon and convert it: "
        "nnUNetv2_convert_MSD_dataset -i Task04_Hippocampus",
    )
    open_folder(out, request, folders=("logs", "predictions"))
    link = out / "nnUNet_raw" / DATASET
    if not link.exists():
        link_or_copy(dataset, link)


def model_folder(out: Path, trainer: str) -> Path:
    """Where nnU-Net keeps a trained model."""
    return out / "nnUNet_results" / DATASET / f"{trainer}__{PLANS}__{CONFIGURATION}"


def run_commands(steps: Steps, out: Path, *, epochs: int | None, seed: int, device: str) -> dict[str, PredictedFolder]:
    """Plan, train, predict and evaluate.

    Returns:
        What each trainer left, by the name that the results call it.
    """
    dataset, preprocessed = out / "nnUNet_raw" / DATASET, out / "nnUNet_preprocessed" / DATASET
    steps.run(
        "plan_and_preprocess",
        ["nnUNetv2_plan_and_preprocess", "-d", NUMBER, "-c", "3d_fullres", "-npfp", "2", "-np", "2"],
    )
    length = [] if epochs is None else ["--epochs", str(epochs)]
    steps.run("plan_quick", ["nnunet_ext", "plan", "-d", NUMBER, "--preset", "quick", *length])
    settings = [f"{key}={value}" for key, value in {"seed": seed, **SETTINGS}.items()]
    configure = ["nnunet_ext", "configure", "-d", NUMBER, "-c", "3d_fullres_quick", "--name", CONFIGURATION, *settings]
    steps.run("configure", configure)
    for trainer in TRAINERS.values():
        steps.run(
            f"train_{trainer}",
            ["nnUNetv2_train", NUMBER, CONFIGURATION, "0", "-tr", trainer, "-device", device],
            extra=resume_option(model_folder(out, trainer) / "fold_0"),
        )
    shutil.rmtree(out / "held_out", ignore_errors=True)  # links only; an interrupted run may have made half of them
    held_out = find_held_out(dataset, preprocessed, out / "held_out")
    return {
        name: predict_and_evaluate(steps, out, name, trainer, held_out, device) for name, trainer in TRAINERS.items()
    }


def predict_and_evaluate(
    steps: Steps, out: Path, name: str, trainer: str, held_out: HeldOut, device: str
) -> PredictedFolder:
    """Predict the held-out cases with one model, and evaluate."""
    model, predictions = model_folder(out, trainer), out / "predictions" / trainer
    predict = ["nnUNetv2_predict", "-d", NUMBER, "-i", str(held_out.images), "-o", str(predictions)]
    predict += ["-c", CONFIGURATION, "-f", "0", "-tr", trainer, "-device", device, "-npp", "1", "-nps", "1"]
    steps.run(f"predict_{trainer}", predict)
    evaluate = ["nnUNetv2_evaluate_folder", str(held_out.labels), str(predictions), "-np", "2"]
    evaluate += ["-djfile", str(model / "dataset.json"), "-pfile", str(model / "plans.json")]
    steps.run(f"evaluate_{trainer}", evaluate)
    return PredictedFolder(name, model / "fold_0", predictions / "summary.json", predictions, held_out.images)


def paired_differences(stock: Evaluation, other: Evaluation) -> dict[str, Estimate]:
    """Mean over the cases of Dice(other) - Dice(stock), for each label and for the mean over the labels."""
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    pairs = {label.name: (scores.dice, other.labels[label].dice) for label, scores in stock.labels.items()}
    pairs["mean"] = (stock.cases.dice, other.cases.dice)
    return {name: estimate(paired(first, second), np.mean, rng) for name, (first, second) in pairs.items()}


def paired(first: Mapping[str, float], second: Mapping[str, float]) -> np.ndarray:
    """second - first for the cases where both are defined.

    Raises:
        UserError: if they are not about the same cases.
    """
    if first.keys() != second.keys():
        raise UserError(f"The evaluations differ in these cases: {', '.join(sorted(first.keys() ^ second.keys()))}.")
    values = np.array([second[case] - first[case] for case in first])
    return values[~np.isnan(values)]


def collected(out: Path, runs: Mapping[str, PredictedFolder]) -> dict[str, Any]:
    """The figures of a finished run, as plain data."""
    evaluations = {name: read_evaluation(run) for name, run in runs.items()}
    seconds = {name: epoch_seconds(read_training(run.fold_folder).curves) for name, run in runs.items()}
    split = read_json(out / "nnUNet_preprocessed" / DATASET / "splits_final.json")[0]
    stock, other = evaluations.values()
    models = {
        name: {
            "trainer": TRAINERS[name],
            "dice": {
                **{label.name: scores.mean for label, scores in evaluation.labels.items()},
                "mean": evaluation.foreground_mean,
            },
            "epochs": len(seconds[name]),
            "training_seconds": sum(seconds[name]),
            "median_epoch_seconds": median(seconds[name]),
        }
        for name, evaluation in evaluations.items()
    }
    return {
        "dataset": DATASET,
        "training_cases": len(split["train"]),
        "evaluated_cases": stock.cases.count,
        "models": models,
        "paired_difference": {name: part.as_dict() for name, part in paired_differences(stock, other).items()},
        "dice_of_cases": {name: dict(evaluation.cases.dice) for name, evaluation in evaluations.items()},
    }


def scope_line(content: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    """What was run and what was not."""
    epochs = next(iter(content["models"].values()))["epochs"]
    return (
        f"{content['dataset']}, preset `quick` (network of 8 base features), {epochs} epochs of 50 steps, AdamW, seed "
        f"{request['seed']} for both, device {request['device']}: trained on the {content['training_cases']} training "
        f"cases of fold 0, evaluated on the {content['evaluated_cases']} cases outside of it. One fold, one seed and a "
        "short training with a small network: it shows that both run end to end and what they reach here. The interval "
        "is over cases only and says nothing about other seeds; other folds, longer trainings and full-size networks "
        "were not run."
    )


def result_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """The figures as Markdown."""
    names = list(content["paired_difference"])
    rows = [
        [
            name,
            *(f"{model['dice'][part]:.4f}" for part in names),
            f"{model['training_seconds'] / 60:.1f} min",
            f"{model['median_epoch_seconds']:.1f} s",
        ]
        for name, model in content["models"].items()
    ]
    differences = [
        [
            part,
            f"{values['value']:+.4f}",
            f"{values['low']:+.4f} to {values['high']:+.4f}",
            f"{values['lower_quartile']:+.4f} to {values['upper_quartile']:+.4f}",
        ]
        for part, values in content["paired_difference"].items()
    ]
    return [
        "# MixUp beside stock nnU-Net on Hippocampus",
        "",
        scope_line(content, request),
        "",
        "Mean Dice over the cases:",
        "",
        *markdown_table(["", *names, "training", "median epoch"], rows),
        "",
        "Times are wall times of the epochs, without the final validation; other load on the machine is in them. What",
        "a step costs is compared by `benchmarks.step_time`.",
        "",
        "Dice of MixUp minus Dice of stock nnU-Net, case by case:",
        "",
        *markdown_table(["", "mean difference", "95 % bootstrap interval", "quartiles of the cases"], differences),
        "",
    ]


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hippocampus_mixup", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    parser.add_argument("--epochs", type=int, help="epochs of 50 steps (default: the preset's)")
    parser.add_argument("--seed", type=int, default=0, help="of both trainings (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--results", type=Path, help="folder for hippocampus_mixup.json and .md (default: OUT)")
    return parser


def run_benchmark(args: argparse.Namespace) -> dict[str, Any]:
    """Run what is missing, write the results and return them."""
    out = args.out.resolve()
    device = choose_device(args.device)
    request = {"epochs": args.epochs, "seed": args.seed, "device": device}
    open_run(out, request)
    environment = child_environment(out, os.environ, cores=available_cores())
    steps = Steps(CommandRunner(environment, out / "logs", total=COMMANDS), out / "finished.json")
    with stopping_signals_interrupt():
        runs = run_commands(steps, out, epochs=args.epochs, seed=args.seed, device=device)
    content = collected(out, runs)
    origin = provenance(torch.device(device), recorded_commands(steps.runner, out))
    origin["commit"] = training_commits(steps.finished())
    lines = [*result_lines(content, request), *provenance_lines(origin)]
    write_results((args.results or out) / "hippocampus_mixup", {**content, "request": request, **origin}, lines)
    print("\n".join(lines))
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 if a command failed or a model stayed below the Dice it should reach, 2 for wrong usage."""
    args = build_parser().parse_args(argv)
    try:
        content = run_benchmark(args)
    except UserError as error:
        print(f"hippocampus_mixup: {error}", file=sys.stderr)
        return WRONG_USAGE
    except CommandFailed as error:
        print(f"hippocampus_mixup: {error}", file=sys.stderr)
        return PROBLEM
    except KeyboardInterrupt:
        print("hippocampus_mixup: interrupted; the same command goes on from here.", file=sys.stderr)
        return 130
    low = [name for name, model in content["models"].items() if model["dice"]["mean"] < MIN_MEAN_DICE]
    if low:
        print(f"hippocampus_mixup: mean Dice below {MIN_MEAN_DICE}: {', '.join(low)}.", file=sys.stderr)
    return PROBLEM if low else FINE


if __name__ == "__main__":
    sys.exit(main())
