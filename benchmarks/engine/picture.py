"""A picture of what methods of an experiment make of one test case, beside the labels that they were given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from benchmarks.engine.experiment import Test, Training
from benchmarks.engine.runner import Runner, evaluation_name
from nnunet_ext.errors import UserError
from nnunet_ext.files import written_whole
from nnunet_ext.preprocessing.raw.raw_dataset import (
    Labels,
    read_images,
    read_label_map,
    read_raw_dataset,
    reader_for,
)
from nnunet_ext.report.overlays import LABEL_COLOURS, best_slice

PANEL = 2.2  # inches
DPI = 110


def draw_picture(runner: Runner, names: Sequence[str], file: Path) -> str:
    """Draw the image, the labels that were given, what each method predicts, and the truth; returns the case.

    It is of the first test and the first seed, size and length. The case is the one whose gain of the last method over
    the first, in Dice, is the median: neither the best nor the worst for it.

    Args:
        names: of methods, at least one.
        file: PNG to write.

    Raises:
        UserError: if a method is unknown or has not been scored.
    """
    experiment = runner.experiment
    test, trainings = experiment.tests[0], [_training(runner, name) for name in names]
    case = median_case([_dice(runner, one, test) for one in (trainings[0], trainings[-1])])
    folders = [runner.evaluation(one, test) / f"{_tested(one, test)}_{test.cases}" for one in trainings]
    for training, folder in zip(trainings, folders):
        if not folder.is_dir():
            raise UserError(f"{training.name} was scored on another machine. Draw there, as its predictions are there.")
    tested = read_raw_dataset(_tested(trainings[0], test))
    given = read_raw_dataset(trainings[0].dataset)
    raw = tested.cases[case]
    reader = reader_for(tested.description, raw.label)
    image, properties = read_images(reader, raw)
    truth = _label_map(reader, tested.folder / (test.references or "labelsTr") / raw.label.name)
    shown = best_slice(truth, 0)
    columns: list[tuple[str, Labels | None]] = [
        ("image", None),
        ("labels given", _label_map(reader, given.cases[case].label)),
    ]
    for training, folder in zip(trainings, folders):
        columns.append((training.method.name, _label_map(reader, folder / f"{case}{tested.ending}")))
    columns.append(("truth", truth))

    rows, columns_mm = properties["spacing"][1:]
    height = PANEL * image.shape[2] * rows / (image.shape[3] * columns_mm)
    figure = Figure(figsize=(PANEL * len(columns), height + 0.3), dpi=DPI, facecolor="black")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=height / (height + 0.3), wspace=0.02)
    low, high = np.percentile(image[0, shown], [1, 99.5])
    foreground = sorted(value for value in tested.description["labels"].values() if isinstance(value, int) and value)
    for panel, (title, labels) in zip(panels, columns):
        panel.imshow(image[0, shown], cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=rows / columns_mm)
        if labels is not None:
            for value, colour in zip((one for one in foreground if one != tested.ignore_label), LABEL_COLOURS):
                mask = np.ma.masked_equal(labels[shown] == value, False)
                panel.imshow(mask, cmap=ListedColormap([colour]), alpha=0.65, aspect=rows / columns_mm)
        panel.set_title(title, color="white", fontsize=9, pad=3)
        panel.set_axis_off()
    with written_whole(file) as temporary:
        figure.savefig(temporary, format="png", facecolor="black")
    return case


def median_case(dice: Sequence[pd.Series]) -> str:
    """The case of the median gain of the last over the first; of one series, of the median Dice."""
    gain = dice[-1] if dice[0].equals(dice[-1]) else dice[-1] - dice[0]
    ranked = gain.dropna().sort_values(kind="stable").index
    if ranked.empty:
        raise UserError("No case has a Dice of both methods.")
    return str(ranked[(len(ranked) - 1) // 2])


def _training(runner: Runner, name: str) -> Training:
    """The first training of a method that is scored."""
    test = runner.experiment.tests[0]
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
