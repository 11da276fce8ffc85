"""Results of an experiment: the scores of all runs as one table, and a page rendered from that table alone."""

from __future__ import annotations

import gzip
import math
import os
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from benchmarks.engine.drawing import CURVES, draw_figures
from benchmarks.engine.experiment import Comparison, Experiment, Test, Training
from benchmarks.engine.operating_points import mean_curve, read_points, rows_of_points
from benchmarks.engine.pilots import best_rate, searched_rates
from benchmarks.engine.provenance import REPOSITORY, markdown_table, provenance_lines
from benchmarks.engine.runner import Runner
from benchmarks.engine.statistics import METRIC, Estimate, Figures, figure
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import COLUMNS, read_scores
from nnunet_ext.files import write_text, written_whole
from nnunet_ext.registration import discovery_folder
from nnunet_ext.report.statistics import holm

COMPARISON_HEADER = ("", "metric, test", "difference [95 %]", "seeds", "margin", "p", "verdict")
PROVENANCE = "## Where the figures come from"
ALPHA = 0.05
DIGITS = 6


# ---------------------------------------------------------------------- the table


def scored(runner: Runner) -> list[tuple[Training, Test]]:
    """What has been scored, the pilot's trainings first."""
    possible = ((training, test) for training, tests in runner.experiment.scorings() for test in tests)
    return [pair for pair in possible if runner.is_scored(*pair)]


def collect(runner: Runner) -> pd.DataFrame:
    """The scores table of everything that has been scored."""
    tables = []
    for training, test in scored(runner):
        table = runner.scores(training, test)
        if training.method.labels:
            table = table[table.label.isin(training.method.labels)]
        patients = table.case.map(runner.experiment.patient_of)
        run = {"run": training.label, "seed": str(training.seed), "dataset": test.name}
        tables.append(table.assign(**run, patient=patients))
        if test.has_curve:
            tables.append(rows_of_points(read_points(runner.evaluation(training, test))).assign(**run))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(COLUMNS))


def whole_runs(experiment: Experiment, scores: pd.DataFrame) -> pd.DataFrame:
    """The scores without those of seeds that lack a part of their run, where several methods make it up."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for training, test in product(experiment.all_trainings(), experiment.tests):
        if test.takes(training.method):
            wanted.setdefault((training.label, test.name), set()).update(training.method.labels)
    whole = [
        rows
        for (run, test, _), rows in scores.groupby(["run", "dataset", "seed"], sort=False)
        if wanted.get((run, test), set()) <= {*rows.label}
    ]
    return pd.concat(whole) if whole else scores[:0]


def write_table(file: Path, scores: pd.DataFrame) -> None:
    """Write a scores table as compressed CSV; the same scores give the same bytes."""
    text = scores.to_csv(columns=list(COLUMNS), index=False, lineterminator="\n", float_format=f"%.{DIGITS}g")
    with written_whole(file) as temporary:
        temporary.write_bytes(gzip.compress(text.encode(), mtime=0))


# ---------------------------------------------------------------------- the page


@dataclass(frozen=True)
class Judged:
    """A comparison with what came out."""

    title: str  # of the experiment
    comparison: Comparison
    ours: str
    theirs: str
    test: str
    difference: Estimate
    declared: int  # primary comparisons of the experiment, those that wait for runs included
    waiting: int = 0  # seeds that are declared for all runs of the comparison and not in the difference yet

    @property
    def gain(self) -> float:
        """The difference towards better, in the margin's terms."""
        sign = -1 if METRIC[self.comparison.metric].better == "lower" else 1
        return sign * self.difference.value / (self.difference.reference if self.comparison.is_relative else 1)

    @property
    def p(self) -> float:
        """Of the difference alone; NaN where a primary comparison waits: a part of its seeds judges nothing."""
        return math.nan if self.comparison.is_primary and self.waiting else self.difference.p

    def verdict(self, p: float) -> str:
        """``better``, ``worse`` or ``open``; ``better`` needs the margin as well. Without p nothing is judged, and a
        primary comparison not before all of its seeds are in.
        """
        if self.comparison.is_primary and self.waiting:
            return f"waits for {self.waiting} more seed{'s' if self.waiting > 1 else ''}"
        if p != p:
            return "described"
        if p >= ALPHA:
            return "open"
        if self.gain < 0:
            return "worse"
        return "better" if self.gain >= self.comparison.margin else "better, but within the margin"


