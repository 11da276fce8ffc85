"""Phrases that many messages need."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

SHOWN = 5


def counted(number: int, word: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number} {word}{'s' * (number != 1)}"


def some(items: Collection[object], shown: int = SHOWN) -> str:
    """The first few items, and how many more there are."""
    named = ", ".join(map(str, list(items)[:shown]))
    return f"{named} and {len(items) - shown} more" if len(items) > shown else named


def quoted(value: object, longest: int = 80) -> str:
    """A value of a file or an option as Python writes it, cut where it is longer than so many characters."""
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 2]} …"


def listed(items: Collection[object], shown: int | None = 8) -> str:
    """The first few items, each on a line of its own, and how many more there are; all of them if `shown` is None."""
    more = [f"and {len(items) - shown} more"] if shown is not None and len(items) > shown else []
    return "".join(f"\n  - {item}" for item in [*list(items)[:shown], *more])


def changed_fields(present: Any, asked: Any) -> str:
    """Where two objects of one dataclass differ, each field with both values as a list; empty if they are equal."""
    old, new = asdict(present), asdict(asked)
    return listed([f"{key}: {old[key]!r}, asked for: {new[key]!r}" for key in old if old[key] != new[key]], None)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of equally many cells as lines of columns, the first aligned left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
        for row in rows
    )


def last_line(text: object) -> str:
    """The last line of a text, such as the message of an exception; empty if there is none."""
    return (str(text).strip().splitlines() or [""])[-1].strip()


def size(shape: Collection[int]) -> str:
    """``64 x 64 x 20``."""
    return " x ".join(map(str, shape))


def spread(numbers: Collection[float], unit: str, *, digits: int = 6) -> str:
    """``3, 5, 9 voxels (minimum, median, maximum)``."""
    low, middle, high = (f"{value:.{digits}g}" for value in (min(numbers), median(numbers), max(numbers)))
    return f"{low}, {middle}, {high} {unit} (minimum, median, maximum)"
