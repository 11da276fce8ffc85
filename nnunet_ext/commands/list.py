"""List the trainers: what each does, what it needs, where it comes from.

Any name in the first column can be given to nnU-Net's commands behind -tr. Trainers of your own are listed too, if they
are in another folder that nnUNet_extTrainer names and declare a technique. Exit status 1 if a module there is broken.
Example:

    nnunet_ext list
    nnunet_ext list --json
"""

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest

HEADER = ("TRAINER", "TECHNIQUE", "NEEDS", "PAPER")
KEYS = ("name", "technique", "needs", "paper")  # of --json
GAP = "  "
WIDEST = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the list as JSON, for programs")


def run(args: argparse.Namespace) -> int:
    from nnunet_ext.registry import TRAINERS, user_techniques

    techniques, broken = user_techniques()
    entries = [*TRAINERS, *(entry for technique in techniques for entry in technique.trainers)]
    rows = [(entry.name, entry.summary, entry.needs, entry.paper) for entry in entries]
    if args.json:
        print(json.dumps([dict(zip(KEYS, row)) for row in rows], indent=2))
    else:
        width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
        print("\n".join(table([HEADER, *rows], width)))
    for message in broken:
        print(message, file=sys.stderr)
    return 1 if broken else 0


def table(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Lines of columns, with long cells wrapped at blanks; `width` is exceeded only by words that do not fit."""
    widths = column_widths(rows, width)
    for row in rows:
        cells = [
            textwrap.wrap(cell, size, break_long_words=False, break_on_hyphens=False)
            for cell, size in zip(row, widths, strict=True)
        ]
        for line in zip_longest(*cells, fillvalue=""):
            yield GAP.join(text.ljust(size) for text, size in zip(line, widths, strict=True)).rstrip()


def column_widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Share a line's characters out: each column gets its longest word, then the longest texts get the rest."""
    columns = list(zip(*rows, strict=True))
    widths = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
    wanted = [max(map(len, column)) for column in columns]
    for _ in range(width - sum(widths) - len(GAP) * (len(columns) - 1)):
        neediest = max(range(len(columns)), key=lambda i: wanted[i] / max(1, widths[i]))
        if widths[neediest] >= wanted[neediest]:
            break
        widths[neediest] += 1
    return widths