def judged(experiment: Experiment, figures: Figures) -> list[Judged]:
    """The comparisons of which both runs have been scored."""
    found, declared = [], len(experiment.primary_comparisons())
    shared = {experiment.run_of(one.name) for one in experiment.methods if one.is_shared}
    for one in experiment.comparisons:
        ours, theirs = experiment.runs_of(one)
        test = one.test or experiment.tests[0].name
        difference = figures.difference(ours, theirs, test, one.metric, shared=shared)
        if difference.value == difference.value:
            waiting = _waiting(experiment, {ours, theirs} - shared, difference)
            found.append(Judged(experiment.title, one, ours, theirs, test, difference, declared, waiting))
    if asked := experiment.trade_off:
        first, second = ([experiment.run_of(name) for name in asked.curves[one]] for one in (asked.ours, asked.theirs))
        difference = figures.kept_where_gained(first, second, asked.gained, asked.kept, asked.metric, shared=shared)
        if difference.value == difference.value:
            one, waiting = asked.comparison, _waiting(experiment, {*first, *second} - shared, difference)
            found.append(
                Judged(experiment.title, one, asked.ours, asked.theirs, one.test, difference, declared, waiting)
            )
    return found


def _waiting(experiment: Experiment, runs: Collection[str], difference: Estimate) -> int:
    """How many seeds are declared for all of the runs and not in the difference yet."""
    declared = [_seeds_of(experiment, run) for run in runs]
    return len(set.intersection(*declared) - {*difference.seeds}) if declared else 0


def _seeds_of(experiment: Experiment, run: str) -> set[str]:
    """The seeds that are declared for a run."""
    return {str(one.seed) for one in experiment.all_trainings() if one.label == run}


def comparison_lines(results: Sequence[Judged]) -> list[str]:
    """A table of an experiment's comparisons, p corrected by Holm's method over the primary ones among them."""
    roles = ["primary" if one.comparison.is_primary else "" for one in results]
    rows = [[*cells, role] for cells, role in zip(comparison_cells(results), roles)]
    return markdown_table([*COMPARISON_HEADER, ""], rows) if rows else ["None is complete."]


def comparison_cells(results: Sequence[Judged]) -> list[list[str]]:
    """A row for each comparison, with the cells of `COMPARISON_HEADER`; p as in `comparison_lines`."""
    rows = []
    for one, p in zip(results, corrected_p(results)):
        asked = one.comparison
        margin = f"{asked.margin:.0%}" if asked.is_relative else f"{asked.margin:g}"
        row = [f"{one.ours} − {one.theirs}", f"{asked.metric}, {one.test}", one.difference.text(is_signed=True)]
        rows.append([*row, str(len(one.difference.seeds)), margin, p_text(p), one.verdict(p)])
    return rows


def corrected_p(results: Sequence[Judged]) -> list[float]:
    """The p of each comparison, those of the primary ones corrected by Holm's method; NaN where there is none.

    Primary comparisons that wait for runs or seeds count, as if they would show nothing: so no verdict changes for the
    worse when these come in.
    """
    values = [one.p for one in results]
    primary = [
        number for number, one in enumerate(results) if one.comparison.is_primary and values[number] == values[number]
    ]
    declared = sum({one.title: one.declared for one in results}.values())
    waiting = [1.0] * max(0, declared - len(primary))
    for number, p in zip(primary, holm([*(values[number] for number in primary), *waiting])):
        values[number] = p
    return values


def p_text(p: float) -> str:
    """A cell with p."""
    return "" if p != p else f"{p:.3f}"


def run_lines(experiment: Experiment, figures: Figures) -> list[str]:
    """A row for each run and a column for each test and metric."""
    columns = experiment.columns or tuple((test.name, "dice") for test in experiment.tests)
    labels = dict.fromkeys(one.label for one in experiment.all_trainings())
    rows = []
    for label in labels:
        found = [figures.estimate(label, *column) for column in columns]
        seeds = dict.fromkeys(seed for one in found for seed in one.seeds)
        if seeds:
            cells = [one.text(digits=METRIC[metric].decimals) for one, (_, metric) in zip(found, columns)]
            rows.append([label, *cells, ", ".join(seeds)])
    header = ["", *(f"{metric}, {test}" for test, metric in columns), "seeds"]
    return markdown_table(header, rows) if rows else ["None is scored yet."]


