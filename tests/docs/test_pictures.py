"""The pictures of the documentation: they are what is drawn now, small, described, and where a reader needs them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import draw_pictures
from benchmarks.engine.experiment import experiment_names
from drawing import layout, pages, techniques
from drawing.layout import GREYS, Panel, Picture, Row, drawn, places, titles, with_palette
from nnunet_ext.cli import build_parser
from support.pages import prose

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
MEASURED = sorted((IMAGES / "measured").glob("*.png"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
NAMES = [*draw_pictures.PICTURES, *pages.EXCERPTS]

ONE_GREY = 255 / (GREYS - 1)
ROUNDED = 0.005
"""The share of a panel that another machine's rounding may move to another grey or label."""
ROUNDED_MORE = {
    **{("fine_tuning", title): 0.05 for title in ("gradient", "moved in a step", "in ten steps")},
    **{("pair", title): 0.05 for title in ("none", "rigid", "prior", "1: prior")},
}
"""Panels in which rounding decides what is selected, or where a registration ends."""


def shown_on(page: Path) -> dict[str, str]:
    """The descriptions of the pictures on a page, by name."""
    return {Path(target).stem: text for text, target in SHOWN.findall(prose(page.read_text(encoding="utf-8")))}


def assert_shows(shown: Image.Image, picture: Picture, rows: Any) -> None:
    """The picture has the panels of the rows; how letters are drawn is matplotlib's and Pillow's."""
    pixels = np.asarray(shown.convert("RGB"), dtype=int)
    for _, row, of_panels in places(rows, picture.side):
        for place, panel in zip(of_panels, row.panels):
            expected = panel.enlarged(picture.side)
            height, width = expected.shape[:2]
            found = pixels[place.top : place.top + height, place.left : place.left + width]
            assert found.shape == expected.shape, panel.title
            differs = np.abs(found - expected).max(axis=-1) > np.ceil(ONE_GREY)
            share = ROUNDED_MORE.get((picture.name, panel.title), ROUNDED)
            assert differs.mean() <= share, f"{row.heading}, {panel.title}: {differs.mean():.1%} of the pixels differ"


@pytest.mark.full
@pytest.mark.parametrize("name", draw_pictures.PICTURES)
def test_the_picture_on_disk_shows_what_is_drawn_now(name: str) -> None:
    picture = draw_pictures.PICTURES[name]
    rows = picture.rows()
    with Image.open(picture.file) as shown:
        try:
            assert shown.info["Description"] == titles(picture, rows)
            assert shown.size == drawn(picture, rows).size
            assert_shows(shown, picture, rows)
        except AssertionError as error:
            pytest.fail(f"docs/images/{name}.png is out of date ({error}). Run: python docs/draw_pictures.py {name}")


def small_picture(shade: int = 100) -> Picture:
    panels = [Panel("a title", np.full((4, 4, 3), shade + 20 * number, dtype=np.uint8)) for number in range(2)]
    return Picture("small", lambda: [Row("A heading", panels)], [("red", (255, 0, 0))], side=40)


def test_a_picture_has_its_panels_text_and_legend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layout, "IMAGES", tmp_path / "docs" / "images")
    picture = small_picture()
    monkeypatch.setattr(draw_pictures, "PICTURES", {"small": picture})
    assert draw_pictures.main([]) == 0
    assert capsys.readouterr().out.startswith("docs/images/small.png: ")
    with Image.open(tmp_path / "docs" / "images" / "small.png") as shown:
        assert shown.info["Description"] == "A heading | a title | a title | red"
        assert_shows(shown, picture, picture.rows())
        with pytest.raises(AssertionError, match="100.0% of the pixels differ"):
            assert_shows(shown, picture, small_picture(160).rows())
        pixels = np.asarray(shown.convert("RGB"))
    ((heading, _, (first, _)),) = places(picture.rows(), picture.side)
    for top, bottom in ((heading.top, heading.top + layout.HEADING), (first.top - layout.TITLE, first.top)):
        assert pixels[top:bottom].min(axis=-1).max() > 200, "no text"
    assert (pixels == (255, 0, 0)).all(axis=-1).any()


