"""What the results of experiments on cine MRI of the heart share: what a training left, what is missing, and tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Protocol, TypeVar

from benchmarks.acdc import ORIGIN, PILOT_TEST_FOLD, PILOT_TRAINING_FOLD, Method, Run
from benchmarks.pilot import Scores as PilotScores
from benchmarks.pilot import pilot_content, pilot_table
from benchmarks.provenance import markdown_table, with_interval
from benchmarks.seed_estimates import SeedScores, seed_estimates
from benchmarks.steps import epoch_seconds
from nnunet_ext.checkpoints.adaptation import aliases
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.plans.settings import KEY

Found = TypeVar("Found")
Values = Mapping[str, float | None]


@dataclass(frozen=True)
class Training:
    """What a finished training's checkpoint knows.

    Attributes:
        lr: the learning rate that it was trained with.
        parameters: of the network.
        step_seconds: median over the epochs, of an epoch's time by its training steps.
    """

    lr: float
    parameters: int
    step_seconds: float

    @classmethod
    def of(cls, checkpoint: Path) -> Training:
        """Read it."""
        content = read_checkpoint(checkpoint)
        settings = content[KEY]["settings"]
        return cls(
            lr=float(settings["initial_lr"]),
            parameters=sum(tensor.numel() for _, tensor in aliases(content["network_weights"])),
            step_seconds=median(epoch_seconds(content["logging"])) / int(settings["num_iterations_per_epoch"]),
        )


class Comparable(Protocol):
    """A model's scores that can be compared with another's."""

    def scores(self) -> SeedScores:
        """Its figures."""

    def minus(self, other: Any) -> SeedScores:
        """Its differences from another's."""


Scores = TypeVar("Scores", bound=Comparable)


class Finished(Protocol):
    """What a finished run left."""

    @property
    def scored(self) -> Any:
        """Its scores, which can be compared with those of another run of the experiment."""

    @property
    def training(self) -> Training:
        """How it was trained."""


Done = TypeVar("Done", bound=Finished)


def finished_runs(trained: Mapping[Run, Found], method: Method, *, is_all: bool) -> dict[Run, Found]:
    """The finished runs of a method with few or with all patients, by seed."""
    runs = {run: found for run, found in trained.items() if run.method == method and run.is_all == is_all}
    return dict(sorted(runs.items(), key=lambda item: item[0].seed))


def estimates(runs: Mapping[Run, Scores], others: Mapping[Run, Scores] | None = None) -> dict[str, Values]:
    """Every figure with its interval.

    Args:
        runs: of one method, one for each seed.
        others: of what to compare with, the same seeds in the same order; the figures are differences, runs - others.

    Raises:
        ValueError: if a pair was not scored on the same patients.
    """
    if others is None:
        return dict(seed_estimates([one.scores() for one in runs.values()]))
    return dict(seed_estimates([one.minus(other) for one, other in zip(runs.values(), others.values())]))


def compared(runs: Mapping[Run, Scores], others: Mapping[Run, Scores]) -> dict[str, Any] | None:
    """The differences runs - others of the seeds that both have; None if there is none."""
    by_seed = {run.seed: (run, scored) for run, scored in others.items()}
    common = {run: scored for run, scored in runs.items() if run.seed in by_seed}
    if not common:
        return None
    return {"seeds": [run.seed for run in common], **estimates(common, dict(by_seed[run.seed] for run in common))}


def scores_of(runs: Mapping[Run, Finished]) -> dict[Run, Any]:
    """The scores of runs."""
    return {run: found.scored for run, found in runs.items()}


def row_of(runs: Mapping[Run, Finished], references: Mapping[str, Mapping[Run, Finished]]) -> dict[str, Any]:
    """The figures of one method with few or with all patients.

    Args:
        runs: its finished runs, at least one.
        references: those of the methods to compare with, by name.
    """
    row = training_columns({run: found.training for run, found in runs.items()})
    scored = scores_of(runs)
    minus = {
        name: difference
        for name, others in references.items()
        if name != row["method"] and (difference := compared(scored, scores_of(others)))
    }
    by_seed = {str(run.seed): one.scores().values() for run, one in scored.items()}
    return {**row, "measures": estimates(scored), "by_seed": by_seed, "minus": minus}


def grid_content(
    trained: Mapping[Run, Done],
    planned: Sequence[Run],
    pilots: PilotScores,
    *,
    methods: Sequence[Method],
    references: Sequence[Method],
    row: Callable[[Mapping[Run, Done], Mapping[str, Mapping[Run, Done]]], dict[str, Any]],
) -> dict[str, Any]:
    """The figures of what is finished, as plain data.

    Args:
        trained: the finished runs.
        planned: those of the full grid.
        pilots: mean Dice of the pilot's finished trainings, by family and learning rate.
        methods: of the experiment.
        references: the methods that the others are compared with.
        row: the figures of one method with few or with all patients, as `row_of`.
    """
    rows = []
    for is_all in (False, True):
        compared_with = {method.name: finished_runs(trained, method, is_all=is_all) for method in references}
        for method in methods:
            if runs := finished_runs(trained, method, is_all=is_all):
                rows.append(row(runs, compared_with))
    return {
        "origin": ORIGIN,
        "methods": {method.name: method.description for method in methods},
        "pilot": pilot_content(pilots),
        "rows": rows,
        "finished_runs": [run.name for run in trained],
        "missing_runs": [run.name for run in planned if run not in trained],
        "missing": missing_lines(trained, planned),
    }


