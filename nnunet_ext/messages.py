"""Phrases that many messages need."""

from __future__ import annotations

from collections.abc import Collection

SHOWN = 5


def counted(number: int, word: str) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number} {word}{'s' * (number != 1)}"


def some(items: Collection[object], shown: int = SHOWN) -> str:
    """The first few items, and how many more there are."""
    named = ", ".join(map(str, list(items)[:shown]))
    return f"{named} and {len(items) - shown} more" if len(items) > shown else named


def last_line(text: object) -> str:
    """The last line of a text, such as the message of an exception; empty if there is none."""
    return (str(text).strip().splitlines() or [""])[-1].strip()


def size(shape: Collection[int]) -> str:
    """``64 x 64 x 20``."""
    return " x ".join(map(str, shape))