def pilot_lines(experiment: Experiment, scores: pd.DataFrame) -> list[str]:
    """A row for each family and length, with what each learning rate scored; one that was not tried is empty."""
    pilot = experiment.pilot
    assert pilot is not None
    found: dict[tuple[str, int], dict[float, float]] = {}
    for (method, steps), lr in product(experiment.searches(), pilot.rates):
        trial = experiment.trials(method, steps, lr)[0]
        if method.lr is not None or experiment.piloting(trial) is not method:  # its pilot chose a threshold alone
            continue
        run = trial.label
        tried = scores[(scores.run == run) & (scores.dataset == experiment.pilot_test.name)]
        if len(tried):
            each = [figure(tried[tried.seed == seed], pilot.metric) for seed in tried.seed.unique()]
            score = mean_curve(tried, pilot.level).f1.max() if pilot.level else sum(each) / len(each)
            found.setdefault((method.family_name, steps), {})[lr] = score
    lrs = sorted({lr for values in found.values() for lr in values})
    rows = []
    for (family, steps), values in found.items():
        best = best_rate(searched_rates(pilot.rates, pilot.first_for(family), values))
        at_edge = " (at the edge)" if len(pilot.rates) > 1 and best in (min(values), max(values)) else ""
        cells = [f"{values[lr]:.3f}" if lr in values else "" for lr in lrs]
        rows.append([f"{family}, {steps} steps", *cells, f"{best:g}{at_edge}"])
    return markdown_table(["", *(f"{lr:g}" for lr in lrs), "best"], rows) if rows else ["Not run."]


def compared(experiment: Experiment) -> set[str]:
    """The methods that comparisons name."""
    return {name for one in experiment.comparisons for name in (one.ours, one.theirs)}


def count_line(experiment: Experiment, scores: pd.DataFrame) -> str:
    """How many of the models have been scored; a run has one for each seed, or several where methods make it up."""
    found = {key: {*labels} for key, labels in scores.groupby(["run", "seed"]).label}
    trainings = [one for one in experiment.all_trainings() if one.method.is_scored]
    labels = [(found.get((one.label, str(one.seed)), set()), {*one.method.labels}) for one in trainings]
    done = sum(bool(known & wanted if wanted else known) for known, wanted in labels)
    return f"Scored: {done} of {len(trainings)} models."


def page_lines(experiment: Experiment, scores: pd.DataFrame) -> list[str]:
    """Everything but the provenance."""
    figures = Figures(whole_runs(experiment, scores))
    methods = [f"- `{one.name}`: {one.description}" for one in experiment.methods if one.description]
    lines = [f"# {experiment.title}", "", experiment.description, "", *methods, *([""] if methods else [])]
    if experiment.seeds:  # else the search is all there is
        lines += [count_line(experiment, scores), "", "## Runs", "", *run_lines(experiment, figures), ""]
        lines += [
            "A figure is the mean over the labels and the seeds; in brackets its 95 % bootstrap interval over patients "
            "and seeds. Few seeds show the spread between trainings only roughly.",
            "",
        ]
    if experiment.trade_off:
        asked = experiment.trade_off
        shown = f"{asked.metric.capitalize()} on {asked.gained} and on {asked.kept}"
        lines += [f"![{shown}]({experiment.name}.png)", ""]
    if any(test.has_curve for test in experiment.tests):
        lines += [f"![Precision against recall at many thresholds]({experiment.name}{CURVES})", ""]
    if experiment.comparisons or experiment.trade_off:
        lines += ["## Comparisons", "", *comparison_lines(judged(experiment, figures)), ""]
        lines += [
            "Differences are pairs of the same patient and seed, with p from the same bootstrap; those of primary "
            "comparisons are corrected by Holm's method, in which one that waits counts with p = 1. With fewer than "
            "six patients there is neither an interval nor p, and the seeds' differences are in brackets. With fewer "
            "than three seeds there is no p; with three it reflects mainly the variation between patients, and rests "
            "on few trainings. A distance counts where both runs have one; the others are left out.",
            "",
        ]
        if shared := [one.name for one in experiment.methods if one.is_shared and one.name in compared(experiment)]:
            names = ", ".join(f"`{name}`" for name in shared)
            lines[-2] += f" Of {names} there is one model, which is paired with each seed: how others would differ is "
            lines[-2] += "in no interval."
    if experiment.pilot is not None:
        lines += ["## Learning rates", "", *pilot_lines(experiment, scores), ""]
        level = experiment.pilot.level
        chosen_by = f"F1 of {level}s at the best threshold" if level else f"Mean {experiment.pilot.metric}"
        lines += [f"{chosen_by}, of cases that are in no test, by learning rate.", ""]
    return lines


