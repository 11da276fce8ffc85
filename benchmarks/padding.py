"""What padding costs scribble supervision: ``python -m benchmarks.padding --out FOLDER``.

nnU-Net pads patches that reach beyond the image and calls the padding background. Trains TDNet, DMPLS, partial
cross-entropy and stock nnU-Net with its ignore label on real scribbles of the heart, each with padding taken for
annotated background and with padding left out, for 160 and for 1,000 steps, and scores each model against the full
masks of patients whom it has not seen. Writes ``padding.csv``, one row for each run, case and label, and
``padding.md``. Needs nnUNet_raw with Dataset027_ACDCScribble. A step that was finished is not run again.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.acdc import LABEL_NAMES, ORIGIN, Design, Fold, Inputs, Method, Run
from benchmarks.acdc_experiment import ADVICE, PLANS
from benchmarks.experiment import environment_of, exit_status, raw_dataset_folder, resumable_steps, run_until_stopped
from benchmarks.provenance import REPOSITORY, markdown_table, provenance, provenance_lines, with_interval
from benchmarks.scribbles import Scribbles, check_origin
from benchmarks.scribbles_grid import NNUNET, SCRIBBLES
from benchmarks.scribbles_results import DICE, HD95, Scored
from benchmarks.seed_estimates import seed_estimates
from benchmarks.steps import open_folder, recorded_commands, training_commits
from nnunet_ext.demo.run import available_cores, choose_device
from nnunet_ext.files import read_json, write_json, write_text
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.registration import VARIABLE, discovery_folder

PROGRAM = "benchmarks.padding"
ABLATIONS = REPOSITORY / "benchmarks" / "ablations"
LENGTHS = {160: (8, 20), 1000: (20, 50)}
"""Epochs and steps in an epoch, by steps in all."""

TRAINERS = {
    "stock, ignore label": (NNUNET, "nnUNetTrainerWithoutPadding"),
    "partial CE": ("nnUNetTrainerPartialCEPadding", "nnUNetTrainerPartialCE"),
    "DMPLS": ("nnUNetTrainerDMPLSPadding", "nnUNetTrainerDMPLS"),
    "TDNet": ("nnUNetTrainerTDNetPadding", "nnUNetTrainerTDNet"),
}
"""Classes with padding as annotated background, and with padding left out."""

PADDINGS = ("background", "left out")
EQUAL: Mapping[str, Any] = {"weight_decay": 3e-5}
LEARNING_RATE = 2e-3
COARSE: Mapping[str, Any] = {
    "spacing": [2.5, 2.5],
    "patch_size": [80, 80],
    "batch_size": 4,
    "data_identifier": f"{PLANS}_2d_coarse",
}
STAGES = 4


def method(name: str, steps: int, padding: str) -> Method:
    """A trainer, a length and what becomes of padding."""
    epochs, iterations = LENGTHS[steps]
    settings = {**EQUAL, "num_epochs": epochs, "num_iterations_per_epoch": iterations, "save_every": epochs}
    trainer = TRAINERS[name][PADDINGS.index(padding)]
    return Method(f"{name} {steps} {padding}", name, trainer, SCRIBBLES, "", settings)


def planned_runs(seeds: int) -> list[Run]:
    """Every run, the short ones first."""
    return [
        Run(method(name, steps, padding), seed)
        for steps in LENGTHS
        for seed in range(seeds)
        for name in TRAINERS
        for padding in PADDINGS
    ]


@dataclass(frozen=True)
class Padding(Scribbles):
    """The commands of the experiment."""

    inputs = (SCRIBBLES,)

    def plan(self, datasets: Sequence[Inputs], folds: Sequence[Fold]) -> None:
        """As for the other experiments, then a coarse variant of the preset, which a core trains in minutes."""
        super().plan(datasets, folds)
        (inputs,) = datasets
        shown = ["#", self.quick, "gets", *(f"{key}={value}" for key, value in COARSE.items())]
        self.steps.call("coarse", shown, lambda: self.coarsen(inputs))
        command = ["nnUNetv2_preprocess", "-d", str(inputs.number), "-plans_name", PLANS, "-c", self.quick, "-np", "1"]
        self.steps.run("preprocess_coarse", command)

    def coarsen(self, inputs: Inputs) -> None:
        """Give the preset another spacing, patch and depth."""
        file = self.preprocessed(inputs) / f"{PLANS}.json"
        plans = read_plans(file)
        chosen = plans["configurations"][self.quick]
        chosen.update(COARSE)
        kwargs = chosen["architecture"]["arch_kwargs"]
        for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
            kwargs[key] = kwargs[key][:STAGES]
        kwargs.update(n_stages=STAGES, n_conv_per_stage_decoder=kwargs["n_conv_per_stage_decoder"][: STAGES - 1])
        write_json(file, plans)

    def scored(self) -> dict[Run, Scored]:
        """The runs that are finished."""
        patients = read_json(self.patients)
        found = {run: self.evaluation(run.name) for run in planned_runs(self.design.seeds)}
        return {run: Scored.of(one, patients) for run, one in found.items() if one is not None}


def rows_of(scored: Mapping[Run, Scored]) -> list[Sequence[Any]]:
    """One row for each run, case and label."""
    rows: list[Sequence[Any]] = [
        ["method", "steps", "padding", "seed", "case", "patient", "label", "dice", "assd", "hd95"]
    ]
    for run, scores in scored.items():
        steps, padding = parts_of(run)
        for case, patient, by_label in zip(scores.cases, scores.case_patients, scores.means.tolist()):
            for label, values in zip(LABEL_NAMES, by_label):
                shown = ["" if value != value else f"{value:.6g}" for value in values]
                rows.append([run.method.family, steps, padding, run.seed, case, patient, label, *shown])
    return rows


def parts_of(run: Run) -> tuple[int, str]:
    """Steps and padding of a run."""
    steps, padding = run.method.name.removeprefix(run.method.family).strip().split(" ", 1)
    return int(steps), padding


def table_of(scored: Mapping[Run, Scored], seeds: int) -> list[str]:
    """Dice and HD95 of each method and length, with padding as background and left out, and the difference."""
    cells = []
    for steps in LENGTHS:
        for name in TRAINERS:
            before, after = ([Run(method(name, steps, padding), seed) for seed in range(seeds)] for padding in PADDINGS)
            both = [(one, other) for one, other in zip(before, after) if one in scored and other in scored]
            if not both:
                continue
            old, new = (seed_estimates([scored[pair[i]].scores() for pair in both]) for i in (0, 1))
            change = seed_estimates([scored[after].minus(scored[before]) for before, after in both])
            row = [
                name,
                str(steps),
                *(f"{of[DICE]['value']:.3f}" for of in (old, new)),
                with_interval(change[DICE], signed=True),
            ]
            row += [f"{of[HD95]['value']:.1f}" for of in (old, new)]
            cells.append([*row, ", ".join(str(one.seed) for one, _ in both)])
    header = [
        "",
        "steps",
        "Dice, padding as background",
        "Dice, left out",
        "difference",
        "HD95, mm",
        "left out",
        "seeds",
    ]
    return markdown_table(header, cells)


def write(experiment: Padding, request: Mapping[str, Any], folder: Path) -> None:
    """Write what is finished."""
    scored = experiment.scored()
    if not scored:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows_of(scored))
    write_text(folder / "padding.csv", text.getvalue())
    commands = [
        f"python -m {PROGRAM} --out $OUT --seeds {request['seeds']} --device {request['device']}",
        "# which ran:",
    ]
    commands += [
        line for line in recorded_commands(experiment.steps.runner, experiment.out) if " configure " not in line
    ]
    origin = provenance(torch.device(experiment.device), commands[:12])
    origin["commit"] = training_commits(experiment.steps.finished())
    lines = [
        "# Padding under the ignore label: ACDC's scribbles",
        "",
        f"{ORIGIN}, 2d at 2.5 mm, patch 80 × 80, batch 4, four stages of 8 to 64 features, AdamW {LEARNING_RATE:g}",
        f"for all, {request['patients']} training and {request['test_patients']} test patients for each seed, two",
        "scans each. All methods of a seed see the same batches. Differences with 95 % bootstrap intervals over",
        "patients and seeds.",
        "",
        *table_of(scored, experiment.design.seeds),
        "",
        *provenance_lines(origin),
    ]
    write_text(folder / "padding.md", "\n".join(lines) + "\n")
    print("\n".join(lines[:20]), flush=True)


def run_benchmark(args: argparse.Namespace) -> None:
    """Run what is missing and write the results, also of a part."""
    out, device = args.out.resolve(), choose_device(args.device)
    design = Design(args.patients, args.test_patients, args.seeds)
    request = {"patients": args.patients, "test_patients": args.test_patients, "seeds": args.seeds, "device": device}
    check_origin(raw_dataset_folder(ORIGIN, advice=ADVICE))
    open_folder(out, request, folders=("logs", "evaluations"))
    runs = planned_runs(design.seeds)
    environment = environment_of(out, cores=available_cores())
    environment[VARIABLE] = os.pathsep.join([str(discovery_folder()), str(ABLATIONS)])
    steps = resumable_steps(out, environment, total=5 + 3 * len(runs), max_minutes=args.max_minutes)
    experiment = Padding(out, device, 1, 1, [LEARNING_RATE], steps, "2d", design)

    def run() -> None:
        experiment.prepare()
        experiment.train_and_evaluate(runs)

    run_until_stopped(run, lambda: write(experiment, request, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if a command failed, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog=f"python -m {PROGRAM}", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--patients", type=int, default=64, help="to train on (default: %(default)s)")
    parser.add_argument("--test-patients", type=int, default=10, help="of each seed, at most (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--max-minutes", type=float, help="begin no step after this time; results are written then")
    parser.add_argument("--results", type=Path, help="folder for the two files (default: OUT)")
    args = parser.parse_args(argv)
    return exit_status("padding", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
