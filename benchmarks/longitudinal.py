"""Prior scans on real data: ``python -m benchmarks.longitudinal --out FOLDER``.

Segments the heart at the end of systole (the current scan), given the end of diastole with its mask (the prior): trains
nnU-Net without the prior and with it as further channels, and the dual encoder with its fusions, with and without prior
labels and MixUp; scores each model on patients whom it has not seen, and once more with the prior withheld. Learning
rates are chosen beforehand on patients who are in no test. Writes ``longitudinal.json`` and ``.md``. Needs nnUNet_raw
with Dataset027_ACDCScribble. Every step is one of nnU-Net's own commands or of this package's; a step that was finished
is not run again, and a training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk
import torch

from benchmarks.experiment import (
    Experiment,
    assignments,
    environment_of,
    exit_status,
    learning_rate,
    raw_dataset_folder,
    run_until_stopped,
    shared_settings,
    shown_commands,
)
from benchmarks.in_process import variables
from benchmarks.longitudinal_grid import (
    CURRENT,
    IMAGE,
    LABELS,
    ORIGIN,
    PILOT_FOLD,
    STAGES,
    TRAINING_INPUTS,
    WITHHELD,
    Design,
    Fold,
    Inputs,
    Pilot,
    Run,
    patient_groups,
    planned_pilots,
    planned_runs,
)
from benchmarks.longitudinal_results import Scored, Trained, collected, result_lines
from benchmarks.pilot import chosen_lrs
from benchmarks.provenance import provenance, provenance_lines, write_results
from benchmarks.steps import Steps, open_folder, recorded_commands, training_commits
from nnunet_ext.arguments import positive
from nnunet_ext.demo.run import CommandRunner, available_cores, choose_device
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json, write_text
from nnunet_ext.plans.channel_roles import LONGITUDINAL, roles_of_dataset
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.preprocessing.new_dataset import new_dataset, write_description
from nnunet_ext.preprocessing.raw_dataset import Case, RawDataset, read_raw_dataset

PLANS = "nnUNetPlans"
CONFIGURATIONS = ("3d_fullres", "2d")
LABEL_NAMES = {"RV": 1, "MYO": 2, "LV": 3}
ADVICE = "The experiment is made from it."
PREPARING = 2 + 2 * len(TRAINING_INPUTS)  # commands: two datasets of pairs; plan and preset for all
MUST_AGREE = ("spacing", "patch_size", "batch_size", "architecture")


@dataclass(frozen=True)
class Longitudinal(Experiment):
    """The commands of the experiment.

    Attributes:
        base: the planned configuration that the preset is put on.
        design: who is trained on and tested.
    """

    base: str
    design: Design

    @property
    def quick(self) -> str:
        """The configuration of the preset."""
        return f"{self.base}_quick"

    @property
    def table(self) -> Path:
        """The table of pairs."""
        return self.out / "pairs.csv"

    def raw(self, inputs: Inputs) -> Path:
        """The raw dataset."""
        return self.out / "nnUNet_raw" / inputs.name

    def preprocessed(self, inputs: Inputs) -> Path:
        """The preprocessed dataset."""
        return self.out / "nnUNet_preprocessed" / inputs.name

    def model(self, run: Run | Pilot) -> Path:
        """nnU-Net's folder of a model."""
        folder = f"{run.method.trainer}__{PLANS}__{run.name}"
        return self.out / "nnUNet_results" / run.method.inputs.name / folder

    def checkpoint(self, run: Run) -> Path:
        """The final checkpoint of a training."""
        return self.model(run) / f"fold_{run.fold}" / "checkpoint_final.pth"

    def prepare(self) -> None:
        """Write, plan and preprocess the datasets."""
        origin = raw_dataset_folder(ORIGIN, advice=ADVICE)
        pairs = read_json(origin / "two_phase_pairs.json")
        write_table(origin, pairs, self.table)
        folds = folds_of(origin, pairs, self.design)
        for inputs, options in ((LABELS, []), (IMAGE, ["--no-prior-labels"])):
            pair = ["nnunet_ext", "pair", "-o", inputs.name, "--table", str(self.table), "--modality", "cineMRI"]
            pair += ["--labels", *assignments(LABEL_NAMES), "--registration", "none", *options]
            self.steps.run(f"pair_{inputs.name}", pair)
        with variables(self.steps.runner.environment):
            with_prior = read_raw_dataset(LABELS.name)
            write_current(with_prior, self.raw(CURRENT))
            write_withheld(with_prior, self.raw(WITHHELD), cases_to_score(folds))
        for inputs in TRAINING_INPUTS:
            write_json(self.raw(inputs) / "splits_final.json", folds)  # planning takes it over
            plan = ["nnUNetv2_plan_and_preprocess", "-d", str(inputs.number), "-c", self.base, "-npfp", "2", "-np", "2"]
            self.steps.run(f"plan_{inputs.name}", plan)
            quick = ["nnunet_ext", "plan", "-d", str(inputs.number), "--preset", "quick", "-c", self.base]
            self.extend(f"quick_{inputs.name}", quick)
        files = {inputs.name: self.preprocessed(inputs) / f"{PLANS}.json" for inputs in TRAINING_INPUTS}
        check_same_plans(files, self.base, self.quick)
        # that dataset is only predicted; from here the evaluation knows which cases are whose
        self.preprocessed(WITHHELD).mkdir(exist_ok=True)
        write_json(self.preprocessed(WITHHELD) / "splits_final.json", folds)

    def train(self, run: Run | Pilot, *, lr: float) -> None:
        """Configure and train a model."""
        number = str(run.method.inputs.number)
        settings = shared_settings(epochs=self.epochs, iterations=self.iterations, seed=run.seed, lr=lr)
        configure = ["nnunet_ext", "configure", "-d", number, "-c", self.quick, "--name", run.name]
        self.extend(f"configure_{run.name}", [*configure, *assignments({**settings, **run.method.settings})])
        train = ["nnUNetv2_train", number, run.name, str(run.fold), "-tr", run.method.trainer]
        train += ["-p", PLANS, "-device", self.device]
        self.train_here(f"train_{run.name}", train, self.model(run) / f"fold_{run.fold}")

    def evaluate(self, run: Run | Pilot) -> None:
        """Score a model on the fold's test patients."""
        self.evaluate_here(run.name, self.model(run), run.fold, ["--on", f"{run.method.inputs.number}:val"])

    def evaluate_withheld(self, run: Run) -> None:
        """Score a model on the same patients with zeros in all prior channels."""
        self.evaluate_here(withheld(run), self.model(run), run.fold, ["--on", f"{WITHHELD.number}:val"])

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
        """Mean Dice by family and learning rate, of the trainings that are finished."""
        scores: dict[str, dict[float, float]] = {}
        for pilot in planned_pilots(self.lrs):
            evaluation = self.evaluation(pilot.name)
            if evaluation is not None:
                dice = evaluation["datasets"][0]["foreground_mean"]
                scores.setdefault(pilot.method.family, {})[pilot.lr] = float("nan") if dice is None else float(dice)
        return scores

    def run_grid(self, runs: Sequence[Run]) -> None:
        """Do all that is missing: each training with its test, then the tests without the prior."""
        self.prepare()
        lrs = self.choose_lrs()
        for run in runs:
            self.train(run, lr=lrs[run.method.family])
            self.evaluate(run)
        for run in runs:
            if run.is_withheld_later:
                self.evaluate_withheld(run)

    def scored(self, name: str) -> Scored | None:
        """What an evaluation found; None if it is not finished."""
        evaluation = self.evaluation(name)
        if evaluation is None:
            return None
        return Scored.of(evaluation)


