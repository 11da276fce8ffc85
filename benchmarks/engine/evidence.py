"""What the experiments showed, on one page of the docs: all primary comparisons, and those that wait for a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine.experiment import Experiment
from benchmarks.engine.provenance import markdown_table
from benchmarks.engine.results import COMPARISON_HEADER, comparison_cells, is_rendered, judged
from benchmarks.engine.statistics import Figures
from nnunet_ext.evaluation.scores_table import read_scores

NOTICE = "<!-- Written by python -m benchmarks render. -->"
INTRODUCTION = (
    "Each experiment was declared before its trainings, with the comparisons that decide, the metric and the least "
    "gain that counts. Each learning rate was searched on patients who are in no test, and stock nnU-Net's alike. "
    "[Benchmarks](benchmarks.md#accuracy) says how, and the pages of the techniques what follows.",
    "",
    "A difference is the mean over patients and seeds, ours minus the other, with a 95 % bootstrap interval over both. "
    "*p* is corrected by Holm's method over all rows. *better* means that p is below 0.05 and that the gain reaches "
    "the margin; *open* that the data do not decide. Networks are small and trainings are short of nnU-Net's length: "
    "how it is with full-size networks and on other data is another question.",
)


def primary_lines(experiments: Sequence[Experiment], folder: Path) -> list[str]:
    """The primary comparisons of all experiments that have results, with Holm's correction over all of them.

    Args:
        experiments: which of them.
        folder: of the scores tables.
    """
    files = [(experiment, folder / f"{experiment.name}.csv.gz") for experiment in experiments]
    found = [
        one for experiment, file in files if file.is_file() for one in judged(experiment, Figures(read_scores(file)))
    ]
    primary = [one for one in found if one.comparison.is_primary]
    rows = [[one.title, *cells] for one, cells in zip(primary, comparison_cells(primary))]
    return markdown_table(["experiment", *COMPARISON_HEADER], rows) if rows else ["None is complete."]


def evidence_page(experiments: Sequence[Experiment], folder: Path) -> str:
    """The page, of all experiments that have a primary comparison.

    Args:
        experiments: all that are declared.
        folder: of the scores tables and pages.
    """
    deciding = [one for one in experiments if one.trade_off or any(other.is_primary for other in one.comparisons)]
    rendered = [one for one in deciding if is_rendered(folder / f"{one.name}.md")]
    waiting = [
        f"- **{one.title}** (`{one.name}`): {'; '.join(questions(one))}.{earlier(folder / f'{one.name}.md')}"
        for one in deciding
        if one not in rendered
    ]
    lines = [NOTICE, "", "# What was measured", "", *INTRODUCTION, "", *primary_lines(rendered, folder), ""]
    lines += ["## Declared, and not run to the end yet", "", *waiting, ""] if waiting else []
    return "\n".join(lines)


def questions(experiment: Experiment) -> list[str]:
    """What the primary comparisons ask."""
    asked = [f"`{one.ours}` − `{one.theirs}` in {one.metric}" for one in experiment.comparisons if one.is_primary]
    if pair := experiment.trade_off:
        asked.append(f"`{pair.ours}` − `{pair.theirs}` in what is kept on {pair.kept} at equal {pair.gained}")
    return list(dict.fromkeys(asked))


def earlier(page: Path) -> str:
    """A sentence about results that are there, but not of this declaration."""
    return " An earlier measurement is on the technique's page." if page.is_file() else ""
