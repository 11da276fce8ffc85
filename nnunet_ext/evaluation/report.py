"""One self-contained HTML file that compares trained models: Dice, training curves, overlays, settings, commands.

The file loads nothing from a network. Charts are inline SVG whose colours follow the reader's light or dark scheme.
"""

from __future__ import annotations

import base64
import io
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import fmean, median
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import torch
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.checkpoints.reading import read_checkpoint
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_text
from nnunet_ext.plans.settings import KEY

PACKAGES = ("nnunet-ext", "nnunetv2", "torch", "numpy", "dynamic-network-architectures", "batchgeneratorsv2")

# One colour for each run in the charts: stand-ins that the page replaces by its own variables, light or dark
INK, GRID = "#010203", "#010204"
RUN_COLOURS = tuple(f"#0101{number:02x}" for number in range(6))
# One colour for each label in the overlays, on grey images; told apart with red-green blindness too (Okabe and Ito)
LABEL_COLOURS = ("#56b4e9", "#f0e442", "#ff7f2a", "#cc79a7", "#00b386", "#ffffff")

CHART_INCHES = (3.7, 2.5)


@dataclass(frozen=True)
class RunResult:
    """What one trained model left behind.

    Attributes:
        name: how the report calls it.
        fold_folder: nnU-Net's ``fold_X`` folder with ``checkpoint_final.pth``.
        summary: ``summary.json`` of ``nnUNetv2_evaluate_folder`` on the predictions.
        predictions: folder that ``nnUNetv2_predict`` wrote, with its ``dataset.json``.
        images: folder with the predicted cases' images, ``<case>_0000.<ending>``; None leaves the overlays out.
    """

    name: str
    fold_folder: Path
    summary: Path
    predictions: Path
    images: Path | None = None


