"""Fine-tuning with few cases after a domain shift: ``python -m benchmarks.few_shot --out FOLDER``.

Trains a source model, tunes it on 5, 1 and 10 cases of the target in every way that this package knows, and scores each
model on test cases of the target and of the source, which shows what it has forgotten. Learning rates are chosen
beforehand on cases that are neither for training nor for testing. Writes ``few_shot.json`` and ``.md``
(``few_shot_acdc`` for ``--shift acdc``). Needs nnUNet_raw with the dataset that the shift is made from. Every step is
one of nnU-Net's own commands or of this package's; a step that was finished is not run again, and a training goes on
where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.domain_shift import SHIFTS, Shift, origin_folder, write_datasets
from benchmarks.experiment import (
    Experiment,
    assignments,
    environment_of,
    exit_status,
    learning_rate,
    resumable_steps,
    run_until_stopped,
    shared_settings,
    shown_commands,
)
from benchmarks.few_shot_grid import STAGES, Pilot, Run, planned_pilots, planned_runs
from benchmarks.few_shot_results import Scored, Trained, collected, result_lines
from benchmarks.pilot import chosen_lrs
from benchmarks.provenance import provenance, provenance_lines, write_results
from benchmarks.steps import open_folder, recorded_commands, resume_option, training_commits
from nnunet_ext.arguments import positive
from nnunet_ext.demo.run import available_cores, choose_device
from nnunet_ext.files import read_json

PLANS, TARGET_PLANS = "nnUNetPlans", "nnUNetPlansSource"
BASE, QUICK, SOURCE_CONFIGURATION = "3d_fullres", "3d_fullres_quick", "3d_fullres_source"
SOURCE_TRAINER = "nnUNetTrainerConfigurable"
SOURCE_SETTINGS = {"seed": 0, "memory_format": "channels_last"}
SOURCE_MODEL = "source_model"
PREPARING = 8  # commands before the pilot


@dataclass(frozen=True)
class FewShot(Experiment):
    """The commands of the experiment, for one shift.

    Attributes:
        shift: the two datasets.
    """

    shift: Shift

    @property
    def source(self) -> str:
        """The source dataset's number."""
        return str(int(self.shift.source[7:10]))

    @property
    def target(self) -> str:
        """The target dataset's number."""
        return str(int(self.shift.target[7:10]))

    @property
    def source_model(self) -> Path:
        """nnU-Net's folder of the source model."""
        return self.out / "nnUNet_results" / self.shift.source / f"{SOURCE_TRAINER}__{PLANS}__{SOURCE_CONFIGURATION}"

    def model(self, run: Run | Pilot) -> Path:
        """nnU-Net's folder of a model that was trained on the target."""
        name = f"{run.method.trainer}__{TARGET_PLANS}__{run.name}"
        return self.out / "nnUNet_results" / self.shift.target / name

    def prepare(self) -> None:
        """Write, plan and preprocess both datasets, and train and score the source model."""
        write_datasets(self.shift, self.out / "nnUNet_raw")
        plan = "nnUNetv2_plan_and_preprocess"
        workers = ["-npfp", "2", "-np", "2"]
        self.steps.run("plan_source", [plan, "-d", self.source, "-c", BASE, *workers])
        self.extend("plan_quick", ["nnunet_ext", "plan", "-d", self.source, "--preset", "quick"])
        configure = ["nnunet_ext", "configure", "-d", self.source, "-c", QUICK, "--name", SOURCE_CONFIGURATION]
        self.extend("configure_source", [*configure, *assignments(SOURCE_SETTINGS)])
        # planning the target gives it its dataset.json and its folds; its plans are those of the source
        self.steps.run("plan_target", [plan, "-d", self.target, "-c", BASE, "-npfp", "2", "--no_pp"])
        move = ["nnUNetv2_move_plans_between_datasets", "-s", self.source, "-t", self.target]
        self.steps.run("move_plans", [*move, "-sp", PLANS, "-tp", TARGET_PLANS])
        preprocess = ["nnUNetv2_preprocess", "-d", self.target, "-plans_name", TARGET_PLANS]
        self.steps.run("preprocess_target", [*preprocess, "-c", BASE, "-np", "2"])
        train = ["nnUNetv2_train", self.source, SOURCE_CONFIGURATION, "0", "-tr", SOURCE_TRAINER]
        resume = resume_option(self.source_model / "fold_0")
        self.steps.run("train_source", [*train, "-device", self.device], extra=resume)
        self.evaluate(SOURCE_MODEL, self.source_model, 0)

    def train(self, run: Run | Pilot, *, seed: int, lr: float) -> None:
        """Configure and train a model on the target; nnU-Net's final validation belongs to the pilot alone."""
        settings = shared_settings(epochs=self.epochs, iterations=self.iterations, seed=seed, lr=lr)
        settings |= run.method.settings
        if run.method.is_tuned:
            # a variable of nnU-Net's, so that the folder can be moved
            checkpoint = self.source_model.relative_to(self.out / "nnUNet_results") / "fold_0" / "checkpoint_final.pth"
            settings["fine_tuning.source"] = f"$nnUNet_results/{checkpoint.as_posix()}"
        configure = ["nnunet_ext", "configure", "-d", self.target, "-p", TARGET_PLANS, "-c", QUICK]
        configure += ["--name", run.name, *assignments(settings)]
        self.extend(f"configure_{run.name}", configure)
        train = ["nnUNetv2_train", self.target, run.name, str(run.fold), "-tr", run.method.trainer]
        train += ["-p", TARGET_PLANS, "-device", self.device]
        fold_folder, name = self.model(run) / f"fold_{run.fold}", f"train_{run.name}"
        if isinstance(run, Pilot):
            self.steps.run(name, train, extra=resume_option(fold_folder))
        else:
            self.train_here(name, train, fold_folder)

    def evaluate(self, name: str, model: Path, fold: int) -> None:
        """Score a model on the test cases of both datasets."""
        self.evaluate_here(name, model, fold, ["--on", f"{self.target}:test", "--on", f"{self.source}:test"])

    def choose_lrs(self) -> dict[str, float]:
        """Train what is missing of the pilot; returns the learning rate of each family.

        Raises:
            UserError: if all trainings of a family came out without a Dice.
        """
        for pilot in planned_pilots(self.lrs):
            self.train(pilot, seed=0, lr=pilot.lr)
        return chosen_lrs(self.pilot_scores())

    def pilot_scores(self) -> dict[str, dict[float, float]]:
        """Mean Dice on the validation cases by family and learning rate, of the trainings that are finished."""
        finished = self.steps.finished()
        scores: dict[str, dict[float, float]] = {}
        for pilot in planned_pilots(self.lrs):
            if f"train_{pilot.name}" in finished:
                summary = read_json(self.model(pilot) / f"fold_{pilot.fold}" / "validation" / "summary.json")
                scores.setdefault(pilot.method.family, {})[pilot.lr] = float(summary["foreground_mean"]["Dice"])
        return scores

    def run_grid(self, runs: Sequence[Run]) -> None:
        """Do all that is missing."""
        self.prepare()
        chosen = self.choose_lrs()
        for run in runs:
            self.train(run, seed=run.seed, lr=chosen[run.method.family])
            self.evaluate(run.name, self.model(run), run.fold)

    def checkpoint(self, run: Run) -> Path:
        """The final checkpoint of a run."""
        return self.model(run) / f"fold_{run.fold}" / "checkpoint_final.pth"


