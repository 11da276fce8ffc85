"""Choosing learning rates beforehand: the best of each family of methods, by the Dice of short trainings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.provenance import markdown_table
from nnunet_ext.errors import UserError

Scores = Mapping[str, Mapping[float, float]]
"""Dice by family and learning rate, of the trainings that are finished."""


def best_lr(scores: Mapping[float, float]) -> float:
    """The learning rate of the highest Dice; the smaller one of equals, and none that has no Dice.

    Raises:
        ValueError: if no learning rate has a Dice.
    """
    defined = {lr: dice for lr, dice in scores.items() if dice == dice}
    if not defined:
        raise ValueError("No training of the pilot has a Dice.")
    return min(defined, key=lambda lr: (-defined[lr], lr))


def chosen_lrs(scores: Scores) -> dict[str, float]:
    """The best learning rate of each family.

    Raises:
        UserError: if all trainings of a family came out without a Dice.
    """
    try:
        return {family: best_lr(values) for family, values in scores.items()}
    except ValueError as error:
        raise UserError(f"{error} Give other --lrs.") from None


def pilot_content(scores: Scores) -> dict[str, Any]:
    """Scores and choice of each family as plain data; a family without any Dice has no choice."""
    return {
        family: {
            "dice": {f"{lr:g}": dice if dice == dice else None for lr, dice in values.items()},
            "best": best_lr(values) if any(dice == dice for dice in values.values()) else None,
        }
        for family, values in scores.items()
    }


def pilot_table(content: Mapping[str, Any]) -> list[str]:
    """What `pilot_content` returned as Markdown: every training of the pilot; a sentence if there is none."""
    if not content:
        return ["Not run."]
    lrs = list(dict.fromkeys(lr for family in content.values() for lr in family["dice"]))

    def cell(dice: float | None) -> str:
        return "" if dice is None else f"{dice:.3f}"

    rows = [
        [name, *(cell(family["dice"].get(lr)) for lr in lrs), "" if family["best"] is None else f"{family['best']:g}"]
        for name, family in content.items()
    ]
    return markdown_table(["", *(f"lr {lr}" for lr in lrs), "chosen"], rows)
