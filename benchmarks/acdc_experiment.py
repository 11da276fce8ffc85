"""What experiments on cine MRI of the heart do alike: plan, choose learning rates, train and write results."""

from __future__ import annotations

import argparse
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.acdc import (
    CONFIGURATIONS,
    STAGES,
    Design,
    Fold,
    Inputs,
    Method,
    Pilot,
    Run,
    patient_groups,
    pilots_of,
)
from benchmarks.experiment import Experiment, assignments, learning_rate, shared_settings, shown_commands
from benchmarks.pilot import chosen_lrs
from benchmarks.provenance import provenance, provenance_lines, write_results
from benchmarks.steps import recorded_commands, training_commits
from nnunet_ext.arguments import positive
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.plans_file import read_plans
from nnunet_ext.preprocessing.raw.raw_dataset import Case

PLANS = "nnUNetPlans"
ADVICE = "The experiment is made from it."
MUST_AGREE = ("spacing", "patch_size", "batch_size", "architecture")
PLANNING = 2  # commands for each dataset


@dataclass(frozen=True)
class ACDCExperiment(Experiment, ABC):
    """The commands of an experiment.

    Attributes:
        base: the planned configuration that the preset is put on.
        design: who is trained on and tested.
        piloting: a method of each family, which chooses its learning rate.
    """

    base: str
    design: Design
    piloting: ClassVar[Sequence[Method]]

    @property
    def quick(self) -> str:
        """The configuration of the preset."""
        return f"{self.base}_quick"

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

    def plan(self, datasets: Sequence[Inputs], folds: Sequence[Fold]) -> None:
        """Plan and preprocess the datasets that are trained on.

        Args:
            datasets: those that are trained on.
            folds: of each of them.

        Raises:
            UserError: if they got different networks or patches.
        """
        for inputs in datasets:
            write_json(self.raw(inputs) / "splits_final.json", folds)  # planning takes it over
            plan = ["nnUNetv2_plan_and_preprocess", "-d", str(inputs.number), "-c", self.base, "-npfp", "2", "-np", "2"]
            self.steps.run(f"plan_{inputs.name}", plan)
            quick = ["nnunet_ext", "plan", "-d", str(inputs.number), "--preset", "quick", "-c", self.base]
            self.extend(f"quick_{inputs.name}", quick)
        files = {inputs.name: self.preprocessed(inputs) / f"{PLANS}.json" for inputs in datasets}
        check_same_plans(files, self.base, self.quick)

    def train(self, run: Run | Pilot, *, lr: float) -> None:
        """Configure and train a model."""
        number = str(run.method.inputs.number)
        settings = shared_settings(epochs=self.epochs, iterations=self.iterations, seed=run.seed, lr=lr)
        configure = ["nnunet_ext", "configure", "-d", number, "-c", self.quick, "--name", run.name]
        self.extend(f"configure_{run.name}", [*configure, *assignments({**settings, **run.method.settings})])
        train = ["nnUNetv2_train", number, run.name, str(run.fold), "-tr", run.method.trainer]
        train += ["-p", PLANS, "-device", self.device]
        self.train_here(f"train_{run.name}", train, self.model(run) / f"fold_{run.fold}")

    @abstractmethod
    def evaluate(self, run: Run | Pilot) -> None:
        """Score a model on the fold's test patients."""

    def train_and_evaluate(self, runs: Sequence[Run]) -> None:
        """Do what is missing of the pilot, then of each run its training and its test.

        Raises:
            UserError: if all trainings of a family's pilot came out without a Dice.
        """
        for pilot in pilots_of(self.piloting, self.lrs):
            self.train(pilot, lr=pilot.lr)
            self.evaluate(pilot)
        families = [run.method.family for run in runs]
        lrs = chosen_lrs(self.pilot_scores()) if len(self.lrs) > 1 else dict.fromkeys(families, self.lrs[0])
        for run in runs:
            self.train(run, lr=lrs[run.method.family])
            self.evaluate(run)

    def pilot_scores(self) -> dict[str, dict[float, float]]:
        """Mean Dice by family and learning rate, of the trainings that are finished."""
        scores: dict[str, dict[float, float]] = {}
        for pilot in pilots_of(self.piloting, self.lrs):
            evaluation = self.evaluation(pilot.name)
            if evaluation is not None:
                dice = evaluation["datasets"][0]["foreground_mean"]
                scores.setdefault(pilot.method.family, {})[pilot.lr] = float("nan") if dice is None else float(dice)
        return scores

    def network(self, inputs: Inputs) -> dict[str, Any]:
        """Patch, batch and spacing of the trainings, from the plans of one of the datasets."""
        found = configuration(self.preprocessed(inputs) / f"{PLANS}.json", self.base, self.quick)
        return {key: found[key] for key in ("patch_size", "batch_size", "spacing")}

    def write(
        self,
        content: Mapping[str, Any],
        lines: Sequence[str],
        stem: Path,
        *,
        request: Mapping[str, Any],
        program: str,
        note: str,
    ) -> None:
        """Write and print the results.

        Args:
            content: the figures as plain data.
            lines: the same as Markdown.
            stem: of the two files.
            request: what was asked for.
            program: the module's name.
            note: what it did beside running commands.
        """
        commands = [
            f"python -m {program} --out $OUT {options_of(request)}",
            f"# which {note}, and ran:",
            *recorded_commands(self.steps.runner, self.out),
        ]
        origin = provenance(torch.device(self.device), commands)
        origin["commit"] = training_commits(self.steps.finished())
        shown = {**origin, "commands": shown_commands(commands, content["finished_runs"])}
        lines = [*lines, *provenance_lines(shown)]
        write_results(stem, {**content, "request": request, **origin}, lines)
        print("\n".join(lines))


