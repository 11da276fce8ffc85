"""How far a training has come, by what nnU-Net prints and writes."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

EPOCH = re.compile(r"\bEpoch (\d+)\s*$", re.MULTILINE)
LAST_DICE = re.compile(r"Pseudo dice \[([^\]]*)\]")
BEST_DICE = re.compile(r"New best EMA pseudo Dice: ([\d.]+)")
TRAINED = "Training done."


@dataclass(frozen=True)
class Progress:
    """What a log says.

    Attributes:
        epoch: the one that was begun last, counted from 1; None before the first.
        has_trained: whether the epochs are over, and validation has begun.
        last_dice: pseudo Dice of the last epoch that ended, mean over the labels that the patches had.
        best_dice: the best moving average of it, by which nnU-Net chooses checkpoint_best.pth.
        last_line: of all that was printed.
    """

    epoch: int | None = None
    has_trained: bool = False
    last_dice: float | None = None
    best_dice: float | None = None
    last_line: str = ""


def read_progress(log: Path) -> Progress:
    """Read a log; everything is unknown if there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return Progress()
    epochs, last, best = EPOCH.findall(text), LAST_DICE.findall(text), BEST_DICE.findall(text)
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    return Progress(
        epoch=int(epochs[-1]) + 1 if epochs else None,
        has_trained=text.rfind(TRAINED) > text.rfind("Epoch "),
        last_dice=_mean(last[-1]) if last else None,
        best_dice=float(best[-1]) if best else None,
        last_line=lines[-1] if lines else "",
    )


def _mean(numbers: str) -> float | None:
    values = [float(number) for number in re.sub(r"np\.float\d+\(|\)", "", numbers).split(",") if number.strip()]
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None


def planned_epochs(fold_folder: Path) -> int | None:
    """Length of a training by nnU-Net's debug.json, which it writes when it begins."""
    try:
        return int(json.loads((fold_folder / "debug.json").read_text(encoding="utf-8"))["num_epochs"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