# ---------------------------------------------------------------------- files


def write_results(runner: Runner, folder: Path, command: Sequence[str]) -> None:
    """Write the table and the page of what has been scored; nothing before anything has been."""
    scores = collect(runner)
    if scores.empty:
        print("Nothing is scored yet, so no results were written.", flush=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    table, page = (folder / f"{runner.experiment.name}{ending}" for ending in (".csv.gz", ".md"))
    if page.is_file() and not is_rendered(page):
        print(f"{page} was made by an earlier program. Move it away, or name another folder, and repeat.", flush=True)
        return
    write_table(table, scores)
    lines = page_lines(runner.experiment, read_scores(table))
    draw_figures(runner.experiment, read_scores(table), folder)
    lines += [PROVENANCE, "", *origin_lines(runner, command)]
    write_text(page, "\n".join(lines) + "\n")
    print("\n".join(lines), flush=True)


def origin_lines(runner: Runner, command: Sequence[str]) -> list[str]:
    """Machine, versions, the commits of the trainings, and the commands: the data's, then those of one run."""
    finished = runner.journal.state["finished"]
    trained = [step for name, step in finished.items() if name.startswith("train_")]
    commits = dict.fromkeys(step["commit"] for step in trained)
    machines = Counter(step["machine"] for step in trained)
    first = next((one.name for one in runner.experiment.trainings() if f"train_{one.name}" in finished), "")
    about = [
        step["command"]
        for name, step in finished.items()
        if not name.startswith(("configure_", "train_", "evaluate_")) or (first and first in name)
    ]
    exports = [f"export {name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith("nnUNet_")]
    shown = [" ".join(command), "# which ran, beside the same for the other runs:", *exports, *about]
    for folder, name in ((runner.out, "$OUT"), (discovery_folder(), "$(nnunet_ext path)"), (REPOSITORY, ".")):
        shown = [line.replace(str(folder), name) for line in shown]
    counted = [f"{machine} ({count} trainings)" for machine, count in machines.items()]
    again = Counter(step["again"]["machine"] for step in trained if "again" in step)
    counted += [f"{machine} ({count} trainings again, as starts or teachers)" for machine, count in again.items()]
    return provenance_lines(counted, shown, commits="; ".join(filter(None, commits)))


def is_rendered(page: Path) -> bool:
    """Whether a page is there and was made here, not by an earlier program."""
    return page.is_file() and PROVENANCE in page.read_text(encoding="utf-8")


def render(experiment: Experiment, folder: Path) -> list[str]:
    """Render the page from the table anew and return its lines; what is below the figures, their provenance, stays.

    Raises:
        UserError: if the page that is there was made by something else.
    """
    page = folder / f"{experiment.name}.md"
    if page.is_file() and not is_rendered(page):
        raise UserError(f"{page} was not made by this program, as it has no part {PROVENANCE!r}. It stays as it is.")
    before = page.read_text(encoding="utf-8") if page.is_file() else PROVENANCE
    kept = before[before.index(PROVENANCE) :]
    scores = read_scores(folder / f"{experiment.name}.csv.gz")
    lines = page_lines(experiment, scores)
    draw_figures(experiment, scores, folder)
    write_text(page, "\n".join(lines) + f"\n{kept}")
    return lines