def withheld(run: Run) -> str:
    """The name of a run's evaluation without the prior."""
    return f"withheld_{run.name}"


def write_table(origin: Path, pairs: Sequence[Mapping[str, str]], file: Path) -> None:
    """Write the table of pairs that ``nnunet_ext pair`` reads: one line, and so one case, for each patient."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["patient", "current_image", "prior_image", "prior_label", "current_label"])
    for pair in pairs:
        images = [origin / "imagesTr" / f"{pair[phase]}_0000.nii.gz" for phase in ("current", "prior")]
        labels = [origin / "labelsTr_dense" / f"{pair[phase]}.nii.gz" for phase in ("prior", "current")]
        writer.writerow([pair["patient"], *map(str, images), *map(str, labels)])
    write_text(file, text.getvalue())


def folds_of(origin: Path, pairs: Sequence[Mapping[str, str]], design: Design) -> list[Fold]:
    """The folds of the derived datasets, whose cases are named by their patients.

    Raises:
        UserError: if the original's folds do not keep patients apart, or a patient is in none of them.
    """
    patient_of = {pair[phase]: pair["patient"] for pair in pairs for phase in ("prior", "current")}
    return design.folds(patient_groups(read_json(origin / "splits_final.json"), patient_of))


def cases_to_score(folds: Sequence[Fold]) -> list[str]:
    """The cases that are tested, not those of the pilot."""
    return sorted({case for number, one in enumerate(folds) if number != PILOT_FOLD for case in one["val"]})


def write_current(with_prior: RawDataset, folder: Path) -> None:
    """Write the dataset without a prior: the first channel of another, whose image files it shares.

    Args:
        with_prior: whose first channel is the current image.
        folder: a dataset that is there stays as it is.
    """
    if folder.exists():
        return
    content = {**with_prior.description, "channel_names": {"0": with_prior.description["channel_names"]["0"]}}
    cases = {name: Case(case.images[:1], case.label) for name, case in with_prior.cases.items()}
    with new_dataset(folder.name, force=False) as unfinished:
        copy_labels(cases, unfinished)
        write_description(unfinished, folder.name, cases, content, about={"shares_images_with": LABELS.name})


def write_withheld(with_prior: RawDataset, folder: Path, names: Sequence[str]) -> None:
    """Write the dataset whose prior is withheld: the channels of the current scan as they are, the others zero.

    Args:
        with_prior: the dataset with the prior.
        folder: a dataset that is there stays as it is.
        names: its cases.
    """
    if folder.exists():
        return
    roles = roles_of_dataset(with_prior.description)
    cases = {}
    with new_dataset(folder.name, force=False) as unfinished:
        (unfinished / "imagesTr").mkdir()
        for name in names:
            original = with_prior.cases[name]
            nothing = f"{name}_nothing{with_prior.ending}"  # one file for all channels of the prior
            write_zeros(original.images[roles.current[0]], unfinished / "imagesTr" / nothing)
            images = [
                folder / "imagesTr" / nothing if channel in roles.prior else image
                for channel, image in enumerate(original.images)
            ]
            cases[name] = Case(tuple(images), original.label)
        copy_labels(cases, unfinished)
        about = {LONGITUDINAL: roles.model_dump(), "prior_withheld_from": LABELS.name}
        write_description(unfinished, folder.name, cases, with_prior.description, about=about)


def write_zeros(like: Path, file: Path) -> None:
    """Write an image of zeros with the geometry of another."""
    image = sitk.ReadImage(str(like))
    zeros = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    zeros.CopyInformation(image)
    sitk.WriteImage(zeros, str(file))


def copy_labels(cases: Mapping[str, Case], folder: Path) -> None:
    """Copy the label maps of some cases into a new dataset."""
    (folder / "labelsTr").mkdir()
    for case in cases.values():
        shutil.copyfile(case.label, folder / "labelsTr" / case.label.name)


def check_same_plans(files: Mapping[str, Path], base: str, quick: str) -> None:
    """See that all datasets got the same spacing, patches and network, so that the channels alone are compared.

    Args:
        files: plans by dataset.
        base: the planned configuration.
        quick: that of the preset on it.

    Raises:
        UserError: if they differ.
    """
    (first, expected), *others = [(name, configuration(file, base, quick)) for name, file in files.items()]
    for name, found in others:
        for key in MUST_AGREE:
            if found.get(key) != expected.get(key):
                raise UserError(
                    f"{quick} of {name} has {key} {found.get(key)}, that of {first} has {expected.get(key)}. The "
                    "models would differ in more than their channels."
                )


def configuration(file: Path, base: str, quick: str) -> dict[str, Any]:
    """The preset's configuration of a plans file, with what it has from the planned one."""
    configurations = read_plans(file)["configurations"]
    return {**configurations[base], **configurations[quick]}


