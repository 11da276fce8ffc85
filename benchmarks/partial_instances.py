"""Learning from partially annotated instances on real scans: ``python -m benchmarks.partial_instances --out FOLDER``.

Takes most of the lesions out of the labels of a dataset that has all, trains nnU-Net and DBDMP on what is left, with
parts of DBDMP taken out as well, and scores each model against all lesions of a patient whom it has not seen. Learning
rates are chosen beforehand on a patient who is in no test. Writes ``partial_instances.json`` and ``.md``. Needs
nnUNet_raw with Dataset702_MSLesionPatches. Every step is one of nnU-Net's own commands or of this package's; a step
that was finished is not run again, and a training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.experiment import (
    Experiment,
    assignments,
    environment_of,
    exit_status,
    learning_rate,
    raw_dataset_folder,
    resumable_steps,
    run_until_stopped,
    shared_settings,
    shown_commands,
)
from benchmarks.partial_instances_grid import (
    ORIGIN,
    STAGES,
    STOCK,
    Labels,
    Pilot,
    Pretraining,
    Run,
    datasets_of,
    planned_pilots,
    planned_runs,
)
from benchmarks.partial_instances_results import Trained, collected, dense_dice, result_lines
from benchmarks.pilot import chosen_lrs
from benchmarks.provenance import REPOSITORY, provenance, provenance_lines, write_results
from benchmarks.steps import open_folder, recorded_commands, training_commits
from nnunet_ext.arguments import positive
from nnunet_ext.demo.run import available_cores, choose_device
from nnunet_ext.registration import VARIABLE

PLANS, BASE, QUICK = "nnUNetPlans", "3d_fullres", "3d_fullres_quick"
PRETRAINING_LR = 2e-3  # the preset's
ABLATIONS = REPOSITORY / "benchmarks" / "ablations"
PARTS = ("imagesTr", "labelsTr", "instancesTr")
PREPARING = 3  # commands for each dataset


@dataclass(frozen=True)
class PartialInstances(Experiment):
    """The commands of the experiment.

    Attributes:
        pretraining_epochs: of the pre-training.
    """

    pretraining_epochs: int

    def model(self, run: Run | Pilot | Pretraining) -> Path:
        """nnU-Net's folder of a model."""
        trainer = run.trainer if isinstance(run, Pretraining) else run.method.trainer
        return self.out / "nnUNet_results" / run.labels.name / f"{trainer}__{PLANS}__{run.name}"

    def checkpoint(self, run: Run | Pretraining) -> Path:
        """The final checkpoint of a training."""
        return self.model(run) / f"fold_{run.fold}" / "checkpoint_final.pth"

    def prepare(self, labels: Labels) -> None:
        """Write, plan and preprocess a dataset."""
        number, name = str(labels.number), labels.name
        simulate = ["nnunet_ext", "simulate", "instances", ORIGIN, "-o", name]
        simulate += ["--keep", f"{labels.keep:g}", "--seed", str(labels.seed)]
        self.steps.run(f"simulate_{name}", simulate)
        plan = ["nnUNetv2_plan_and_preprocess", "-d", number, "-c", BASE, "-npfp", "2", "-np", "2"]
        self.steps.run(f"plan_{name}", plan)
        self.extend(f"quick_{name}", ["nnunet_ext", "plan", "-d", number, "--preset", "quick"])

    def configure(self, run: Run | Pilot | Pretraining, settings: Mapping[str, Any]) -> None:
        """Write the configuration of a training."""
        configure = ["nnunet_ext", "configure", "-d", str(run.labels.number), "-c", QUICK, "--name", run.name]
        self.extend(f"configure_{run.name}", [*configure, *assignments(settings)])

    def command(self, run: Run | Pilot | Pretraining, trainer: str) -> list[str]:
        """What trains a model."""
        command = ["nnUNetv2_train", str(run.labels.number), run.name, str(run.fold), "-tr", trainer]
        return [*command, "-p", PLANS, "-device", self.device]

    def train(self, run: Run | Pilot, *, lr: float) -> None:
        """Train a model, and pre-train what it starts from if that is not done."""
        settings = shared_settings(epochs=self.epochs, iterations=self.iterations, seed=run.seed, lr=lr)
        if run.method.family != STOCK.family:
            settings["dbdmp.ramp_epochs"] = ramp_epochs(self.epochs)
        self.configure(run, {**settings, **run.method.settings})
        command = self.command(run, run.method.trainer)
        if run.method.is_pretrained:
            command += ["-pretrained_weights", str(self.pretrain(Pretraining(run.seed)))]
        self.train_here(f"train_{run.name}", command, self.model(run) / f"fold_{run.fold}")

    def pretrain(self, pretraining: Pretraining) -> Path:
        """Train without labels; returns the checkpoint."""
        settings = shared_settings(
            epochs=self.pretraining_epochs, iterations=self.iterations, seed=pretraining.seed, lr=PRETRAINING_LR
        )
        self.configure(pretraining, settings)
        folder = self.model(pretraining) / f"fold_{pretraining.fold}"
        self.train_here(f"train_{pretraining.name}", self.command(pretraining, pretraining.trainer), folder)
        return self.checkpoint(pretraining)

    def evaluate(self, run: Run | Pilot) -> None:
        """Score a model against all lesions of the fold's validation cases."""
        options = ["--on", f"{run.labels.number}:val", "--labels", "labelsTr_dense", "--instances", "instancesTr"]
        options += ["--metrics", "dice", "surface", "lesions", "--workers", "1"]
        self.evaluate_here(run.name, self.model(run), run.fold, options)

    def choose_lrs(self) -> dict[str, float]:
        """Do what is missing of the pilot; returns the learning rate of each family.

        Raises:
            UserError: if all trainings of a family came out without a Dice.
        """
        for pilot in planned_pilots(self.lrs):
            self.train(pilot, lr=pilot.lr)
            self.evaluate(pilot)
        return chosen_lrs(self.pilot_scores())

    def pilot_scores(self) -> dict[str, dict[float, float]]:
        """Dice against all lesions by family and learning rate, of the trainings that are finished."""
        scores: dict[str, dict[float, float]] = {}
        for pilot in planned_pilots(self.lrs):
            evaluation = self.evaluation(pilot.name)
            if evaluation is not None:
                scores.setdefault(pilot.method.family, {})[pilot.lr] = dense_dice(evaluation)
        return scores

    def run_grid(self, runs: Sequence[Run]) -> None:
        """Do all that is missing."""
        copy_dataset(
            raw_dataset_folder(ORIGIN, advice="The experiment is made from it."), self.out / "nnUNet_raw" / ORIGIN
        )
        for labels in datasets_of([*planned_pilots(self.lrs), *runs]):
            self.prepare(labels)
        lrs = self.choose_lrs()
        for run in runs:
            self.train(run, lr=lrs[run.method.family])
            self.evaluate(run)


