"""Which trainer goes through which capability of nnU-Net, and in which tier: ``make cells``.

With ``--page`` it writes docs/reference/capabilities.md in place of printing.

The tests say what there is, by the mark ``capability``; tests/README.md says what there must be.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.trainers_under_test import (
    EVERY_TRAINER,
    PARTIAL,
    SEGMENTING,
    one_per_network,
    representative,
    trainer_class,
)

TESTS = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| (quick|full) \|", re.MULTILINE)

PAGE = TESTS.parent / "docs" / "reference" / "capabilities.md"

ONE_PER_NETWORK = "one for each network"
SCOPES = {
    "every trainer": EVERY_TRAINER,
    "every trainer that segments": SEGMENTING,
    ONE_PER_NETWORK: one_per_network(),
    f"{ONE_PER_NETWORK} that segments": one_per_network(SEGMENTING),
    "every trainer for partial labels": PARTIAL,
}

Cells = dict[str, dict[str, str]]
"""The tier of each trainer by capability."""


@dataclass
class Collector:
    """A plugin of pytest that keeps what was collected."""

    items: list[pytest.Item] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collected() -> Cells:
    """What the contract suite runs.

    Raises:
        AssertionError: if tests cannot be collected, or one that runs on a trainer has no mark.
    """
    collector, printed = Collector(), io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = pytest.main(["--collect-only", "-q", str(TESTS / "contract")], plugins=[collector])
    assert status == pytest.ExitCode.OK, printed.getvalue()
    cells: Cells = {}
    for item in collector.items:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        if "name" not in values:
            continue
        mark = item.get_closest_marker("capability")
        assert mark, f"{item.nodeid} runs on a trainer, and has no mark `capability`"
        tiers = cells.setdefault(mark.args[0].format(**values), {})
        tier = "full" if item.get_closest_marker("full") else "quick"
        if tiers.setdefault(values["name"], tier) != tier:
            tiers[values["name"]] = "both"
    return cells


def documented() -> tuple[Cells, dict[str, str]]:
    """What tests/README.md says, and on which trainers a capability runs by its words."""
    rows = ROW.findall((TESTS / "README.md").read_text(encoding="utf-8"))
    cells = {capability: dict.fromkeys(SCOPES[scope], tier) for capability, scope, tier in rows}
    return cells, {capability: scope for capability, scope, _ in rows}


def differences(found: Cells, expected: Cells) -> Iterator[str]:
    """A line for each cell in which they differ."""
    for capability in sorted({*found, *expected}):
        there, said = found.get(capability, {}), expected.get(capability, {})
        for trainer in EVERY_TRAINER:
            if there.get(trainer) != said.get(trainer):
                tiers = f"{there.get(trainer, 'not run')}; tests/README.md says {said.get(trainer, 'not run')}"
                yield f"{capability} × {trainer}: {tiers}"


def why_not(capability: str, scope: str, trainer: str) -> str | None:
    """Why a trainer does not go through a capability, if it does not."""
    declared = next((why for what, why in trainer_class(trainer).unsupported.items() if what in capability), None)
    if trainer in SCOPES[scope]:
        return declared and f"refused, which is tested: {declared}"
    if declared or (trainer not in SEGMENTING and "segments" in scope):
        return declared or "its checkpoint is a start for other trainings, and has no segmentation"
    if scope.startswith(ONE_PER_NETWORK):
        return f"{representative(trainer, SCOPES[scope])} stands for it: it builds the same network"
    return "it does not learn from the ignore label or from partial instances; its page says what it does with padding"


def table(cells: Cells, scopes: dict[str, str]) -> str:
    """Capabilities × trainers, with the reason for each cell that is not run."""
    width = max(map(len, cells))
    columns = [f"{number:>5}" for number in range(1, len(EVERY_TRAINER) + 1)]
    lines, notes = [" ".join([" " * width, *columns])], {}
    for capability, scope in scopes.items():
        row = []
        for trainer in EVERY_TRAINER:
            why = why_not(capability, scope, trainer)
            cell = f"-{notes.setdefault(why, len(notes) + 1)}" if why else cells[capability].get(trainer, "LOST")
            row.append(f"{cell:>5}")
        lines.append(" ".join([f"{capability:<{width}}", *row]))
    lines += ["", *(f"{number:>5}  {trainer}" for number, trainer in enumerate(EVERY_TRAINER, 1))]
    return "\n".join([*lines, "", *(f"{f'-{number}':>5}  {why}" for why, number in notes.items())])


def page() -> str:
    """The page of the documentation: a row for each capability, with who goes through it and why others do not."""
    lines = [
        "# Trainers and capabilities",
        "",
        "Written by `PYTHONPATH=tests python -m support.cells --page` from the contract suite, which takes the "
        "trainers through the capabilities of nnU-Net on tiny data. `tests/README.md` says what each test does. Of "
        "trainers that build the same network, one stands for the others in what depends on the network alone. What "
        "torch.compile makes of a network is traced for all, and compiled to code for a CPU for two of them. What "
        "needs a GPU is left out on machines without one; [Devices](../how-to/devices.md) says what has run on one.",
        "",
        "| Capability | Tested by the suite | Not tested, and why |",
        "| --- | --- | --- |",
    ]
    for capability, scope in documented()[1].items():
        tested: list[str] = []
        others: dict[str, list[str]] = {}
        for trainer in EVERY_TRAINER:
            why = why_not(capability, scope, trainer)
            if why is None:
                tested.append(f"`{trainer}`")
                continue
            same = "builds the same network" in why
            others.setdefault("one with the same network is tested" if same else why, []).append(f"`{trainer}`")
        named = ", ".join(tested)
        if len(tested) > len(EVERY_TRAINER) / 2:
            named = "all others" if others else "every trainer"
        if "CUDA" in capability:
            named += "; [not all have run](../how-to/devices.md)"
        reasons = [f"{', '.join(trainers)}: {why.rstrip('.')}." for why, trainers in others.items()]
        lines.append(f"| {capability.replace('_', ' ')} | {named} | {' '.join(reasons)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--page"]:
        PAGE.write_text(page(), encoding="utf-8")
        sys.exit()
    found, (expected, scopes) = collected(), documented()
    print(table(found, scopes))
    if wrong := list(differences(found, expected)):
        sys.exit("\n".join(["", "Cells that are not what tests/README.md says:", *wrong]))
