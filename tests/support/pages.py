"""Pages of the documentation as text: their fenced blocks, prose and headings."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import notebooks

DOCS = Path(__file__).resolve().parents[2] / "docs"
NOTEBOOK = ".ipynb"

FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def text_of_page(page: Path) -> str:
    """A page as Markdown, notebooks included."""
    return notebooks.rendered(page).markdown if page.suffix == NOTEBOOK else page.read_text(encoding="utf-8")


def pictures_of_page(page: Path) -> set[str]:
    """The pictures that a page brings with it, as a notebook does."""
    return set(notebooks.rendered(page).pictures) if page.suffix == NOTEBOOK else set()


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return FENCE.sub("", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    found: set[str] = set()
    for heading in HEADING.findall(prose(text_of_page(page))):
        ascii_only = unicodedata.normalize("NFKD", heading).encode("ascii", "ignore").decode("ascii")
        words = re.sub(r"[^\w\s-]", "", ascii_only).strip().lower()
        anchor = base = re.sub(r"[-\s]+", "-", words)
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{base}_{number}"
        found.add(anchor)
    return found
