"""Types of command-line arguments that argparse has no name for, and options that several commands have."""

from __future__ import annotations

import argparse
from pathlib import Path

RESAMPLES = 2000  # enough for the second digit of a 95 % interval


def positive(text: str) -> int:
    """An integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def not_negative(text: str) -> int:
    """An integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return value


def not_negative_number(text: str) -> float:
    """A number of at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def share(text: str) -> float:
    """A number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def probability(text: str) -> float:
    """A number above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and below 1")
    return value


def fold_name(text: str) -> int | str:
    """A fold: its number, or ``all``."""
    if text == "all":
        return text
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is neither a fold's number nor all")
    return int(text)


def add_interval_options(parser: argparse.ArgumentParser, *, purpose: str) -> None:
    """The options of commands that show bootstrap intervals: ``--patients`` and ``--bootstrap``.

    Args:
        parser: the command's.
        purpose: what the patients are for, as the help says it.
    """
    parser.add_argument(
        "--patients",
        type=Path,
        metavar="FILE",
        help=f'for {purpose}: JSON, {{"CASE": "PATIENT", ...}} or a pairs.json of nnunet_ext pair. The cases of one '
        "patient are drawn together (default: each case is a patient)",
    )
    parser.add_argument(
        "--bootstrap",
        type=not_negative,
        default=RESAMPLES,
        metavar="N",
        help="resamples for the intervals, 0 for no intervals (default: %(default)s)",
    )
