"""One self-contained HTML file that shows trained models side by side: scores, tests, curves, pictures, settings.

The file loads nothing from a network and runs no script.
"""

import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from tqdm import tqdm

from nnunet_ext.arguments import RESAMPLES
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.bootstrap import Interval, Resampling
from nnunet_ext.evaluation.scores_table import nanmean
from nnunet_ext.files import write_text
from nnunet_ext.report.charts import RUN_COLOURS, draw_charts, draw_strips
from nnunet_ext.report.overlays import LABEL_COLOURS, choose_cases, draw_case
from nnunet_ext.report.runs import Board, Column, Run, boards
from nnunet_ext.report.tables import metric_tables

PACKAGES = ("nnunet-ext", "nnunetv2", "torch", "numpy", "dynamic-network-architectures", "batchgeneratorsv2")
VALUES_SHOWN = 6  # of a setting that differs between the trainings of a run
NOTHING = "–"

Rows = list[tuple[str, list[str]]]  # a name and a value for each run


def write_report(
    target: Path,
    runs: Sequence[Run],
    *,
    title: str,
    patients: Mapping[str, str],
    resamples: int = RESAMPLES,
    baseline: int = 0,
    subtitle: str = "",
    commands: Sequence[str] | None = None,
    report_command: str | None = None,
) -> list[str]:
    """Write the report, whole or not at all; returns what the page says is missing.

    Args:
        target: the HTML file in a folder that exists; an existing file is replaced.
        runs: at least one; their order is the order of the columns.
        title: heading of the page.
        patients: the patient of each case; cases of one patient are drawn together.
        resamples: for the intervals; 0 for none.
        baseline: number of the run that the others are compared with.
        subtitle: a sentence below the heading.
        commands: as they were run, one line each; None derives them from what the runs say of themselves.
        report_command: the one that makes this page, added to derived commands.
    """
    if not runs:
        raise ValueError("A report needs at least one run.")
    resampling = Resampling(patients, resamples=resamples)
    all_boards = boards(runs)
    sections = [_section(board, resampling, baseline=baseline) for board in all_boards]
    differing, same = _setting_rows(runs)
    remarks = [f"{run.name}: {remark}" for run in runs for source in run.sources for remark in source.remarks]
    page = template("report.html").render(
        title=title,
        subtitle=subtitle,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        runs=runs,
        run_colours=len(RUN_COLOURS),
        baseline=runs[baseline].name,
        remarks=remarks,
        sections=sections,
        resamples=resamples,
        grouped=len(set(patients.values())) < len(patients),
        seeds=any(len(column.seeds) > 1 for board in all_boards for column in board.columns),
        has_tests=any(table.comparisons for section in sections for table in section["tables"]),
        charts=draw_charts([list(run.trainings.values()) for run in runs]),
        several_trainings=any(len(run.trainings) > 1 for run in runs),
        moved=_moved_rows(runs),
        differing=differing,
        same=same,
        recorded=_recorded_versions(runs),
        versions=_versions(),
        commands=_derived_commands(runs, report_command) if commands is None else commands,
        derived=commands is None,
    )
    write_text(target, page)
    return [*remarks, *filter(None, (section["without_pictures"] for section in sections))]


def template(name: str) -> jinja2.Template:
    """A page of `templates`, with the filters for numbers and intervals."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (_breakable, _number, _difference, _interval, _p_value)
    environment.filters |= {filter_.__name__.removeprefix("_"): filter_ for filter_ in filters}
    return environment.get_template(name)


def _section(board: Board, resampling: Resampling, *, baseline: int) -> dict[str, Any]:
    """Everything that is shown of a board."""
    dice = {column.number: _dice_of_cases(column) for column in board.columns}
    names = dict.fromkeys(label.name for column in board.columns for seed in column.seeds for label in seed.labels)
    colours = {name: LABEL_COLOURS[place % len(LABEL_COLOURS)] for place, name in enumerate(names)}
    pictures, without = _pictures(board, dice, colours)
    defined = {number: [value for value in of_run.values() if not math.isnan(value)] for number, of_run in dice.items()}
    strips = [(number, values) for number, values in defined.items() if values]
    by_run = [set(column.cases) for column in board.columns]
    counts, common = sorted({len(cases) for cases in by_run}), len(set.intersection(*by_run))
    return {
        "cases_of": board.cases_of,
        "columns": board.columns,
        "mixed": len({seed.cases_of for column in board.columns for seed in column.seeds}) > 1,
        "case_counts": " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))),
        "plural": counts != [1],
        "common": None if counts == [common] else common,
        "patients": len({resampling.patients[case] for case in set.union(*by_run)}),
        "tables": metric_tables(board, resampling, baseline=baseline),
        "strips": draw_strips("Dice, mean over the labels", strips) if strips else Markup(""),
        "pictures": pictures,
        "without_pictures": without,
        "legend": colours,
    }


def _dice_of_cases(column: Column) -> dict[str, float]:
    """Of each case the mean over its labels and the run's seeds."""
    seeds = [seed.dice() for seed in column.seeds]
    return {case: nanmean(seed[case] for seed in seeds if case in seed) for case in column.cases}


