"""The hippocampus in MRI, in five seeded groups of persons.

The files name no persons, but the cases 2k − 1 and 2k are the two sides of one brain: ``python -m
benchmarks.data.hippocampus`` shows that their volumes agree as those of other neighbours do not.
"""

from __future__ import annotations

import math

import numpy as np
import SimpleITK as sitk

from benchmarks.data.folds import drawn
from benchmarks.data.raw import ENDING, original

ORIGIN = "Dataset004_Hippocampus"
GROUPS = 5


def cases() -> list[str]:
    """The names of all cases."""
    return sorted(path.name.removesuffix(ENDING) for path in (original(ORIGIN) / "labelsTr").glob(f"*{ENDING}"))


def number_of(case: str) -> int:
    """The number in a case's name."""
    return int(case.rpartition("_")[2])


def person_of(case: str) -> str:
    """Whose brain a case is from."""
    return f"person_{(number_of(case) + 1) // 2:03d}"


def persons() -> dict[str, list[str]]:
    """The cases of each person, one or two."""
    found: dict[str, list[str]] = {}
    for case in cases():
        found.setdefault(person_of(case), []).append(case)
    return found


def groups() -> list[dict[str, list[str]]]:
    """Every fifth of the persons in a seeded order, with their cases."""
    everyone = persons()
    order = drawn(everyone, 0)
    return [{person: everyone[person] for person in order[number::GROUPS]} for number in range(GROUPS)]


def groups_of_cases() -> list[dict[str, list[str]]]:
    """Every fifth of the cases: of folds that were drawn before it was known who is in them."""
    order = drawn(cases(), 0)
    return [{case: [case] for case in order[number::GROUPS]} for number in range(GROUPS)]


def neighbours_agreement(first: int) -> tuple[int, float]:
    """How many cases of odd (1) or even (0) numbers have their successor, and the correlation of their log volumes."""
    volumes = {}
    for case in cases():
        label = sitk.ReadImage(str(original(ORIGIN) / "labelsTr" / f"{case}{ENDING}"))
        volumes[number_of(case)] = math.log(np.count_nonzero(sitk.GetArrayViewFromImage(label)))
    pairs = [(volumes[one], volumes[one + 1]) for one in volumes if one % 2 == first and one + 1 in volumes]
    return len(pairs), float(np.corrcoef(np.array(pairs).T)[0, 1])


if __name__ == "__main__":
    for first, what in ((1, "2k − 1 and 2k"), (0, "2k and 2k + 1")):
        count, correlation = neighbours_agreement(first)
        print(f"{what}: {count} pairs, correlation of log volume {correlation:.2f}")
