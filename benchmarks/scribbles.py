"""Scribble supervision on real scribbles: ``python -m benchmarks.scribbles --out FOLDER``.

Segments the heart in cine MRI of which experts have scribbled a few per cent: trains nnU-Net with its ignore label,
partial cross-entropy, DMPLS, TDNet and variants of it on the scribbles, and nnU-Net on the full masks as the bound;
scores each model against the full masks of patients whom it has not seen. Learning rates are chosen beforehand on
patients who are in no test. Writes ``scribbles_CONFIGURATION.json`` and ``.md``. Needs nnUNet_raw with
Dataset027_ACDCScribble. Every step is one of nnU-Net's own commands or of this package's; a step that was finished is
not run again, and a training goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.acdc import ORIGIN, Design, Fold, Inputs, Pilot, Run
from benchmarks.acdc_experiment import (
    ADVICE,
    PLANNING,
    ACDCExperiment,
    build_parser,
    copy_labels,
    folds_by_patient,
    patients_of,
    request_of,
)
from benchmarks.acdc_results import Training
from benchmarks.experiment import environment_of, exit_status, raw_dataset_folder, resumable_steps, run_until_stopped
from benchmarks.in_process import variables
from benchmarks.scribbles_grid import DENSE, PILOTING, SCRIBBLES, TRAINING_INPUTS, planned_pilots, planned_runs
from benchmarks.scribbles_results import Scored, Trained, collected, result_lines
from benchmarks.steps import open_folder
from nnunet_ext.demo.run import available_cores, choose_device
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.preprocessing.raw.new_dataset import new_dataset, write_description
from nnunet_ext.preprocessing.raw.raw_dataset import Case, RawDataset, read_raw_dataset

PROGRAM = "benchmarks.scribbles"
MASKS = "labelsTr_dense"
PREPARING = PLANNING * len(TRAINING_INPUTS)


@dataclass(frozen=True)
class Scribbles(ACDCExperiment):
    """The commands of the experiment."""

    piloting = PILOTING
    inputs: ClassVar[Sequence[Inputs]] = TRAINING_INPUTS
    """The datasets that are trained on."""

    @property
    def patients(self) -> Path:
        """The file with the patient of each case."""
        return self.out / "patients.json"

    def prepare(self) -> None:
        """Write, plan and preprocess the datasets."""
        origin = raw_dataset_folder(ORIGIN, advice=ADVICE)
        write_json(self.patients, patients_of(origin))
        original = read_raw_dataset(ORIGIN)
        writers = {SCRIBBLES: write_scribbles, DENSE: write_dense}
        with variables(self.steps.runner.environment):
            for inputs in self.inputs:
                writers[inputs](original, self.raw(inputs))
        self.plan(self.inputs, folds_of(origin, self.design))

    def evaluate(self, run: Run | Pilot) -> None:
        """Score a model against the full masks of the fold's test patients, whatever it has learned from."""
        options = ["--on", f"{SCRIBBLES.number}:val", "--labels", MASKS, "--metrics", "dice", "surface"]
        # on few cores, starting a process takes longer than scoring
        options += ["--patients", str(self.patients), "--workers", "1"]
        self.evaluate_here(run.name, self.model(run), run.fold, options)

    def run_grid(self, runs: Sequence[Run]) -> None:
        """Do all that is missing."""
        self.prepare()
        self.train_and_evaluate(runs)


def folds_of(origin: Path, design: Design) -> list[Fold]:
    """The folds of the derived datasets, with all cases of a patient.

    Raises:
        UserError: if the original's folds do not keep patients apart, or there are too few to train on.
    """
    patients = patients_of(origin)

    def cases_of(chosen: Sequence[str]) -> list[str]:
        return sorted(case for case, patient in patients.items() if patient in set(chosen))

    return [{part: cases_of(one[part]) for part in one} for one in folds_by_patient(origin, design)]


def with_masks(original: RawDataset) -> dict[str, Case]:
    """The original's cases with their full masks for labels."""
    folder = original.folder / MASKS
    return {name: Case(case.images, folder / case.label.name) for name, case in original.cases.items()}


