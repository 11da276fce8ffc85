"""How far a training is, read from what nnU-Net prints and writes."""

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
    """What a log says."""

    epoch: int | None = None  # the last one that began, counted from 1; None before the first
    has_trained: bool = False  # whether the epochs are over and validation has begun
    dice_by_label: tuple[float, ...] = ()  # pseudo Dice in the last complete epoch; NaN for a label that no patch had
    best_dice: float | None = None  # the best moving average of it, by which nnU-Net chooses checkpoint_best.pth
    last_line: str = ""  # the last line that was printed; of a progress bar, its last state

    @property
    def last_dice(self) -> float | None:
        """Mean pseudo Dice of the last complete epoch over the labels that the patches had."""
        known = [value for value in self.dice_by_label if not math.isnan(value)]
        return sum(known) / len(known) if known else None


def read_progress(log: Path) -> Progress:
    """Read a log; everything is unknown if there is none."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    epochs, last, best = EPOCH.findall(text), LAST_DICE.findall(text), BEST_DICE.findall(text)
    numbers = re.sub(r"np\.float\d+\(|\)", "", last[-1]).split(",") if last else []
    return Progress(
        epoch=int(epochs[-1]) + 1 if epochs else None,
        has_trained=text.rfind(TRAINED) > text.rfind("Epoch "),
        dice_by_label=tuple(float(number) for number in numbers if number.strip()),
        best_dice=float(best[-1]) if best else None,
        last_line="".join(last_lines(log, 1)).strip(),
    )


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log that are not empty; a state of a progress bar counts as a line."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()][-count:]


def planned_epochs(fold_folder: Path) -> int | None:
    """Length of a training according to nnU-Net's debug.json, which it writes when it begins."""
    try:
        return int(json.loads((fold_folder / "debug.json").read_text(encoding="utf-8"))["num_epochs"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
