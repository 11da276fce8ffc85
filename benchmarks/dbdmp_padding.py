"""Whether padding leaves DBDMP's supervised terms: ``python -m benchmarks.dbdmp_padding --out FOLDER``.

Padding leaves the pseudo-label terms in any case. In the supervised ones, Tversky and symmetric cross-entropy, it could
count as background. Trains both ways on MS lesions of which 30 % are annotated, in 2d patches that are larger than the
slices, so that more than half of a patch is padding; scores each model against all lesions of a patient whom it has not
seen. Writes ``dbdmp_padding.md``. Needs nnUNet_raw with Dataset702_MSLesionPatches.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiment import assignments, exit_status, raw_dataset_folder, resumable_steps, run_until_stopped
from benchmarks.partial_instances import PLANS, PREPARING, PartialInstances, copy_dataset, environment
from benchmarks.partial_instances_grid import DBDMP, ORIGIN, PRIMARY_KEEP, SEEDS, Labels, Method, Run, datasets_of
from benchmarks.provenance import markdown_table, provenance, provenance_lines
from benchmarks.steps import open_folder, recorded_commands, training_commits
from nnunet_ext.demo.run import available_cores, choose_device
from nnunet_ext.files import write_json, write_text
from nnunet_ext.plans.plans_file import read_plans

PROGRAM = "benchmarks.dbdmp_padding"
ADVICE = "The experiment is made from it."
LEARNING_RATE, EPOCHS, STEPS = 2e-3, 12, 25
FLAT = "2d_quick"
COARSE: Mapping[str, Any] = {"patch_size": [96, 96], "batch_size": 8}
BACKGROUND = Method("padding_is_background", "dbdmp", "nnUNetTrainerDBDMPSupervisedPadding")
METHODS = (DBDMP, BACKGROUND)
SHOWN = {"Dice": "dice_mean", "lesion recall": "recall", "lesion precision": "precision", "lesion F1": "f1"}


@dataclass(frozen=True)
class DBDMPPadding(PartialInstances):
    """The commands of the experiment."""

    def prepare(self, labels: Labels) -> None:
        """Write, plan and preprocess a dataset for 2d; the preset gets patches that are larger than the slices."""
        number, name = str(labels.number), labels.name
        simulate = ["nnunet_ext", "simulate", "instances", ORIGIN, "-o", name]
        self.steps.run(f"simulate_{name}", [*simulate, "--keep", f"{labels.keep:g}", "--seed", str(labels.seed)])
        plan = ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", "2d", "-npfp", "1", "-np", "1"]
        self.steps.run(f"plan_{name}", plan)
        self.extend(f"quick_{name}", ["nnunet_ext", "plan", "-d", number, "--preset", "quick", "-c", "2d"])
        file = self.out / "nnUNet_preprocessed" / name / f"{PLANS}.json"
        plans = read_plans(file)
        plans["configurations"][FLAT].update(COARSE)
        write_json(file, plans)

    def configure(self, run: Any, settings: Mapping[str, Any]) -> None:
        """Write the configuration of a training."""
        command = ["nnunet_ext", "configure", "-d", str(run.labels.number), "-c", FLAT, "--name", run.name]
        self.extend(f"configure_{run.name}", [*command, *assignments(settings)])

    def run_both(self) -> None:
        """Do all that is missing."""
        copy_dataset(raw_dataset_folder(ORIGIN, advice=ADVICE), self.out / "nnUNet_raw" / ORIGIN)
        for labels in datasets_of(planned_runs()):
            self.prepare(labels)
        for run in planned_runs():
            self.train(run, lr=LEARNING_RATE)
            self.evaluate(run)


def planned_runs() -> list[Run]:
    """Both ways, seed by seed."""
    return [Run(method, PRIMARY_KEEP, seed) for seed in SEEDS for method in METHODS]


def rows_of(experiment: DBDMPPadding) -> list[list[str]]:
    """The figures of each way and seed that is finished."""
    rows = []
    for run in planned_runs():
        evaluation = experiment.evaluation(run.name)
        if evaluation is not None:
            label = evaluation["datasets"][0]["labels"]["lesion"]
            values = {**label, **label.get("lesions", {})}
            way = "background" if run.method is BACKGROUND else "left out"
            rows.append([way, str(run.seed), *(f"{values[key]:.3f}" for key in SHOWN.values())])
    return rows


def write(experiment: DBDMPPadding, folder: Path) -> None:
    """Write what is finished."""
    rows = rows_of(experiment)
    if not rows:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return
    commands = [f"python -m {PROGRAM} --out $OUT --device {experiment.device}", "# which ran, for the first seed:"]
    commands += recorded_commands(experiment.steps.runner, experiment.out)[:14]
    origin = provenance(torch.device(experiment.device), commands)
    origin["commit"] = training_commits(experiment.steps.finished())
    lines = [
        "# Padding in DBDMP's supervised terms: MS lesions, 30 % annotated",
        "",
        f"{ORIGIN}, 2d, patch 96 × 96 on slices of 64 × 64, batch 8, {EPOCHS * STEPS} steps of AdamW",
        f"{LEARNING_RATE:g}; scored against all lesions of one patient for each seed. The pseudo-label terms leave",
        "padding out both ways.",
        "",
        *markdown_table(["padding in Tversky and SCE", "seed", *SHOWN], rows),
        "",
        *provenance_lines(origin),
    ]
    write_text(folder / "dbdmp_padding.md", "\n".join(lines) + "\n")
    print("\n".join(lines[:14]), flush=True)


def run_benchmark(args: argparse.Namespace) -> None:
    """Run what is missing and write the results, also of a part."""
    out, device = args.out.resolve(), choose_device(args.device)
    raw_dataset_folder(ORIGIN, advice=ADVICE)
    open_folder(out, {"device": device}, folders=("logs", "evaluations"))
    runs = planned_runs()
    variables = environment(out, cores=available_cores())
    steps = resumable_steps(out, variables, total=PREPARING * len(datasets_of(runs)) + 3 * len(runs), max_minutes=None)
    experiment = DBDMPPadding(out, device, EPOCHS, STEPS, [LEARNING_RATE], steps, EPOCHS)
    run_until_stopped(experiment.run_both, lambda: write(experiment, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if a command failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--results", type=Path, help="folder for dbdmp_padding.md (default: OUT)")
    args = parser.parse_args(argv)
    return exit_status("dbdmp_padding", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