@dataclass(frozen=True)
class Label:
    """A label or region that nnU-Net evaluates: its name, and the values in the label map that belong to it."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Scores:
    """Dice of the cases of one run for one label; NaN where neither reference nor prediction has the label."""

    dice: Mapping[str, float]

    @property
    def defined(self) -> list[float]:
        return [value for value in self.dice.values() if not math.isnan(value)]

    @property
    def count(self) -> int:
        return len(self.defined)

    @property
    def mean(self) -> float:
        return fmean(self.defined) if self.defined else math.nan

    @property
    def median(self) -> float:
        return median(self.defined) if self.defined else math.nan

    @property
    def minimum(self) -> float:
        return min(self.defined, default=math.nan)


@dataclass(frozen=True)
class Evaluation:
    """A summary.json, read.

    Attributes:
        labels: scores by label, in the order of the label values.
        cases: scores of the mean over the labels of each case.
        references: reference file of each case.
        predictions: predicted file of each case.
    """

    labels: Mapping[Label, Scores]
    cases: Scores
    references: Mapping[str, Path]
    predictions: Mapping[str, Path]

    @property
    def foreground_mean(self) -> float:
        """Mean of the labels' means: nnU-Net's ``foreground_mean``."""
        return nanmean(scores.mean for scores in self.labels.values())


@dataclass(frozen=True)
class Training:
    """What a checkpoint says about how it came to be.

    Attributes:
        curves: one float per epoch by the logger's key; NaN where the epoch has no value.
        settings: name and value, in reading order.
        moved: of a fine-tuning, by role of the parameters, how many entries ever moved, and how many there are.
    """

    curves: Mapping[str, Sequence[float]]
    settings: Mapping[str, str]
    moved: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Line:
    """One line of a chart: what it is called, one value per epoch, colour and line style of matplotlib."""

    name: str
    values: Sequence[float]
    colour: str
    style: str = "-"


def nanmean(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return fmean(defined) if defined else math.nan


def read_labels(dataset_json: Mapping[str, Any]) -> dict[tuple[int, ...], str]:
    """Names of labels and regions by their values, from dataset.json."""
    names: dict[tuple[int, ...], str] = {}
    for name, values in dataset_json["labels"].items():
        names[tuple(values) if isinstance(values, list) else (int(values),)] = str(name)
    return names


def read_evaluation(run: RunResult) -> Evaluation:
    """Read a run's summary.json, with the names of its labels from the dataset.json beside the predictions.

    Raises:
        UserError: if a file is missing or the summary holds no case.
    """
    summary = read_json(run.summary)
    dataset_json = read_json(run.predictions / "dataset.json")
    names = read_labels(dataset_json)
    ending = str(dataset_json["file_ending"])
    dice: dict[tuple[int, ...], dict[str, float]] = {}
    references: dict[str, Path] = {}
    predictions: dict[str, Path] = {}
    for case in summary.get("metric_per_case", []):
        name = Path(case["prediction_file"]).name.removesuffix(ending)
        references[name], predictions[name] = Path(case["reference_file"]), Path(case["prediction_file"])
        for key, metrics in case["metrics"].items():
            values = tuple(int(number) for number in re.findall(r"\d+", key))
            dice.setdefault(values, {})[name] = float(metrics["Dice"])
    if not dice:
        raise UserError(
            f"{run.summary} holds no evaluated case. Run nnUNetv2_evaluate_folder on the predictions first."
        )
    labels = {
        Label(names.get(values, f"label {', '.join(map(str, values))}"), values): Scores(dice[values])
        for values in sorted(dice)
    }
    means = {case: nanmean(scores.dice[case] for scores in labels.values()) for case in references}
    return Evaluation(labels=labels, cases=Scores(means), references=references, predictions=predictions)


def read_training(fold_folder: Path) -> Training:
    """Read training curves and settings from ``checkpoint_final.pth``.

    Raises:
        UserError: if the folder has no such checkpoint, or it is refused.
    """
    source = fold_folder / "checkpoint_final.pth"
    if not source.is_file():
        raise UserError(f"{source} does not exist. The report needs a finished training.")
    checkpoint = read_checkpoint(source)
    curves = {
        str(key): [float(value) for value in values]
        for key, values in checkpoint["logging"].items()
        if all(isinstance(value, (int, float, np.number)) for value in values)
    }
    shares = checkpoint.get(KEY, {}).get("moved", {}).get("shares", {})
    moved = {str(role): (int(count), int(entries)) for role, (count, entries) in shares.items()}
    return Training(curves=curves, settings=_read_settings(checkpoint, curves), moved=moved)


def _read_settings(checkpoint: Mapping[str, Any], curves: Mapping[str, Sequence[float]]) -> dict[str, str]:
    arguments = checkpoint["init_args"]
    configuration = PlansManager(arguments["plans"]).get_configuration(arguments["configuration"]).configuration
    seconds = [
        end - start
        for start, end in zip(curves.get("epoch_start_timestamps", []), curves.get("epoch_end_timestamps", []))
    ]
    settings = {
        "Trainer": str(checkpoint["trainer_name"]),
        "Configuration": str(arguments["configuration"]),
        "Fold": str(arguments["fold"]),
        "Epochs": str(len(curves.get("train_losses", []))),
        "Seconds per epoch (median)": f"{median(seconds):.1f}" if seconds else "–",
        "Patch size": " × ".join(map(str, configuration.get("patch_size", []))) or "–",
        "Batch size": str(configuration.get("batch_size", "–")),
        "Spacing in mm": " × ".join(f"{value:g}" for value in configuration.get("spacing", [])) or "–",
        "Weights of the network": f"{count_weights(checkpoint['network_weights']):,}",
    }
    recorded = checkpoint.get(KEY, {}).get("settings", {})  # absent from checkpoints of stock nnU-Net
    for key, value in flatten(recorded).items():
        settings[key] = str(value)
    return settings


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def count_weights(state_dict: Mapping[str, torch.Tensor]) -> int:
    """Number of entries in a state dict, tensors that appear under several names counted once."""
    return sum({tensor.data_ptr(): tensor.numel() for tensor in state_dict.values()}.values())


def draw_chart(title: str, lines: Sequence[Line], *, limits: tuple[float, float] | None = None) -> Markup:
    """A line chart over epochs as inline SVG, its colours replaced by variables of the page.

    Args:
        title: what the vertical axis shows, for screen readers; the page prints it above the chart.
        lines: what to draw; NaN leaves a gap, a single value shows as a point.
        limits: of the vertical axis; None fits the values.
    """
    style = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": GRID,
        "axes.labelcolor": INK,
        "xtick.color": GRID,
        "ytick.color": GRID,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": GRID,
        "grid.linewidth": 0.6,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=CHART_INCHES, layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            epochs = np.arange(len(line.values))
            marker = "o" if np.isfinite(line.values).sum() == 1 else None
            axes.plot(epochs, line.values, color=line.colour, linestyle=line.style, linewidth=1.6, marker=marker)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.grid(True, axis="y")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        if limits:
            axes.set_ylim(*limits)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _adopt_svg(buffer.getvalue(), title)


def _adopt_svg(svg: str, title: str) -> Markup:
    """Make matplotlib's SVG document an element of the page: no prolog, no metadata, the page's colours and font."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r"\s+xmlns(:\w+)?=\"[^\"]*\"", "", body)
    body = re.sub(r"(<svg[^>]*?) width=\"[^\"]*\"", r"\1", body, count=1)
    body = re.sub(r"(<svg[^>]*?) height=\"[^\"]*\"", r"\1", body, count=1)
    for number, colour in enumerate(RUN_COLOURS):
        body = body.replace(colour, f"var(--run{number})")
    body = body.replace(INK, "var(--ink)").replace(GRID, "var(--grid)")
    label = Markup.escape(f"Line chart over epochs: {title}")
    return Markup(body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def run_colour(number: int) -> str:
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def draw_charts(trainings: Sequence[Training]) -> list[dict[str, Any]]:
    """Charts of the loss, the pseudo Dice, and every term of a technique that the checkpoints hold.

    A term is a key with a slash, such as ``loss/mixup``: nnU-Net's own keys have none. Of the shares that moved only
    that of all parameters has a chart; the others are in a table.

    Returns:
        For each chart its title, a note on how to read it, and the SVG.
    """

    def lines(key: str, style: str = "-") -> list[Line]:
        return [
            Line(key, training.curves[key], run_colour(number), style)
            for number, training in enumerate(trainings)
            if np.isfinite(training.curves.get(key, [])).any()
        ]

    wanted = [
        ("Loss", "solid: training, dashed: validation", lines("train_losses") + lines("val_losses", "--"), None),
        (
            "Pseudo Dice",
            "of random validation patches; solid: moving average, dotted: each epoch",
            lines("ema_fg_dice") + lines("mean_fg_dice", ":"),
            (0.0, 1.0),
        ),
        ("Learning rate", "", lines("lrs"), None),
    ]
    terms = dict.fromkeys(key for training in trainings for key in training.curves if "/" in key)
    wanted += [
        (term, "", lines(term), None) for term in sorted(terms) if not term.startswith("moved/") or term == "moved/all"
    ]
    return [
        {"title": title, "note": note, "svg": draw_chart(title, drawn, limits=limits)}
        for title, note, drawn, limits in wanted
        if drawn
    ]


def encode_png(figure: Figure, dpi: int) -> str:
    """A figure as the data URL of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def best_slice(labels: npt.NDArray[np.integer[Any]], axis: int) -> int:
    """The slice along an axis that shows the most labels and, among those, the most foreground; the middle if none."""
    others = tuple(other for other in range(labels.ndim) if other != axis)
    if not labels.any():
        return labels.shape[axis] // 2
    present = sum((labels == value).any(axis=others).astype(float) for value in np.unique(labels[labels > 0]))
    return int(np.argmax(present + (labels > 0).mean(axis=others)))


def draw_overlay(
    image: npt.NDArray[np.floating[Any]],
    reference: npt.NDArray[np.integer[Any]],
    prediction: npt.NDArray[np.integer[Any]],
    spacing: Sequence[float],
    labels: Sequence[Label],
) -> str:
    """Contours of reference (solid) and prediction (dashed) on slices in three planes, or in one for a 2D image.

    Args:
        image: (Z, Y, X) intensities, as nnU-Net's readers give them; Z is 1 for a 2D image.
        reference: (Z, Y, X) label map; values that no label holds (as ignore) are not drawn.
        prediction: (Z, Y, X) label map.
        spacing: voxel size in mm along Z, Y, X.
        labels: what to outline, each in its own colour.

    Returns:
        The data URL of a PNG.
    """
    known = np.where(np.isin(reference, [value for label in labels for value in label.values]), reference, 0)
    axes_shown = (0, 1, 2) if image.shape[0] > 1 else (0,)
    low, high = np.percentile(image, [1, 99.5])
    sizes = [
        [length * spacing[axis] for axis, length in enumerate(image.shape) if axis != across] for across in axes_shown
    ]
    heights, widths = zip(*sizes)
    inches = 2.6 / max(heights)
    figure = Figure(figsize=(sum(widths) * inches, max(heights) * inches), facecolor="black")
    panels = figure.subplots(1, len(axes_shown), width_ratios=widths, squeeze=False)[0]
    figure.subplots_adjust(left=0, right=1, bottom=0, top=1, wspace=0.02)
    for panel, across in zip(panels, axes_shown):
        index = best_slice(known, across)
        rows, columns = (spacing[axis] for axis in range(3) if axis != across)
        panel.imshow(
            image.take(index, axis=across), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=rows / columns
        )
        for number, label in enumerate(labels):
            colour = LABEL_COLOURS[number % len(LABEL_COLOURS)]
            for volume, style in ((reference, "solid"), (prediction, "dashed")):
                mask = np.isin(volume.take(index, axis=across), label.values)
                if mask.any() and not mask.all():
                    panel.contour(mask, levels=[0.5], colors=[colour], linestyles=[style], linewidths=1.4)
        if across > 0:
            panel.invert_yaxis()  # the patient's head up
        panel.set_axis_off()
    return encode_png(figure, dpi=130)


def choose_cases(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """The worst, the median and the best case by Dice, averaged over the labels and over the runs that have the case.

    Returns:
        Pairs of rank and case, without repetition; the median of an even number is the lower of the two.
    """
    names = dict.fromkeys(case for evaluation in evaluations for case in evaluation.cases.dice)
    means = {case: nanmean(one.cases.dice.get(case, math.nan) for one in evaluations) for case in names}
    ranked = sorted((case for case in means if not math.isnan(means[case])), key=lambda case: means[case])
    if not ranked:
        return []
    chosen = {"Worst": ranked[0], "Median": ranked[(len(ranked) - 1) // 2], "Best": ranked[-1]}
    unique: dict[str, str] = {}
    for rank, case in chosen.items():
        unique.setdefault(case, rank)
    return [(rank, case) for case, rank in unique.items()]


def _find_channel(images: Path, case: str, ending: str) -> Path:
    source = images / f"{case}_0000{ending}"
    if not source.is_file():
        raise UserError(f"{source} does not exist; the overlays need the image of each predicted case.")
    return source


def draw_case(run: RunResult, evaluation: Evaluation, case: str) -> str | None:
    """The overlay of one case of one run, or None if the run has no images or not this case.

    Raises:
        UserError: if the image is missing.
    """
    if run.images is None or case not in evaluation.predictions:
        return None
    dataset_json = read_json(run.predictions / "dataset.json")
    source = _find_channel(run.images, case, dataset_json["file_ending"])
    reader: BaseReaderWriter = determine_reader_writer_from_dataset_json(dataset_json, str(source), verbose=False)()
    image, properties = reader.read_images([str(source)])
    reference, _ = reader.read_seg(str(evaluation.references[case]))
    prediction, _ = reader.read_seg(str(evaluation.predictions[case]))
    return draw_overlay(
        image[0],
        reference[0].astype(np.int64),
        prediction[0].astype(np.int64),
        [float(value) for value in properties["spacing"]],
        list(evaluation.labels),
    )


def _overlays(runs: Sequence[RunResult], evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """For each chosen case its rank, name, and one picture per run with that run's Dice."""
    cases = []
    for rank, case in choose_cases(evaluations):
        pictures = [
            {"run": run.name, "dice": one.cases.dice[case], "image": picture}
            for run, one in zip(runs, evaluations)
            if (picture := draw_case(run, one, case)) is not None
        ]
        if pictures:
            cases.append({"rank": rank, "name": case, "pictures": pictures})
    return cases


def _metric_rows(evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """One row per label and a last one for the mean, each with one cell per run (None where a run lacks the label)."""
    labels = dict.fromkeys(label for evaluation in evaluations for label in evaluation.labels)
    rows: list[dict[str, Any]] = [
        {"label": label.name, "cells": [_cell(one.labels.get(label)) for one in evaluations]} for label in labels
    ]
    means = [{**(_cell(one.cases) or {}), "mean": one.foreground_mean} for one in evaluations]
    rows.append({"label": "Mean", "cells": means})
    for row in rows:
        shown = [round(cell["mean"], 3) for cell in row["cells"] if cell and not math.isnan(cell["mean"])]
        for cell in row["cells"]:
            if cell:
                cell["best"] = len(shown) > 1 and round(cell["mean"], 3) == max(shown) > min(shown)
    return rows


def _cell(scores: Scores | None) -> dict[str, Any] | None:
    if scores is None:
        return None
    return {"mean": scores.mean, "median": scores.median, "minimum": scores.minimum, "count": scores.count}


def _setting_rows(trainings: Sequence[Training]) -> list[tuple[str, list[str]]]:
    keys = dict.fromkeys(key for training in trainings for key in training.settings)
    return [(key, [training.settings.get(key, "–") for training in trainings]) for key in keys]


def _moved_rows(trainings: Sequence[Training]) -> list[tuple[str, list[str]]]:
    """For each role of parameters the share that moved, run by run; empty if no run is a fine-tuning."""
    roles = dict.fromkeys(role for training in trainings for role in training.moved)
    rows = []
    for role in roles:
        shares = [training.moved.get(role) for training in trainings]
        cells = ["–" if not share else f"{100 * share[0] / share[1]:.3g} % of {share[1]:,}" for share in shares]
        rows.append((role, cells))
    return rows


def _versions() -> list[tuple[str, str]]:
    rows = [("Python", platform.python_version()), ("System", f"{platform.system()} {platform.machine()}")]
    for package in PACKAGES:
        try:
            rows.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def _format_dice(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def write_report(
    target: Path, runs: Sequence[RunResult], *, title: str, commands: Sequence[str], subtitle: str = ""
) -> None:
    """Write the report, whole or not at all.

    Args:
        target: the HTML file; its folder must exist. An existing file is replaced.
        runs: at least one; their order is the order of the columns.
        title: heading of the page.
        commands: as they were run, one line each.
        subtitle: a sentence below the heading, such as which cases were evaluated.

    Raises:
        UserError: if a file of a run is missing or holds no evaluated case.
        ValueError: if there is no run.
    """
    if not runs:
        raise ValueError("A report needs at least one run.")
    evaluations = [read_evaluation(run) for run in runs]
    trainings = [read_training(run.fold_folder) for run in runs]
    labels = dict.fromkeys(label.name for evaluation in evaluations for label in evaluation.labels)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["dice"] = _format_dice
    page = environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        written=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        runs=[run.name for run in runs],
        run_colours=len(RUN_COLOURS),
        case_count=max(len(evaluation.references) for evaluation in evaluations),
        metrics=_metric_rows(evaluations),
        charts=draw_charts(trainings),
        overlays=_overlays(runs, evaluations),
        legend=[(name, LABEL_COLOURS[number % len(LABEL_COLOURS)]) for number, name in enumerate(labels)],
        moved=_moved_rows(trainings),
        settings=_setting_rows(trainings),
        versions=_versions(),
        commands=commands,
    )
    write_text(target, page)
