"""Draw the pictures of the documentation: ``python docs/draw_pictures.py``.

They show digital phantoms and what the package's own code makes of them, and every draw is seeded, so that the pictures
are the same everywhere; tests/docs/test_pictures.py fails when they are not those on disk.
"""

from __future__ import annotations

import sys

from drawing import overview, pretraining, simulators, techniques
from drawing.layout import draw

PICTURES = [
    picture for part in (overview, techniques, simulators, pretraining) for picture in part.PICTURES
]


def main() -> int:
    """Draw them."""
    names = sys.argv[1:]
    for picture in PICTURES:
        if not names or picture.name in names:
            file = draw(picture)
            print(f"docs/images/{file.name}: {file.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