def test_a_step_moves_one_entry_of_each_row() -> None:
    gradient, one, ten = techniques.moved_entries()
    moved = (one.pixels[::2] == techniques.SELECTED).all(axis=-1)
    assert (moved.sum(axis=1) == 1).all()
    assert ((ten.pixels[::2] == techniques.SELECTED).all(axis=-1) >= moved).all()
    assert len(gradient.pixels) == len(one.pixels)


def test_a_name_that_no_picture_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        draw_pictures.main(["mixpu"])
    assert "no picture is called mixpu" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        draw_pictures.main(["mixup", "--pages", "somewhere"])
    assert "leave the names out" in capsys.readouterr().err


def test_too_many_colours_are_refused() -> None:
    many = np.zeros((20, 20, 3), dtype=np.uint8)
    many[..., 0], many[..., 1] = np.arange(20), np.arange(20)[:, None]
    with pytest.raises(ValueError, match="has 400 colours"):
        with_palette(Image.fromarray(many))


def test_without_a_browser_the_pages_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pages.shutil, "which", lambda name: None)
    monkeypatch.setattr(layout, "IMAGES", tmp_path / "images")
    assert draw_pictures.main(["--pages", str(tmp_path / "work")]) == 1
    assert "Install Chromium, or leave --pages out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_commands_behind_the_pages_parse() -> None:
    for command in (pages.SIMULATION, pages.REVIEW):
        assert build_parser().parse_args(command).command == command[0]


def test_every_picture_on_disk_is_drawn_by_the_script_and_shown_on_a_page() -> None:
    on_disk = {file.stem for file in IMAGES.glob("*.png")}
    assert on_disk == set(NAMES)
    assert on_disk | {file.stem for file in MEASURED} == {name for page in PAGES for name in shown_on(page)}


@pytest.mark.parametrize("file", MEASURED, ids=lambda file: file.stem)
def test_a_picture_of_real_data_is_of_an_experiment_and_names_its_source_and_licence(file: Path) -> None:
    """``python -m benchmarks picture`` draws it, of the models of an experiment."""
    assert file.stem in experiment_names()
    target = f"measured/{file.name})"
    (text,) = (text for text in (page.read_text(encoding="utf-8") for page in PAGES) if target in text)
    caption = text.partition(target)[2].split("\n\n")[1]
    assert re.search(r"Image and labels: .+ CC BY(-NC)?(-SA)? 4\.0", caption)


def test_pictures_are_small() -> None:
    sizes = {file: file.stat().st_size for file in IMAGES.rglob("*.png")}
    assert max(size for file, size in sizes.items() if file not in MEASURED) < 80_000, sizes
    assert max(sizes.values()) < 150_000, sizes  # the grey values of scans
    assert sum(sizes.values()) < 2_500_000


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_fits_a_phone(name: str) -> None:
    """A page is about 360 pixels wide there: letters of 21 then are at least 9 high."""
    with Image.open(IMAGES / f"{name}.png") as shown:
        assert shown.width <= 770


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_picture_of_a_page_is_described(page: Path) -> None:
    for name, text in shown_on(page).items():
        assert len(text) > 60, f"{page.name} shows {name} without saying in its alt text what is to be seen"


@pytest.mark.parametrize("page", sorted((ROOT / "docs" / "techniques").glob("*.md")), ids=lambda page: page.stem)
def test_every_page_of_a_technique_has_a_picture(page: Path) -> None:
    assert shown_on(page), f"{page.name} needs a picture: add it to docs/drawing/techniques.py"


def test_every_simulator_and_every_page_that_is_written_has_a_picture() -> None:
    commands = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    parser = commands.choices["simulate"]
    kinds = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction)).choices
    needed = {*(f"simulate_{kind}" for kind in kinds), "pair", "report", "review"}
    assert needed <= set(NAMES)


def test_the_readme_begins_with_a_picture() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert SHOWN.search(text.partition("\n## ")[0])