def results_of(experiment: Longitudinal) -> dict[str, Any] | None:
    """The figures of what is finished; None before anything of the grid is."""
    trained = {}
    planned = planned_runs("full", experiment.design.seeds)
    for run in planned:
        scored = experiment.scored(run.name)
        if scored is not None:
            later = experiment.scored(withheld(run)) if run.is_withheld_later else None
            trained[run] = Trained.of(scored, later, experiment.checkpoint(run))
    return collected(trained, planned, experiment.pilot_scores()) if trained else None


def network_of(experiment: Longitudinal) -> dict[str, Any]:
    """Patch, batch and spacing of the trainings, from the plans."""
    found = configuration(experiment.preprocessed(LABELS) / f"{PLANS}.json", experiment.base, experiment.quick)
    return {key: found[key] for key in ("patch_size", "batch_size", "spacing")}


def write(experiment: Longitudinal, request: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Write the results of what is finished and return them; nothing before a run is scored."""
    content = results_of(experiment)
    if content is None:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return None
    content["network"] = network_of(experiment)
    lrs = " ".join(f"{lr:g}" for lr in request["lrs"])
    options = f"--configuration {request['configuration']} --epochs {request['epochs']} --steps {request['iterations']}"
    options += f" --lrs {lrs} --patients {request['patients']} --test-patients {request['test_patients']}"
    options += f" --seeds {request['seeds']} --device {request['device']}"
    commands = [
        f"python -m benchmarks.longitudinal --out $OUT {options}",
        f"# which wrote $OUT/pairs.csv, {CURRENT.name}, {WITHHELD.name} and the folds, and ran:",
        *recorded_commands(experiment.steps.runner, experiment.out),
    ]
    origin = provenance(torch.device(request["device"]), commands)
    origin["commit"] = training_commits(experiment.steps.finished())
    lines = result_lines(content, request)
    lines += provenance_lines({**origin, "commands": shown_commands(commands, content["finished_runs"])})
    write_results(folder / "longitudinal", {**content, "request": request, **origin}, lines)
    print("\n".join(lines))
    return content


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.longitudinal", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument(
        "--until", choices=STAGES, default="full", help="how far to go in the grid of runs (default: %(default)s)"
    )
    parser.add_argument("--max-minutes", type=float, help="begin no step after this time; results are written then")
    parser.add_argument(
        "--configuration", choices=CONFIGURATIONS, default="3d_fullres", help="of the network (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=positive, default=10, help="of a training (default: %(default)s)")
    parser.add_argument("--steps", type=positive, default=20, help="in an epoch (default: %(default)s)")
    parser.add_argument(
        "--lrs", type=learning_rate, nargs="+", default=[1e-3, 3e-3], help="to choose from (default: %(default)s)"
    )
    parser.add_argument(
        "--patients", type=positive, default=16, help="to train on; the full grid also has all (default: %(default)s)"
    )
    parser.add_argument(
        "--test-patients", type=positive, default=16, help="of each seed, at most (default: %(default)s, all)"
    )
    parser.add_argument("--seeds", type=positive, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--results", type=Path, help="folder for longitudinal.json and .md (default: OUT)")
    return parser


def run_benchmark(args: argparse.Namespace) -> dict[str, Any] | None:
    """Run what is missing and write the results, also of a part where something ends the run early."""
    started = time.monotonic()
    out, device, lrs = args.out.resolve(), choose_device(args.device), list(dict.fromkeys(args.lrs))
    design = Design(args.patients, args.test_patients, args.seeds)
    request = {
        "configuration": args.configuration,
        "epochs": args.epochs,
        "iterations": args.steps,
        "lrs": lrs,
        "patients": design.patients,
        "test_patients": design.test_patients,
        "seeds": design.seeds,
        "device": device,
    }
    origin = raw_dataset_folder(ORIGIN, advice=ADVICE)
    folds_of(origin, read_json(origin / "two_phase_pairs.json"), design)  # a wrong number is told before any work
    open_folder(out, request, folders=("logs", "evaluations"))
    runs, pilots = planned_runs(args.until, design.seeds), planned_pilots(lrs)
    total = PREPARING + 3 * (len(pilots) + len(runs)) + sum(run.is_withheld_later for run in runs)
    runner = CommandRunner(environment_of(out, cores=available_cores()), out / "logs", total=total)
    deadline = None if args.max_minutes is None else started + 60 * args.max_minutes
    steps = Steps(runner, out / "finished.json", deadline=deadline)
    experiment = Longitudinal(out, device, args.epochs, args.steps, lrs, steps, args.configuration, design)
    return run_until_stopped(lambda: experiment.run_grid(runs), lambda: write(experiment, request, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if a command failed, 2 for wrong usage."""
    args = build_parser().parse_args(argv)
    return exit_status("longitudinal", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