def _pictures(
    board: Board, dice: Mapping[int, Mapping[str, float]], colours: Mapping[str, str]
) -> tuple[list[dict[str, Any]], str]:
    """For each chosen case its rank, name, and one picture per run; and which are missing, as a sentence."""
    chosen = [
        (rank, case, column)
        for rank, case in choose_cases(list(dice.values()))
        for column in board.columns
        if case in column.cases
    ]
    shown: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    for rank, case, column in tqdm(chosen, desc="Drawing cases", unit="picture", disable=None, leave=False):
        # of several seeds the first that has the case stands for all
        seed = next(one for one in column.seeds if case in one.files)
        try:
            if not all(label.values for label in seed.labels):
                raise UserError("the values of the labels are not known without a dataset.json")
            labels = {label: colours[label.name] for label in seed.labels}
            picture = draw_case(seed.files[case], labels, seed.description)
        except UserError as error:
            missing.append(f"{case} by {column.run} ({error})")
            continue
        entry = shown.setdefault(case, {"rank": rank, "name": case, "pictures": []})
        value = seed.dice()[case]
        entry["pictures"].append({"run": column.run, "number": column.number, "dice": value, "image": picture})
    if not missing:
        return list(shown.values()), ""
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return list(shown.values()), (
        f"Pictures are missing: {missing[0]}{more}. Raw data is looked for in the folder that the environment variable "
        "nnUNet_raw names, and beside the results."
    )


def _setting_rows(runs: Sequence[Run]) -> tuple[Rows, Rows]:
    """The settings in which runs differ, and the others."""
    keys = dict.fromkeys(key for run in runs for training in run.trainings.values() for key in training.settings)
    rows = _rows(runs, keys, lambda run, key: [one.settings.get(key, NOTHING) for one in run.trainings.values()])
    # a run without a checkpoint says nothing about its settings
    known = [place for place, run in enumerate(runs) if run.trainings]
    differing = [row for row in rows if len({row[1][place] for place in known}) > 1]
    return differing, [row for row in rows if row not in differing]


def _rows(runs: Sequence[Run], names: Iterable[str], values: Callable[[Run, str], Sequence[str]]) -> Rows:
    """For each name and run the different values, such as those of several trainings."""

    def cell(run: Run, name: str) -> str:
        different = list(dict.fromkeys(values(run, name)))
        more = f", … ({len(different)} values)" if len(different) > VALUES_SHOWN else ""
        return ", ".join(different[:VALUES_SHOWN]) + more or NOTHING

    return [(name, [cell(run, name) for run in runs]) for name in names]


def _moved_rows(runs: Sequence[Run]) -> Rows:
    """For each role of parameters the share that moved; empty if no run is a fine-tuning."""
    roles = dict.fromkeys(role for run in runs for training in run.trainings.values() for role in training.moved)

    def shares(run: Run, role: str) -> list[str]:
        counts = [one.moved[role] for one in run.trainings.values() if role in one.moved]
        return [f"{100 * moved / entries:.3g} % of {entries:,}" for moved, entries in counts if entries]

    return _rows(runs, roles, shares)


def _recorded_versions(runs: Sequence[Run]) -> Rows:
    """Versions that checkpoints and evaluations recorded."""
    training = _rows(
        runs,
        ["nnunet_ext in training"],
        lambda run, _: [one.version or "none (stock nnU-Net)" for one in run.trainings.values()],
    )
    names = dict.fromkeys(name for run in runs for source in run.sources for name in source.versions)
    scoring = _rows(runs, names, lambda run, name: [one.versions[name] for one in run.sources if name in one.versions])
    return [*training, *((f"{name} in evaluation", values) for name, values in scoring)]


def _versions() -> list[tuple[str, str]]:
    rows = [("Python", platform.python_version()), ("System", f"{platform.system()} {platform.machine()}")]
    for package in PACKAGES:
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def _derived_commands(runs: Sequence[Run], report_command: str | None) -> list[str]:
    """The commands of all trainings, those that several share once, then those of the scores and of this page."""
    lines: dict[str, None] = {}
    for run in runs:
        lines |= dict.fromkeys(line for training in run.trainings.values() for line in training.commands)
        lines |= dict.fromkeys(line for source in run.sources for line in source.commands)
    return [*lines, *([] if report_command is None else [report_command])]


def _breakable(text: str) -> Markup:
    """A name that may be broken behind its underscores, where it is longer than a line."""
    return Markup(str(Markup.escape(text)).replace("_", "_<wbr>"))


def _number(value: float | None, decimals: int = 3) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def _difference(value: float, decimals: int = 3) -> str:
    return NOTHING if math.isnan(value) else f"{value:+.{decimals}f}".replace("-", "−")


def _interval(interval: Interval, decimals: int = 3, signed: bool = False) -> str:
    ends = (interval.low, interval.high)
    return " to ".join(_difference(end, decimals) if signed else f"{end:.{decimals}f}" for end in ends)


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