def training_columns(runs: Mapping[Run, Training]) -> dict[str, Any]:
    """What a row of the results says about a method's trainings, at least one."""
    first = next(iter(runs))
    return {
        "method": first.method.name,
        "trainer": first.method.trainer,
        "inputs": first.method.inputs.description,
        "settings": dict(first.method.settings),
        "all_patients": first.is_all,
        "seeds": [run.seed for run in runs],
        "lr": sorted({training.lr for training in runs.values()}),
        "parameters": next(iter(runs.values())).parameters,
        "median_step_seconds": median(training.step_seconds for training in runs.values()),
    }


def missing_lines(trained: Mapping[Run, Any], planned: Sequence[Run]) -> list[str]:
    """What of the full grid is not finished: a line for few and one for all patients."""
    lines = []
    for is_all in (False, True):
        wanted = [run for run in planned if run.is_all == is_all]
        missing = [run for run in wanted if run not in trained]
        if missing:
            what = "everything" if len(missing) == len(wanted) else by_method(missing)
            lines.append(f"{'all' if is_all else 'few'} training patients: {what}")
    return lines


def by_method(runs: Sequence[Run]) -> str:
    """``dual encoder add (seed 1, 2)``, …, in the order of the runs."""
    seeds: dict[str, list[int]] = {}
    for run in runs:
        seeds.setdefault(run.method.name, []).append(run.seed)
    return ", ".join(f"{name} (seed {', '.join(map(str, dict.fromkeys(found)))})" for name, found in seeds.items())


def design_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """Who is trained on and tested, and what all trainings have alike.

    Args:
        content: of the results, with ``network``.
        request: what was asked for.
    """
    network = content["network"]
    patch = " x ".join(map(str, network["patch_size"]))
    return [
        f"A seed decides the initial weights, the draw of {request['patients']} training patients and the test "
        f"patients: at most {request['test_patients']} of a fold of their own for each of the first three seeds. No "
        "patient is in training and test. All methods of a seed have the same patients.",
        "",
        f"Every training has {request['epochs']} epochs of {request['iterations']} steps, with preset `quick` on "
        f"{request['configuration']} (patches of {patch}, batch {network['batch_size']}, network of 8 base features), "
        f"AdamW, prediction without mirroring, device {request['device']}.",
    ]


def finished_lines(content: Mapping[str, Any], request: Mapping[str, Any]) -> list[str]:
    """How much of the full grid is there, and what is not."""
    total = len(content["finished_runs"]) + len(content["missing_runs"])
    lines = [
        *(f"- `{name}`: {description}" for name, description in content["methods"].items()),
        "",
        f"Finished: {len(content['finished_runs'])} of {total} trainings of the full grid ({len(content['methods'])} "
        f"methods, {request['seeds']} seeds, {request['patients']} and all training patients).",
    ]
    if content["missing"]:
        lines += ["", "Not run:", "", *(f"- {line}" for line in content["missing"])]
    lines += [
        "",
        "A small network and short trainings: it shows how the methods compare here, at this number of steps; "
        "full-size networks and trainings of nnU-Net's length were not run.",
    ]
    return lines


def training_cells(row: Mapping[str, Any]) -> list[str]:
    """Of `training_columns`: parameters, step, learning rate and seeds."""
    return [
        f"{row['parameters']:,}",
        f"{row['median_step_seconds']:.2f} s",
        ", ".join(f"{lr:g}" for lr in row["lr"]),
        ", ".join(map(str, row["seeds"])),
    ]


TRAINING_HEADER = ("parameters", "step", "lr", "seeds")


def cell(values: Values, *, signed: bool = False, digits: int = 3) -> str:
    """A figure with its interval for a table."""
    if values["value"] is None:
        return "none"
    return with_interval({key: float(value or 0.0) for key, value in values.items()}, signed=signed, digits=digits)


def seeds_table(rows: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    """One figure of every run.

    Args:
        rows: of the results.
        name: the figure's.
    """
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    cells = [[row["method"], *(_seed_cell(row["by_seed"].get(str(seed)), name) for seed in seeds)] for row in rows]
    return markdown_table(["", *(f"seed {seed}" for seed in seeds)], cells)


def _seed_cell(values: Values | None, name: str) -> str:
    if values is None:
        return ""
    return "none" if values[name] is None else f"{values[name]:.3f}"


def titled(title: str, lines: Sequence[str]) -> list[str]:
    """A table under a sentence; nothing if it is empty."""
    return [title, "", *lines, ""] if lines else []


def pilot_lines(content: Mapping[str, Any], about: Sequence[str]) -> list[str]:
    """How the learning rates were chosen.

    Args:
        content: of the results.
        about: lines that say which methods share a rate.
    """
    if not content["pilot"]:
        return ["## Choice of the learning rate", "", "None: `--lrs` names one for all trainings.", ""]
    return [
        "## Choice of the learning rate",
        "",
        f"Mean Dice on patients of fold {PILOT_TEST_FOLD} of the original, trained on patients of its fold "
        f"{PILOT_TRAINING_FOLD}:",
        *about,
        "",
        *pilot_table(content["pilot"]),
        "",
    ]
