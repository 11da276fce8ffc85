"""A picture of what methods of an experiment make of one test case, beside the labels that they were given."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.engine.experiment import Test, Training
from benchmarks.engine.runner import Runner, evaluation_name
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import select_cases
from nnunet_ext.files import written_whole
from nnunet_ext.plans.channel_roles import roles_in, roles_of_dataset
from nnunet_ext.preprocessing.raw.raw_dataset import (
    Labels,
    RawDataset,
    read_images,
    read_label_map,
    read_raw_dataset,
    reader_for,
)
from nnunet_ext.report.overlays import LABEL_COLOURS, best_slice

PANEL, LINE = 1.7, 0.15  # inches: the width of a panel, the height of a line of its title
TITLE = 22  # letters in a line
DPI = 110
COLOURS = 256  # greys, and those of a few labels: less than half of the bytes of all colours
MARGIN = 0.2  # around what is labelled, as a share of its longer side
Panel = tuple[str, npt.NDArray[np.floating[Any]], Labels | None]  # title; image and labels, (Z, Y, X) or a slice


def draw_picture(runner: Runner, names: Sequence[str], file: Path, test_name: str = "") -> str:
    """Draw the image, the labels that were given, what each method predicts, and the truth; returns the case.

    It is of the first seed, size and length. The case is the one whose gain of the last method over the first, in Dice,
    is the median: neither the best nor the worst for it. Where the labels that the first method's dataset gives are not
    the truth for some of the cases, it is the median of these. A prior scan is drawn with its labels.

    Args:
        names: of methods, at least one.
        file: PNG to write.
        test_name: of the test; the first one by default.

    Raises:
        UserError: if a method or the test is unknown, or a method has not been scored on it.
    """
    test = runner.experiment.test_named(test_name)
    trainings = [_training(runner, name, test) for name in names]
    tested = select_cases(
        _tested(trainings[0], test), test.cases, folds=[trainings[0].fold], references=test.references or None
    )
    folders = [runner.evaluation(one, test) / f"{_tested(one, test)}_{test.cases}" for one in trainings]
    for training, folder in zip(trainings, folders):
        if not folder.is_dir():
            raise UserError(f"{training.name} was scored on another machine. Draw there, as its predictions are there.")
    data = read_raw_dataset(tested.dataset)
    reader = reader_for(data.description, next(iter(tested.cases.values())).label)
    truths = {name: _label_map(reader, case.label) for name, case in tested.cases.items()}
    given = _given(read_raw_dataset(trainings[0].dataset), truths)
    dice = [_dice(runner, one, test) for one in (trainings[0], trainings[-1])]
    case = median_case([one[one.index.isin(given or truths)] for one in dice])

    truth = truths[case]
    images, properties = read_images(reader, tested.cases[case])
    panels: list[Panel] = [*_prior(data, images), ("image", images[0], None)]
    if case in given:
        panels.append(("labels given", images[0], given[case]))
    for training, folder in zip(trainings, folders):
        panels.append((training.method.name, images[0], _label_map(reader, folder / f"{case}{data.ending}")))
    panels.append(("truth", images[0], truth))
    _draw(panels, best_slice(truth, 0), properties["spacing"][1:], data, file)
    return case


def _draw(panels: Sequence[Panel], at: int, spacing: Sequence[float], dataset: RawDataset, file: Path) -> None:
    """Write a PNG of a slice of each panel, side by side; `spacing` is that of its rows and columns in mm.

    The slices are cut to what is labelled in any panel, with a margin, so that no wrong island is left out.
    """
    values = _foreground(dataset)
    box = _box(np.any([np.isin(labels[at], values) for _, _, labels in panels if labels is not None], axis=0))
    panels = [(title, image[at][box], None if labels is None else labels[at][box]) for title, image, labels in panels]
    rows, columns = spacing
    aspect = rows / columns
    titles = [textwrap.fill(title, TITLE, break_on_hyphens=False) for title, _, _ in panels]
    above = LINE * (1 + max(title.count("\n") + 1 for title in titles))
    height = PANEL * aspect * panels[0][1].shape[0] / panels[0][1].shape[1]
    figure = Figure(figsize=(PANEL * len(panels), height + above), dpi=DPI, facecolor="black")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=height / (height + above), wspace=0.02)
    for panel, title, (_, image, labels) in zip(axes, titles, panels):
        low, high = np.percentile(image, [1, 99.5])
        panel.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
        if labels is not None:
            for value, colour in zip(values, LABEL_COLOURS):
                mask = np.ma.masked_equal(labels == value, False)
                panel.imshow(mask, cmap=ListedColormap([colour]), alpha=0.65, aspect=aspect)
        panel.set_title(title, color="white", fontsize=9, pad=3)
        panel.set_axis_off()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", facecolor="black")
    with written_whole(file) as temporary:
        few = Image.open(drawn).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        few.save(temporary, format="png", optimize=True)


def _box(shown: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """The rows and columns around what is shown, with a margin; all if nothing is."""
    if not shown.any():
        return (slice(None), slice(None))
    spans = [(int(places.min()), int(places.max()) + 1) for places in np.nonzero(shown)]
    margin = round(MARGIN * max(last - first for first, last in spans))
    return tuple(slice(max(first - margin, 0), last + margin) for first, last in spans)


def _prior(dataset: RawDataset, images: npt.NDArray[np.float32]) -> list[Panel]:
    """The prior scan of a case with its labels, if the dataset says which channels it is."""
    if not roles_in(dataset.description):
        return []
    roles = roles_of_dataset(dataset.description)
    if not roles.prior_image:
        return []
    labels = np.zeros(images.shape[1:], dtype=np.int64)
    for value, channel in zip(_foreground(dataset), roles.prior_labels):
        labels[images[channel] > 0] = value
    return [("prior scan", images[roles.prior_image[0]], labels)]


def _foreground(dataset: RawDataset) -> list[int]:
    """The values of the labels to draw."""
    values = (value for value in dataset.description["labels"].values() if isinstance(value, int))
    return sorted(value for value in values if value not in (0, dataset.ignore_label))


def _given(trained: RawDataset, truths: Mapping[str, Labels]) -> dict[str, Labels]:
    """The label maps of cases that a dataset gives for training, where they are not the truth."""
    given = {}
    for case, truth in truths.items():
        if case in trained.cases:
            label = trained.cases[case].label
            labels = _label_map(reader_for(trained.description, label), label)
            if not np.array_equal(labels, truth):
                given[case] = labels
    return given


def median_case(dice: Sequence[pd.Series]) -> str:
    """The case of the median gain of the last over the first; of one series, of the median Dice."""
    gain = dice[-1] if dice[0].equals(dice[-1]) else dice[-1] - dice[0]
    ranked = gain.dropna().sort_values(kind="stable").index
    if ranked.empty:
        raise UserError("No case has a Dice of both methods.")
    return str(ranked[(len(ranked) - 1) // 2])


def _training(runner: Runner, name: str, test: Test) -> Training:
    """The first training of a method that is scored on a test."""
    runner.experiment.check_methods([name])
    for training in runner.experiment.all_trainings():
        if training.method.name == name and runner.journal.is_finished(evaluation_name(training, test)):
            return training
    raise UserError(f"No training of {name!r} has been scored on {test.name!r}.")


def _dice(runner: Runner, training: Training, test: Test) -> pd.Series:
    """The mean Dice of each case over its labels."""
    scores = runner.scores(training, test)
    dice = scores[scores.metric == "dice"]
    return (dice.numerator / dice.denominator).groupby(dice.case).mean()


def _tested(training: Training, test: Test) -> str:
    """nnU-Net's name of the dataset that a training is scored on."""
    return (test.data or training.method.data).name_for(training)


def _label_map(reader: object, file: Path) -> Labels:
    return read_label_map(reader, file)[0]