def results_of(experiment: FewShot) -> dict[str, Any] | None:
    """The figures of what is finished; None before the source model is scored."""
    source_evaluation = experiment.evaluation(SOURCE_MODEL)
    if source_evaluation is None:
        return None
    trained = {}
    for run in planned_runs("full"):
        evaluation = experiment.evaluation(run.name)
        if evaluation is not None:
            trained[run] = Trained.of(evaluation, experiment.checkpoint(run), experiment.shift)
    source_model = Scored.of(source_evaluation, experiment.shift)
    return collected(experiment.shift, source_model, trained, experiment.pilot_scores())


def write(experiment: FewShot, request: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Write the results of what is finished and return them; nothing before the source model is scored."""
    content = results_of(experiment)
    if content is None:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return None
    options = f"--shift {request['shift']} --epochs {request['epochs']} --steps {request['iterations']}"
    lrs = " ".join(f"{lr:g}" for lr in request["lrs"])
    commands = [
        f"python -m benchmarks.few_shot --out $OUT {options} --lrs {lrs} --device {request['device']}",
        "# which wrote the raw datasets (benchmarks.domain_shift) and ran:",
        *recorded_commands(experiment.steps.runner, experiment.out),
    ]
    origin = provenance(torch.device(request["device"]), commands)
    origin["commit"] = training_commits(experiment.steps.finished())
    lines = result_lines(content, request, experiment.shift)
    lines += provenance_lines({**origin, "commands": shown_commands(commands, content["finished_runs"])})
    stem = "few_shot" if experiment.shift.name == "hippocampus" else f"few_shot_{experiment.shift.name}"
    write_results(folder / stem, {**content, "request": request, **origin}, lines)
    print("\n".join(lines))
    return content


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.few_shot", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    parser.add_argument("--shift", choices=list(SHIFTS), default="hippocampus", help="default: %(default)s")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument(
        "--until", choices=STAGES, default="full", help="how far to go in the grid of runs (default: %(default)s)"
    )
    parser.add_argument("--max-minutes", type=float, help="begin no step after this time; results are written then")
    parser.add_argument("--epochs", type=positive, default=5, help="of a training on the target (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=40, help="in an epoch (default: %(default)s)")
    parser.add_argument(
        "--lrs", type=learning_rate, nargs="+", default=[1e-3, 1e-2], help="to choose from (default: %(default)s)"
    )
    parser.add_argument("--results", type=Path, help="folder for few_shot.json and .md (default: OUT)")
    return parser


def run_benchmark(args: argparse.Namespace) -> dict[str, Any] | None:
    """Run what is missing and write the results, also of a part where something ends the run early."""
    out, shift = args.out.resolve(), SHIFTS[args.shift]
    device = choose_device(args.device)
    lrs = list(dict.fromkeys(args.lrs))
    request = {"shift": shift.name, "epochs": args.epochs, "iterations": args.steps, "lrs": lrs, "device": device}
    origin_folder(shift)
    open_folder(out, request, folders=("logs", "evaluations"))
    runs = planned_runs(args.until)
    total = PREPARING + 2 * len(planned_pilots(lrs)) + 3 * len(runs)
    environment = environment_of(out, cores=available_cores())
    steps = resumable_steps(out, environment, total=total, max_minutes=args.max_minutes)
    experiment = FewShot(out, device, args.epochs, args.steps, lrs, steps, shift)
    return run_until_stopped(lambda: experiment.run_grid(runs), lambda: write(experiment, request, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if a command failed, 2 for wrong usage."""
    args = build_parser().parse_args(argv)
    return exit_status("few_shot", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
