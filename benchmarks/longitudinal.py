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
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from benchmarks.acdc import LABEL_NAMES, ORIGIN, PILOT_FOLD, Design, Fold, Pilot, Run
from benchmarks.acdc_experiment import (
    ADVICE,
    PLANNING,
    ACDCExperiment,
    build_parser,
    copy_labels,
    folds_by_patient,
    request_of,
)
from benchmarks.acdc_results import Training
from benchmarks.experiment import (
    assignments,
    environment_of,
    exit_status,
    raw_dataset_folder,
    resumable_steps,
    run_until_stopped,
)
from benchmarks.in_process import variables
from benchmarks.longitudinal_grid import (
    CURRENT,
    IMAGE,
    LABELS,
    PILOTING,
    TRAINING_INPUTS,
    WITHHELD,
    is_withheld_later,
    planned_pilots,
    planned_runs,
)
from benchmarks.longitudinal_results import Scored, Trained, collected, result_lines
from benchmarks.steps import open_folder
from nnunet_ext.demo.run import available_cores, choose_device
from nnunet_ext.files import read_json, write_json, write_text
from nnunet_ext.plans.channel_roles import LONGITUDINAL, roles_of_dataset
from nnunet_ext.preprocessing.raw.new_dataset import new_dataset, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset, read_raw_dataset

PROGRAM = "benchmarks.longitudinal"
PREPARING = 2 + PLANNING * len(TRAINING_INPUTS)  # commands: two datasets of pairs; plan and preset for all


@dataclass(frozen=True)
class Longitudinal(ACDCExperiment):
    """The commands of the experiment."""

    piloting = PILOTING

    @property
    def table(self) -> Path:
        """The table of pairs."""
        return self.out / "pairs.csv"

    def prepare(self) -> None:
        """Write, plan and preprocess the datasets."""
        origin = raw_dataset_folder(ORIGIN, advice=ADVICE)
        pairs = read_json(origin / "two_phase_pairs.json")
        write_table(origin, pairs, self.table)
        folds = folds_by_patient(origin, self.design)  # a case is named by its patient
        for inputs, options in ((LABELS, []), (IMAGE, ["--no-prior-labels"])):
            pair = ["nnunet_ext", "pair", "-o", inputs.name, "--table", str(self.table), "--modality", "cineMRI"]
            pair += ["--labels", *assignments(LABEL_NAMES), "--registration", "none", *options]
            self.steps.run(f"pair_{inputs.name}", pair)
        with variables(self.steps.runner.environment):
            with_prior = read_raw_dataset(LABELS.name)
            write_current(with_prior, self.raw(CURRENT))
            write_withheld(with_prior, self.raw(WITHHELD), cases_to_score(folds))
        self.plan(TRAINING_INPUTS, folds)
        # that dataset is only predicted; from here the evaluation knows which cases are whose
        self.preprocessed(WITHHELD).mkdir(exist_ok=True)
        write_json(self.preprocessed(WITHHELD) / "splits_final.json", folds)

    def evaluate(self, run: Run | Pilot) -> None:
        """Score a model on the fold's test patients."""
        self.evaluate_here(run.name, self.model(run), run.fold, ["--on", f"{run.method.inputs.number}:val"])

    def evaluate_withheld(self, run: Run) -> None:
        """Score a model on the same patients with zeros in all prior channels."""
        self.evaluate_here(withheld(run), self.model(run), run.fold, ["--on", f"{WITHHELD.number}:val"])

    def run_grid(self, runs: Sequence[Run]) -> None:
        """Do all that is missing: each training with its test, then the tests without the prior."""
        self.prepare()
        self.train_and_evaluate(runs)
        for run in runs:
            if is_withheld_later(run):
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
        copy_labels(cases, unfinished / "labelsTr")
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
        copy_labels(cases, unfinished / "labelsTr")
        about = {LONGITUDINAL: roles.model_dump(), "prior_withheld_from": LABELS.name}
        write_description(unfinished, folder.name, cases, with_prior.description, about=about)


def write_zeros(like: Path, file: Path) -> None:
    """Write an image of zeros with the geometry of another."""
    image = sitk.ReadImage(str(like))
    zeros = sitk.Image(image.GetSize(), sitk.sitkUInt8)
    zeros.CopyInformation(image)
    sitk.WriteImage(zeros, str(file))


def results_of(experiment: Longitudinal) -> dict[str, Any] | None:
    """The figures of what is finished; None before anything of the grid is."""
    trained = {}
    planned = planned_runs("full", experiment.design.seeds)
    for run in planned:
        scored = experiment.scored(run.name)
        if scored is not None:
            later = experiment.scored(withheld(run)) if is_withheld_later(run) else None
            trained[run] = Trained(scored, later, Training.of(experiment.checkpoint(run)))
    return collected(trained, planned, experiment.pilot_scores()) if trained else None


def write(experiment: Longitudinal, request: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Write the results of what is finished and return them; nothing before a run is scored."""
    content = results_of(experiment)
    if content is None:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return None
    content["network"] = experiment.network(LABELS)
    note = f"wrote $OUT/pairs.csv, {CURRENT.name}, {WITHHELD.name} and the folds"
    lines = result_lines(content, request)
    experiment.write(content, lines, folder / "longitudinal", request=request, program=PROGRAM, note=note)
    return content


def run_benchmark(args: argparse.Namespace) -> dict[str, Any] | None:
    """Run what is missing and write the results, also of a part where something ends the run early."""
    out, device = args.out.resolve(), choose_device(args.device)
    design = Design(args.patients, args.test_patients, args.seeds)
    request = request_of(args, device=device)
    lrs = request["lrs"]
    folds_by_patient(raw_dataset_folder(ORIGIN, advice=ADVICE), design)  # a wrong number is told before any work
    open_folder(out, request, folders=("logs", "evaluations"))
    runs = planned_runs(args.until, design.seeds)
    trainings = len(planned_pilots(lrs)) + len(runs)
    total = PREPARING + 3 * trainings + sum(map(is_withheld_later, runs))
    environment = environment_of(out, cores=available_cores())
    steps = resumable_steps(out, environment, total=total, max_minutes=args.max_minutes)
    experiment = Longitudinal(out, device, args.epochs, args.steps, lrs, steps, args.configuration, design)
    return run_until_stopped(lambda: experiment.run_grid(runs), lambda: write(experiment, request, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if a command failed, 2 for wrong usage."""
    description = (__doc__ or "").split("\n")[0]
    args = build_parser(PROGRAM, description, results="longitudinal.json and .md").parse_args(argv)
    return exit_status("longitudinal", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