def write_scribbles(original: RawDataset, folder: Path) -> None:
    """Write the dataset of scribbles, which has the full masks beside them and shares the original's images.

    Args:
        original: with scribbles for labels, and full masks in a folder of their own.
        folder: a dataset that is there stays as it is.
    """
    if folder.exists():
        return
    with new_dataset(folder.name, force=False) as unfinished:
        copy_labels(original.cases, unfinished / "labelsTr")
        copy_labels(with_masks(original), unfinished / MASKS)
        about = {"shares_images_with": ORIGIN}
        write_description(unfinished, folder.name, original.cases, original.description, about=about)


def write_dense(original: RawDataset, folder: Path) -> None:
    """Write the dataset whose labels are the full masks, without an ignore label.

    Args:
        original: with full masks in a folder of their own, whose images are shared.
        folder: a dataset that is there stays as it is.
    """
    if folder.exists():
        return
    labels = {name: value for name, value in original.description["labels"].items() if name != "ignore"}
    cases = with_masks(original)
    with new_dataset(folder.name, force=False) as unfinished:
        copy_labels(cases, unfinished / "labelsTr")
        content = {**original.description, "labels": labels}
        write_description(unfinished, folder.name, cases, content, about={"shares_images_with": ORIGIN})


def check_origin(origin: Path) -> None:
    """See that the original has scribbles and full masks.

    Raises:
        UserError: if it has not.
    """
    if "ignore" not in read_json(origin / "dataset.json")["labels"]:
        raise UserError(
            f"{origin / 'dataset.json'} has no label `ignore`, so its labels are no scribbles. Take the {ORIGIN} whose "
            "labelsTr holds scribbles."
        )
    without = [case for case in patients_of(origin) if not (origin / MASKS / f"{case}.nii.gz").is_file()]
    if without:
        raise UserError(
            f"{origin / MASKS} has no full mask for {len(without)} cases, e.g. {without[0]}. Without them nothing can "
            "be scored."
        )


def results_of(experiment: Scribbles) -> dict[str, Any] | None:
    """The figures of what is finished; None before anything of the grid is."""
    trained = {}
    planned = planned_runs("full", experiment.design.seeds)
    for run in planned:
        evaluation = experiment.evaluation(run.name)
        if evaluation is not None:
            scored = Scored.of(evaluation, read_json(experiment.patients))
            trained[run] = Trained(scored, Training.of(experiment.checkpoint(run)))
    return collected(trained, planned, experiment.pilot_scores()) if trained else None


def write(experiment: Scribbles, request: Mapping[str, Any], folder: Path) -> dict[str, Any] | None:
    """Write the results of what is finished and return them; nothing before a run is scored."""
    content = results_of(experiment)
    if content is None:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return None
    content["network"] = experiment.network(SCRIBBLES)
    stem = folder / f"scribbles_{request['configuration']}"
    note = f"wrote {SCRIBBLES.name}, {DENSE.name}, the folds and $OUT/patients.json"
    experiment.write(content, result_lines(content, request), stem, request=request, program=PROGRAM, note=note)
    return content


def run_benchmark(args: argparse.Namespace) -> dict[str, Any] | None:
    """Run what is missing and write the results, also of a part where something ends the run early."""
    out, device = args.out.resolve(), choose_device(args.device)
    design = Design(args.patients, args.test_patients, args.seeds)
    request = request_of(args, device=device)
    lrs = request["lrs"]
    origin = raw_dataset_folder(ORIGIN, advice=ADVICE)
    check_origin(origin)
    folds_of(origin, design)  # a wrong number is told before any work
    open_folder(out, request, folders=("logs", "evaluations"))
    runs = planned_runs(args.until, design.seeds)
    total = PREPARING + 3 * (len(planned_pilots(lrs)) + len(runs))
    environment = environment_of(out, cores=available_cores())
    steps = resumable_steps(out, environment, total=total, max_minutes=args.max_minutes)
    experiment = Scribbles(out, device, args.epochs, args.steps, lrs, steps, args.configuration, design)
    return run_until_stopped(lambda: experiment.run_grid(runs), lambda: write(experiment, request, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment; 1 if a command failed, 2 for wrong usage."""
    description = (__doc__ or "").split("\n")[0]
    args = build_parser(PROGRAM, description, results="the two files").parse_args(argv)
    return exit_status("scribbles", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