def patients_of(origin: Path) -> dict[str, str]:
    """The patient of each case of the original."""
    pairs = read_json(origin / "two_phase_pairs.json")
    return {pair[phase]: pair["patient"] for pair in pairs for phase in ("prior", "current")}


def folds_by_patient(origin: Path, design: Design) -> list[Fold]:
    """The folds, with patients for cases.

    Raises:
        UserError: if the original's folds do not keep patients apart, or there are too few to train on.
    """
    return design.folds(patient_groups(read_json(origin / "splits_final.json"), patients_of(origin)))


def copy_labels(cases: Mapping[str, Case], folder: Path) -> None:
    """Copy the label maps of some cases into a folder of a new dataset."""
    folder.mkdir()
    for case in cases.values():
        shutil.copyfile(case.label, folder / case.label.name)


def check_same_plans(files: Mapping[str, Path], base: str, quick: str) -> None:
    """See that all datasets got the same spacing, patches and network, so that only what is asked about is compared.

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
                    "models would differ in more than what they learn from."
                )


def configuration(file: Path, base: str, quick: str) -> dict[str, Any]:
    """The preset's configuration of a plans file, with what it has from the planned one."""
    configurations = read_plans(file)["configurations"]
    return {**configurations[base], **configurations[quick]}


def build_parser(program: str, description: str, *, results: str) -> argparse.ArgumentParser:
    """The arguments of an experiment's command.

    Args:
        program: the module's name.
        description: one sentence.
        results: names of the files that it writes.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
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
    parser.add_argument("--results", type=Path, help=f"folder for {results} (default: OUT)")
    return parser


def request_of(args: argparse.Namespace, *, device: str) -> dict[str, Any]:
    """What decides the results, as plain data."""
    return {
        "configuration": args.configuration,
        "epochs": args.epochs,
        "iterations": args.steps,
        "lrs": list(dict.fromkeys(args.lrs)),
        "patients": args.patients,
        "test_patients": args.test_patients,
        "seeds": args.seeds,
        "device": device,
    }


def options_of(request: Mapping[str, Any]) -> str:
    """The options that ask for it."""
    lrs = " ".join(f"{lr:g}" for lr in request["lrs"])
    options = f"--configuration {request['configuration']} --epochs {request['epochs']} --steps {request['iterations']}"
    options += f" --lrs {lrs} --patients {request['patients']} --test-patients {request['test_patients']}"
    return f"{options} --seeds {request['seeds']} --device {request['device']}"
