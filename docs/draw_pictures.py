"""Draw the pictures of the documentation: ``python docs/draw_pictures.py [NAME ...]``.

They show digital phantoms and what the package's own code makes of them, and every draw is seeded, so that the pictures
are the same everywhere; tests/docs/test_pictures.py fails when they are not those on disk.

``--pages FOLDER`` takes the pictures of the pages of ``nnunet_ext report`` and ``nnunet_ext review`` instead. It needs
Chromium, and trains in FOLDER what is not there yet, for some 15 minutes on two cores. Take an empty one after a change
of the report's page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from drawing import overview, pretraining, simulators, techniques
from drawing.layout import Picture, draw
from drawing.pages import draw_pages
from nnunet_ext.errors import UserError

PICTURES: dict[str, Picture] = {
    picture.name: picture for part in (overview, techniques, simulators, pretraining) for picture in part.PICTURES
}


def main(arguments: list[str] | None = None) -> int:
    """Draw some or all; 1 if there is no browser for ``--pages``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"pictures to draw (default: all): {', '.join(PICTURES)}"
    )
    parser.add_argument("--pages", type=Path, metavar="FOLDER", help="folder of the trainings behind report and review")
    args = parser.parse_args(arguments)
    if unknown := set(args.names) - set(PICTURES):
        parser.error(f"no picture is called {', '.join(sorted(unknown))}. There are: {', '.join(PICTURES)}")
    if args.names and args.pages:
        parser.error("--pages draws the pictures of report and review alone: leave the names out")
    files: Iterable[Path]
    if args.pages is None:
        files = (draw(PICTURES[name]) for name in args.names or PICTURES)
    else:
        try:
            files = draw_pages(args.pages)
        except UserError as error:
            print(error, file=sys.stderr)
            return 1
    for file in files:
        print(f"docs/images/{file.name}: {file.stat().st_size / 1000:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