def ramp_epochs(epochs: int) -> int:
    """How long the pseudo labels' factor rises: a third of the training, as the paper's 99 of 300 epochs."""
    return max(1, round(epochs / 3))


def copy_dataset(source: Path, target: Path) -> None:
    """Copy what is needed of the raw dataset, whole or not at all, so that the folder can be moved as a whole.

    Args:
        source: the user's, which may be read-only.
        target: one that is there stays as it is.
    """
    if target.exists():
        return
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for part in PARTS:
        (unfinished / part).mkdir(parents=True)
        for file in sorted((source / part).iterdir()):
            shutil.copyfile(file, unfinished / part / file.name)
    for name in ("dataset.json", "splits_final.json"):
        shutil.copyfile(source / name, unfinished / name)
    unfinished.rename(target)


def environment(out: Path, *, cores: int) -> dict[str, str]:
    """The variables of all commands, with the trainers of the ablations among those that nnU-Net finds."""
    variables = environment_of(out, cores=cores)
    variables[VARIABLE] = os.pathsep.join([variables[VARIABLE], str(ABLATIONS)])
    return variables


def results_of(experiment: PartialInstances) -> dict[str, Any] | None:
    """The figures of what is finished; None before anything of the grid is."""
    trained = {}
    for run in planned_runs("full"):
        evaluation = experiment.evaluation(run.name)
        if evaluation is not None:
            trained[run] = Trained.of(evaluation, experiment.checkpoint(run))
    return collected(trained, experiment.pilot_scores()) if trained else None


def write(experiment: PartialInstances, request: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Write the results of what is finished and return them; nothing before a run is scored."""
    content = results_of(experiment)
    if content is None:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return None
    lrs = " ".join(f"{lr:g}" for lr in request["lrs"])
    options = f"--epochs {request['epochs']} --steps {request['iterations']} --lrs {lrs}"
    options += f" --pretrain-epochs {request['pretraining_epochs']} --device {request['device']}"
    commands = [
        f"python -m benchmarks.partial_instances --out $OUT {options}",
        f"# which copied {ORIGIN} to $OUT/nnUNet_raw and ran, in the repository's root:",
        *recorded_commands(experiment.steps.runner, experiment.out),
    ]
    origin = provenance(torch.device(request["device"]), commands)
    origin["commit"] = training_commits(experiment.steps.finished())
    lines = result_lines(content, request)
    lines += provenance_lines({**origin, "commands": shown_commands(commands, content["finished_runs"])})
    write_results(folder / "partial_instances", {**content, "request": request, **origin}, lines)
    print("\n".join(lines))
    return content


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.partial_instances", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument(
        "--until", choices=STAGES, default="full", help="how far to go in the grid of runs (default: %(default)s)"
    )
    parser.add_argument("--max-minutes", type=float, help="begin no step after this time; results are written then")
    parser.add_argument("--epochs", type=positive, default=15, help="of a training (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=30, help="in an epoch (default: %(default)s)")
    parser.add_argument("--pretrain-epochs", type=positive, help="of a pre-training (default: as of a training)")
    parser.add_argument(
        "--lrs", type=learning_rate, nargs="+", default=[1e-3, 3e-3], help="to choose from (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, help="folder for partial_instances.json and .md (default: OUT)")
    return parser


def run_benchmark(args: argparse.Namespace) -> dict[str, Any] | None:
    """Run what is missing and write the results, also of a part where something ends the run early."""
    out, device, lrs = args.out.resolve(), choose_device(args.device), list(dict.fromkeys(args.lrs))
    request = {
        "epochs": args.epochs,
        "iterations": args.steps,
        "pretraining_epochs": args.pretrain_epochs or args.epochs,
        "lrs": lrs,
        "device": device,
    }
    raw_dataset_folder(ORIGIN, advice="The experiment is made from it.")
    open_folder(out, request, folders=("logs", "evaluations"))
    runs, pilots = planned_runs(args.until), planned_pilots(lrs)
    pretrainings = {run.seed for run in runs if run.method.is_pretrained}
    total = PREPARING * len(datasets_of([*pilots, *runs])) + 3 * (len(pilots) + len(runs)) + 2 * len(pretrainings)
    variables = environment(out, cores=available_cores())
    steps = resumable_steps(out, variables, total=total, max_minutes=args.max_minutes)
    experiment = PartialInstances(out, device, args.epochs, args.steps, lrs, steps, request["pretraining_epochs"])
    return run_until_stopped(lambda: experiment.run_grid(runs), lambda: write(experiment, request, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if a command failed, 2 for wrong usage."""
    args = build_parser().parse_args(argv)
    return exit_status("partial_instances", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
