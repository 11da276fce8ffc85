"""What the experiments showed, on one page of the docs: all primary comparisons, and those that wait for a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from benchmarks.engine.experiment import Comparison, Experiment
from benchmarks.engine.provenance import markdown_table
from benchmarks.engine.results import (
    COMPARISON_HEADER,
    Judged,
    comparison_cells,
    corrected_p,
    is_rendered,
    judged,
    p_text,
    whole_runs,
)
from benchmarks.engine.statistics import Figures
from nnunet_ext.evaluation.scores_table import read_scores

NOTICE = "<!-- Written by python -m benchmarks render. -->"
INTRODUCTION = (
    "Each experiment was declared before its trainings, with the comparisons that decide, the metric and the least "
    "gain that counts. Learning rates were searched on patients who are in no test, those of stock nnU-Net too; only "
    "for missing labels of the hippocampus it turned out later that 3 of the 60 tested cases have their other side "
    "among those that chose the rate, and 3 in training. "
    "Searches were of 1,000 steps on 5 to 20 training patients, and the rates were used for all lengths and sizes. "
    "Methods that train as stock does, with other labels or a correction, have the rate that was found for stock, but "
    "for missing labels of the heart, where one pilot training found another one for ours; students on nearly dense "
    "labels have that of full masks, and pre-trainings the preset's. The fusion of the dual encoder was chosen by "
    "short trainings that had been scored on the patients who are tested here. "
    "All trainings, those of stock nnU-Net too, use AdamW in place of nnU-Net's SGD, so these results do not show "
    "how the trainers' default optimizers and schedules perform. "
    "[Benchmarks](benchmarks.md#accuracy) says how, and the pages of the techniques what follows.",
    "",
    "A difference is the mean over patients and seeds, ours minus the other, with a 95 % bootstrap interval over both. "
    "*p* is corrected by Holm's method over the comparisons that decide in the same experiment; the last column over "
    "those of all experiments in the table. *better* means that p is below 0.05 and that the gain reaches the margin; "
    "*worse* that p is below 0.05 for a loss; *open* that the data do not decide; *waits* that seeds which were "
    "declared are still to come; *described* that there are fewer than six patients or fewer than three seeds, too few "
    "for a test. With three seeds *p* reflects mainly the variation between patients, and rests on few trainings. "
    "*At equal target*: take the lower of the two tuned models' Dice on the target. For each way, find the model that "
    "reaches it and keeps most on the source. Compare these. "
    "The experiments on the heart test the same 48 patients, and those of fine-tuning 20, 12 of them among the 48, so "
    "that rows are not independent of one another. "
    "Networks are small and trainings are short of nnU-Net's length: "
    "how it is with full-size networks and on other data is another question.",
)


def primary_results(experiment: Experiment, folder: Path) -> list[Judged]:
    """The primary comparisons of an experiment that have results.

    Args:
        experiment: which.
        folder: of the scores tables.
    """
    file = folder / f"{experiment.name}.csv.gz"
    found = judged(experiment, Figures(whole_runs(experiment, read_scores(file)))) if file.is_file() else []
    return [one for one in found if one.comparison.is_primary]


def primary_lines(results: Sequence[Sequence[Judged]]) -> list[str]:
    """A table of the primary comparisons of several experiments, with Holm's correction over each and over all."""
    cells = chain.from_iterable(comparison_cells(of_one) for of_one in results)
    every = list(chain.from_iterable(results))
    rows = [[one.title, *row, p_text(p)] for one, row, p in zip(every, cells, corrected_p(every))]
    return markdown_table(["experiment", *COMPARISON_HEADER, "p, all"], rows) if rows else ["None is complete."]


def evidence_page(experiments: Sequence[Experiment], folder: Path) -> str:
    """The page, of all experiments that have a primary comparison.

    Args:
        experiments: all that are declared.
        folder: of the scores tables and pages; those of earlier programs, which have other pages, do not count.
    """
    rendered = [one for one in experiments if is_rendered(folder / f"{one.name}.md")]
    results = {one.name: primary_results(one, folder) for one in rendered}
    waiting = []
    for experiment in experiments:
        known = [one.comparison for one in results.get(experiment.name, ())]
        asked = [in_words(one) for one in experiment.primary_comparisons() if one not in known]
        if asked:
            page = folder / f"{experiment.name}.md"
            questions = "; ".join(dict.fromkeys(asked))
            waiting.append(f"- **{experiment.title}** (`{experiment.name}`): {questions}.{earlier(page)}")
    lines = [
        NOTICE,
        "",
        "# What was measured",
        "",
        *INTRODUCTION,
        "",
        *primary_lines(list(results.values())),
        "",
    ]
    lines += ["## Declared, and not run to the end yet", "", *waiting, ""] if waiting else []
    return "\n".join(lines)


def in_words(one: Comparison) -> str:
    """What a comparison asks."""
    of_steps = f", {one.steps[0]:,} and {one.steps[1]:,} steps" if one.steps else ""
    return f"`{one.ours}` − `{one.theirs}`{of_steps} in {one.metric}{f', {one.test}' if one.test else ''}"


def earlier(page: Path) -> str:
    """A sentence about results that are there, but not of this declaration."""
    is_of_earlier_program = page.is_file() and not is_rendered(page)
    return " An earlier measurement is on the technique's page." if is_of_earlier_program else ""
