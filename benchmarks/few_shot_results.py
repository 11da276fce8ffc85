"""What the few-shot experiment found: figures of the runs that are finished, which these are, and the tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, stdev
from typing import Any

import numpy as np

from benchmarks.domain_shift import PILOT_SHOTS, SEEDS, SHOTS, Shift
from benchmarks.few_shot_grid import METHODS, REFERENCE, Run, planned_runs
from benchmarks.pilot import pilot_content, pilot_table
from benchmarks.provenance import markdown_table, with_interval
from benchmarks.resampling import Estimate, crossed_estimate
from benchmarks.steps import epoch_seconds
from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.evaluation.scores import nanmean
from nnunet_ext.plans.settings import KEY

BOOTSTRAP_SEED = 0
SOURCE_MODEL_NAME = "source model"

Dice = Mapping[str, float]
"""Mean over the labels by case; NaN where no label has a Dice."""


@dataclass(frozen=True)
class Scored:
    """The Dice of one model.

    Attributes:
        target: on the target's test cases.
        source: on the source's test cases.
    """

    target: Dice
    source: Dice

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], shift: Shift) -> Scored:
        """Take them from an evaluation.json."""
        return cls(case_dice(evaluation, shift.target), case_dice(evaluation, shift.source))


@dataclass(frozen=True)
class Trained:
    """What a finished run left.

    Attributes:
        scored: its Dice.
        lr: the learning rate that it was trained with.
        moved: share of the weights that differ from the start; None where nothing was watched.
        epoch_seconds: median over its epochs.
    """

    scored: Scored
    lr: float
    moved: float | None
    epoch_seconds: float

    @classmethod
    def of(cls, evaluation: Mapping[str, Any], checkpoint: Path, shift: Shift) -> Trained:
        """Read evaluation and checkpoint."""
        content = read_checkpoint(checkpoint)
        record = content[KEY]
        moved = record["moved"]["shares"]["all"] if "moved" in record else None
        return cls(
            scored=Scored.of(evaluation, shift),
            lr=float(record["settings"]["initial_lr"]),
            moved=moved[0] / moved[1] if moved else None,
            epoch_seconds=median(epoch_seconds(content["logging"])),
        )


def case_dice(evaluation: Mapping[str, Any], dataset: str) -> dict[str, float]:
    """The Dice of each case, averaged over the labels that have one."""
    part = next(part for part in evaluation["datasets"] if part["dataset"] == dataset)
    return {
        case: nanmean(math.nan if value is None else value for value in labels.values())
        for case, labels in part["dice"].items()
    }


def seeds_by_cases(dice: Sequence[Dice]) -> np.ndarray:
    """One row for each seed, one column for each case, in the order of the first.

    Raises:
        ValueError: if they are not about the same cases.
    """
    cases = list(dice[0])
    if any(set(one) != set(cases) for one in dice):
        raise ValueError("The runs were not scored on the same cases.")
    return np.array([[one[case] for case in cases] for one in dice])


def resampled(values: np.ndarray) -> Estimate:
    """Mean and interval over seeds and cases; every figure is resampled from the same random numbers."""
    return crossed_estimate(values, np.random.default_rng(BOOTSTRAP_SEED))


def difference(first: Sequence[Dice], second: Sequence[Dice]) -> Estimate:
    """first - second, pair by pair of the same seed and case."""
    return resampled(seeds_by_cases(first) - seeds_by_cases([{case: one[case] for case in first[0]} for one in second]))


def row_of(runs: Mapping[Run, Trained], reference: Mapping[Run, Trained], source_model: Scored) -> dict[str, Any]:
    """The figures of one method with one number of shots.

    Args:
        runs: its finished runs, at least one, by increasing seed.
        reference: the finished runs of full fine-tuning with as many shots.
        source_model: Dice before any tuning.
    """
    first = next(iter(runs))
    by_seed = {run.seed: trained for run, trained in reference.items()}
    both = {run.seed: trained for run, trained in runs.items() if run.seed in by_seed}
    row: dict[str, Any] = {
        "method": first.method.name,
        "trainer": first.method.trainer,
        "settings": dict(first.method.settings),
        "shots": first.shots,
        "seeds": [run.seed for run in runs],
        "lr": sorted({trained.lr for trained in runs.values()}),
        "moved": nanmean(trained.moved for trained in runs.values() if trained.moved is not None),
        "median_epoch_seconds": median(trained.epoch_seconds for trained in runs.values()),
    }
    row["moved"] = None if math.isnan(row["moved"]) else row["moved"]
    for part in ("target", "source"):
        dice = [getattr(trained.scored, part) for trained in runs.values()]
        before = getattr(source_model, part)
        means = [nanmean(one.values()) for one in dice]
        row[part] = {
            "dice": resampled(seeds_by_cases(dice)).as_dict(),
            "deviation_over_seeds": stdev(means) if len(means) > 1 else None,
            "minus_source_model": difference(dice, [before] * len(dice)).as_dict(),
        }
        if both and first.method.name != REFERENCE:
            pairs = [(trained, by_seed[seed]) for seed, trained in both.items()]
            own, other = ([getattr(trained.scored, part) for trained in side] for side in zip(*pairs))
            row[part]["minus_full"] = {"seeds": list(both), **difference(own, other).as_dict()}
    return row


def collected(
    shift: Shift,
    source_model: Scored,
    trained: Mapping[Run, Trained],
    pilots: Mapping[str, Mapping[float, float]],
) -> dict[str, Any]:
    """The figures of what is finished, as plain data.

    Args:
        shift: the datasets.
        source_model: Dice before any tuning.
        trained: the finished runs.
        pilots: mean Dice of the pilot's finished trainings, by family and learning rate.
    """

    def finished(method: str, shots: int) -> dict[Run, Trained]:
        runs = {run: found for run, found in trained.items() if run.method.name == method and run.shots == shots}
        return dict(sorted(runs.items(), key=lambda item: item[0].seed))

    rows = [
        row_of(runs, finished(REFERENCE, shots), source_model)
        for shots in SHOTS
        for method in METHODS
        if (runs := finished(method.name, shots))
    ]
    return {
        "shift": {"name": shift.name, "source": shift.source, "target": shift.target, "sizes": dict(shift.sizes)},
        "pilot": pilot_content(pilots),
        "source_model": {
            "target": resampled(seeds_by_cases([source_model.target])).as_dict(),
            "source": resampled(seeds_by_cases([source_model.source])).as_dict(),
        },
        "rows": rows,
        "finished_runs": [run.name for run in trained],
        "missing_runs": [run.name for run in planned_runs("full") if run not in trained],
        "missing": missing_lines(trained),
        "dice_of_cases": {
            SOURCE_MODEL_NAME: {"target": dict(source_model.target), "source": dict(source_model.source)},
            **{
                run.name: {"target": dict(found.scored.target), "source": dict(found.scored.source)}
                for run, found in trained.items()
            },
        },
    }


def missing_lines(trained: Mapping[Run, Trained]) -> list[str]:
    """What of the full grid is not finished: one line for each number of shots with something missing."""
    lines = []
    for shots in SHOTS:
        parts = []
        for method in METHODS:
            seeds = [seed for seed in SEEDS if Run(method, shots, seed) not in trained]
            if len(seeds) == len(SEEDS):
                parts.append(method.name)
            elif seeds:
                parts.append(f"{method.name} (seed {', '.join(map(str, seeds))})")
        if parts:
            what = "everything" if parts == [method.name for method in METHODS] else ", ".join(parts)
            lines.append(f"{shots_name(shots)}: {what}")
    return lines


def shots_name(shots: int) -> str:
    """``1 shot`` or ``5 shots``."""
    return f"{shots} shot{'' if shots == 1 else 's'}"


def scope_lines(content: Mapping[str, Any], request: Mapping[str, Any], shift: Shift) -> list[str]:
    """What was run and what was not."""
    sizes = shift.sizes
    total = len(content["finished_runs"]) + len(content["missing_runs"])
    lines = [
        f"Source: {shift.source}, {sizes['source_train']} training cases. Target: {shift.target}: {shift.description}. "
        f"Both are scored on the same {sizes['test']} test cases (of the target for adapting, of the source for "
        "forgetting), which no training and no choice has seen. The source model is trained for 20 epochs of 50 steps, "
        f"every other model for {request['epochs']} epochs of {request['iterations']} steps on its few target cases: "
        "preset `quick` (network of 8 base features), AdamW, prediction without mirroring, "
        f"device {request['device']}.",
        "",
        f"Finished: {len(content['finished_runs'])} of {total} trainings of the full grid ({len(METHODS)} methods, "
        f"{', '.join(map(str, SHOTS))} shots, {len(SEEDS)} seeds). A seed decides the draw of the cases from a pool of "
        f"{sizes['pool']} as well as the training.",
    ]
    if content["missing"]:
        lines += ["", "Not run:", "", *(f"- {line}" for line in content["missing"])]
    lines += [
        "",
        "One source model, one shift, a small network and short trainings: it shows how the methods compare here, at "
        "this number of steps and with a learning rate from a grid of "
        f"{len(request['lrs'])}; longer trainings, full-size networks and other shifts were not run.",
    ]
    return lines


def table_of(content: Mapping[str, Any], shots: int) -> list[str]:
    """Target and source side by side for one number of shots; nothing if no run of it is finished."""
    rows = [row for row in content["rows"] if row["shots"] == shots]
    if not rows:
        return []
    header = ["", "target Dice", "minus full", "SD of seeds", "source Dice", "minus source model"]
    header += ["lr", "moved", "epoch", "seeds"]
    before = content["source_model"]
    cells = [[SOURCE_MODEL_NAME, with_interval(before["target"]), "", "", with_interval(before["source"]), *[""] * 5]]
    for row in rows:
        target, source = row["target"], row["source"]
        spread = target["deviation_over_seeds"]
        cells.append(
            [
                row["method"],
                with_interval(target["dice"]),
                with_interval(target["minus_full"], signed=True) if "minus_full" in target else "",
                "" if spread is None else f"{spread:.3f}",
                with_interval(source["dice"]),
                with_interval(source["minus_source_model"], signed=True),
                ", ".join(f"{lr:g}" for lr in row["lr"]),
                "" if row["moved"] is None else f"{row['moved']:.2%}",
                f"{row['median_epoch_seconds']:.1f} s",
                ", ".join(map(str, row["seeds"])),
            ]
        )
    return [f"## {shots_name(shots)}", "", *markdown_table(header, cells), ""]


def result_lines(content: Mapping[str, Any], request: Mapping[str, Any], shift: Shift) -> list[str]:
    """The figures as Markdown."""
    tables = [line for shots in SHOTS for line in table_of(content, shots)]
    return [
        f"# Fine-tuning with few cases: {shift.name}",
        "",
        *scope_lines(content, request, shift),
        "",
        *tables,
        "Dice is the mean over the labels, the test cases and the seeds. In brackets: the 95 % bootstrap interval,",
        f"drawn over seeds and over cases; {len(SEEDS)} seeds can show the spread between seeds only roughly. Each",
        "difference is that of pairs: of the same case and, for `minus full`, of the same seed (draw), against tuning",
        "all weights. moved: share of the network's entries that ever changed. epoch: median, other load included.",
        "",
        "## Choice of the learning rate",
        "",
        f"Mean Dice of nnU-Net's own validation on the target's {shift.sizes['validation']} validation cases, trained",
        f"with {PILOT_SHOTS} other cases; none of them is a test case. A family shares its rate.",
        "",
        *pilot_table(content["pilot"]),
        "",
    ]
