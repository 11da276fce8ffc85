"""Which momentum and learning rate strict DGST wants: ``python -m benchmarks.dgst_grid --out FOLDER``.

Tunes the source model of `benchmarks.few_shot` on the five pilot cases of the shifted target, by strict DGST under
several optimizers and by full fine-tuning, and scores each model on the pilot's validation cases, none of which is a
test case. A method's learning rates are widened until the best of them is not at the edge of what was tried, in short
trainings and then in longer ones; the best one of the short ones is repeated with another seed. Writes
``dgst_grid.csv`` and ``.md``. Needs nnUNet_raw with the Hippocampus dataset; a step that was finished is not run again.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.domain_shift import PILOT_FOLD, PILOT_SHOTS, SHIFTS, origin_folder
from benchmarks.experiment import environment_of, exit_status, resumable_steps, run_until_stopped
from benchmarks.few_shot import PREPARING, SOURCE_MODEL, FewShot
from benchmarks.few_shot_grid import Method, Run
from benchmarks.few_shot_results import case_dice
from benchmarks.pilot import best_lr
from benchmarks.provenance import markdown_table, provenance, provenance_lines
from benchmarks.steps import open_folder, recorded_commands, training_commits
from nnunet_ext.demo.run import available_cores, choose_device
from nnunet_ext.files import write_text

SHIFT = SHIFTS["hippocampus"]
LADDER = (1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0)
STEPS_IN_EPOCH = 50
SHORT, LONG = 150, 500
FURTHER_SEED = 1


@dataclass(frozen=True)
class Searched:
    """A method with the learning rate, one of `LADDER`, that is tried first."""

    method: Method
    lr: float


def sgd(name: str, trainer: str, *, momentum: float, lr: float) -> Searched:
    """A trainer under SGD."""
    settings = {"optimizer": "sgd", "momentum": momentum}
    return Searched(Method(f"{name} SGD {momentum:g}", name, trainer, settings), lr)


def adamw(name: str, trainer: str, *, lr: float) -> Searched:
    """A trainer under AdamW."""
    return Searched(Method(f"{name} AdamW", name, trainer, {"optimizer": "adamw"}), lr)


SEARCHED = (
    sgd("strict", "nnUNetTrainerDGST", momentum=0.9, lr=0.1),
    sgd("strict", "nnUNetTrainerDGST", momentum=0.99, lr=3e-2),
    sgd("strict", "nnUNetTrainerDGST", momentum=0.0, lr=0.3),
    adamw("strict", "nnUNetTrainerDGST", lr=3e-2),
    sgd("full", "nnUNetTrainerFineTune", momentum=0.99, lr=1e-2),
    adamw("full", "nnUNetTrainerFineTune", lr=1e-2),
)


@dataclass(frozen=True)
class Trial(Run):
    """One training on the pilot's cases."""

    lr: float
    steps: int

    @property
    def name(self) -> str:
        return f"{self.method.slug}_lr{self.lr:g}_{self.steps}steps_s{self.seed}"

    @property
    def fold(self) -> int:
        return PILOT_FOLD


Scores = Mapping[Trial, float]
"""Mean Dice on the pilot's validation cases."""


def trial(method: Method, lr: float, *, steps: int = SHORT, seed: int = 0) -> Trial:
    """A training of a method on the pilot's cases."""
    return Trial(method, PILOT_SHOTS, seed, lr, steps)


def by_lr(scores: Scores, method: Method, steps: int) -> dict[float, float]:
    """What the search has found of a method at a length, from the smallest learning rate to the largest."""
    found = {one.lr: dice for one, dice in scores.items() if one == trial(method, one.lr, steps=steps)}
    return dict(sorted(found.items()))


def next_lr(first: float, scores: Mapping[float, float]) -> float | None:
    """The learning rate to try next; None where the best one has tried neighbours on both sides.

    Args:
        first: the one to begin with.
        scores: a method's Dice by learning rate.
    """
    if not scores:
        return first
    best = LADDER.index(best_lr(scores))
    neighbours = [LADDER[place] for place in (best + 1, best - 1) if 0 <= place < len(LADDER)]
    return next((lr for lr in neighbours if lr not in scores), None)


