"""The hippocampus in MRI: one case for each patient, in five seeded groups."""

from __future__ import annotations

from benchmarks.data.folds import drawn
from benchmarks.data.raw import ENDING, original

ORIGIN = "Dataset004_Hippocampus"
GROUPS = 5


def groups() -> list[dict[str, list[str]]]:
    """Every fifth of the cases in a seeded order."""
    cases = drawn([path.name.removesuffix(ENDING) for path in (original(ORIGIN) / "labelsTr").glob(f"*{ENDING}")], 0)
    return [{case: [case] for case in cases[number::GROUPS]} for number in range(GROUPS)]
