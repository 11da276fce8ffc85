"""Labels that are wrong in places, made of right ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine.experiment import Draw

KINDS = ("dilation", "erosion", "shift", "swap")


def made_wrong(folder: Path, draw: Draw, *, source: int, rate: float, size: float) -> Sequence[str]:
    """The command that makes labels wrong with a probability, by errors of a size in mm; other ones for each seed."""
    command = ["nnunet_ext", "simulate", "noise", str(source), "-o", folder.name, "--rate", f"{rate:g}"]
    return [*command, "--kinds", *KINDS, "--size", f"{size:g}", "--seed", str(draw.seed)]
