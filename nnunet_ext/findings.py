"""The outcome of a check, of an installation or of a dataset."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nnunet_ext.messages import counted

WIDTH = 100
TITLE_WIDTH = len("nnUNet_preprocessed")
COLUMN = len("problem") + 2 + TITLE_WIDTH + 2

Severity = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    severity: Severity  # ``warning``: works, but not as well or not for long; ``problem``: something will fail
    title: str  # what was looked at, in a word or two
    detail: str  # what was found
    fix: str = ""  # the command that fixes it; empty if all is well

    def __str__(self) -> str:
        """The finding as lines of text. The command that fixes it is never wrapped, so that it can be copied."""
        wrapped = textwrap.fill(
            self.detail,
            WIDTH,
            initial_indent=f"{self.severity:7}  {self.title:{TITLE_WIDTH}}  ",
            subsequent_indent=" " * COLUMN,
            break_long_words=False,
            break_on_hyphens=False,
        )
        return f"{wrapped}\n{' ' * COLUMN}$ {self.fix}" if self.fix else wrapped


def problems_and_warnings(findings: Sequence[Finding]) -> tuple[int, int, str]:
    """How many findings are problems and warnings, and both in words, which are empty if there is none."""
    severities = [finding.severity for finding in findings]
    problems, warnings = severities.count("problem"), severities.count("warning")
    named = [counted(number, word) for number, word in ((problems, "problem"), (warnings, "warning")) if number]
    return problems, warnings, " and ".join(named)