@dataclass(frozen=True)
class DGSTGrid(FewShot):
    """The trainings of the search, on what `FewShot` prepares."""

    def evaluate(self, name: str, model: Path, fold: int) -> None:
        """Score a model on the pilot's validation cases."""
        self.evaluate_here(name, model, fold, ["--on", f"{self.target}:val"])

    def run_trial(self, one: Trial) -> float:
        """Train and score; returns the mean Dice on the pilot's validation cases."""
        replace(self, epochs=one.steps // STEPS_IN_EPOCH).train(one, seed=one.seed, lr=one.lr)
        self.evaluate(one.name, self.model(one), one.fold)
        return self.dice(one.name)

    def dice(self, name: str) -> float:
        """Mean Dice of an evaluated model."""
        return mean(case_dice(self.evaluation(name) or {}, self.shift.target).values())

    def search(self, scores: dict[Trial, float]) -> None:
        """Try learning rates of every method, for the short and the long training, then the best with another seed.

        Args:
            scores: what is found is added to it.
        """

        def run(one: Trial) -> None:
            scores[one] = self.run_trial(one)

        def settle(method: Method, first: float, steps: int) -> float:
            while (lr := next_lr(first, by_lr(scores, method, steps))) is not None:
                run(trial(method, lr, steps=steps))
            return best_lr(by_lr(scores, method, steps))

        best = {searched.method: settle(searched.method, searched.lr, SHORT) for searched in SEARCHED}
        for method, lr in best.items():
            settle(method, LADDER[LADDER.index(lr) - 1], LONG)  # more steps want a lower rate
        for method, lr in best.items():
            run(trial(method, lr, seed=FURTHER_SEED))


def csv_text(scores: Scores) -> str:
    """One line for each training."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "lr", "steps", "seed", "dice"])
    for one, dice in scores.items():
        writer.writerow([one.method.name, f"{one.lr:g}", one.steps, one.seed, f"{dice:.4f}"])
    return file.getvalue()


def table_of_lrs(scores: Scores, steps: int) -> list[str]:
    """The search at one length: a row for each method, whose best rate stays open where a neighbour is missing."""
    found = {method: by_lr(scores, method, steps) for method in dict.fromkeys(one.method for one in scores)}
    found = {method: dices for method, dices in found.items() if dices}
    if not found:
        return ["Not run."]
    lrs = sorted({lr for dices in found.values() for lr in dices})
    rows = [
        [
            method.name,
            *(f"{dices[lr]:.3f}" if lr in dices else "" for lr in lrs),
            "" if next_lr(lrs[0], dices) else f"{best_lr(dices):g}",
        ]
        for method, dices in found.items()
    ]
    return markdown_table(["", *(f"lr {lr:g}" for lr in lrs), "best"], rows)


def result_lines(scores: Scores, source_dice: float) -> list[str]:
    """The search as Markdown.

    Args:
        scores: of the trainings that are finished.
        source_dice: of the source model, not tuned.
    """
    repeated = [
        [one.method.name, f"{one.lr:g}", f"{dice:.3f}"] for one, dice in scores.items() if one.seed == FURTHER_SEED
    ]
    return [
        "# Momentum and learning rate of strict DGST",
        "",
        f"{SHIFT.target}: {SHIFT.description}. The source model of the few-shot experiment, tuned on the {PILOT_SHOTS} "
        "pilot cases; mean Dice on the pilot's validation cases, without mirroring. Not tuned, it has "
        f"{source_dice:.3f}. Strict DGST moves one entry of each kernel in a step. `SGD 0.99`: with that momentum "
        "(Nesterov's). A best rate is given where both its neighbours were tried and are no better.",
        "",
        *(line for steps in (SHORT, LONG) for line in (f"## {steps} steps", "", *table_of_lrs(scores, steps), "")),
        f"## {SHORT} steps with another seed",
        "",
        *(markdown_table(["", "lr", "Dice"], repeated) if repeated else ["Not run."]),
        "",
    ]


def write(grid: DGSTGrid, scores: Scores, folder: Path) -> None:
    """Write the results of what is finished; nothing before the first training is scored."""
    if not scores:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return
    commands = [
        f"python -m benchmarks.dgst_grid --out $OUT --device {grid.device}",
        "# which ran, with the names, rates and lengths of the table:",
        *recorded_commands(grid.steps.runner, grid.out),
    ]
    first = next(iter(scores)).name
    shown = [line for line in commands if "_lr" not in line or first in line]
    origin = {**provenance(torch.device(grid.device), shown), "commit": training_commits(grid.steps.finished())}
    lines = [*result_lines(scores, grid.dice(SOURCE_MODEL)), *provenance_lines(origin)]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "dgst_grid.csv", csv_text(scores))
    write_text(folder / "dgst_grid.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


def build_parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dgst_grid", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for everything; give it again to resume")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--max-minutes", type=float, help="begin no step after this time; results are written then")
    parser.add_argument("--results", type=Path, help="folder for dgst_grid.csv and .md (default: OUT)")
    return parser


def run_benchmark(args: argparse.Namespace) -> None:
    """Run what is missing and write the results, also of a part where something ends the run early."""
    out = args.out.resolve()
    request: dict[str, Any] = {"shift": SHIFT.name, "device": choose_device(args.device)}
    origin_folder(SHIFT)
    open_folder(out, request, folders=("logs", "evaluations"))
    total = PREPARING + 3 * (4 + 4 + 1) * len(SEARCHED)
    environment = environment_of(out, cores=available_cores())
    steps = resumable_steps(out, environment, total=total, max_minutes=args.max_minutes)
    grid = DGSTGrid(out, request["device"], 0, STEPS_IN_EPOCH, LADDER, steps, SHIFT)
    scores: dict[Trial, float] = {}

    def run() -> None:
        grid.prepare()
        grid.search(scores)

    run_until_stopped(run, lambda: write(grid, scores, args.results or out))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the search; 1 if a command failed, 2 for wrong usage."""
    args = build_parser().parse_args(argv)
    return exit_status("dgst_grid", lambda: run_benchmark(args))


if __name__ == "__main__":
    sys.exit(main())
