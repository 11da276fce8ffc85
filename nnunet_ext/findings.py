"""The outcome of a check, of an installation or of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        severity: ``ok``; ``warning`` (works, but not as well or not for long); ``problem`` (something will fail).
        title: what was looked at, in a word or two.
        detail: what was found.
        fix: the command that fixes it; empty if all is well.
    """

    severity: Severity
    title: str
    detail: str
    fix: str = ""
