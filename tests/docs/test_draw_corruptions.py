"""The picture of the corruptions shows what the transforms do now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunet_ext.techniques.pretraining import ModelsGenesisSettings
from nnunet_ext.trainers.models_genesis import nnUNetTrainerModelsGenesis

DOCS = Path(__file__).resolve().parents[2] / "docs"
PATCH, SHUFFLING, RISING, FALLING, INSIDE, OUTSIDE, TOGETHER = range(7)
ONE_GREY = 255 / 31


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """docs/draw_corruptions.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("draw_corruptions", DOCS / "draw_corruptions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def patches(script: ModuleType) -> Any:
    return script.patches()


@pytest.fixture(scope="module")
def panels(script: ModuleType) -> Any:
    return script.panels()


def panel_in(picture: Image.Image, script: ModuleType, row: int, column: int) -> np.ndarray:
    """What a picture shows of a panel, a pixel for each voxel."""
    left, top = script.corner(row, column)
    width, height = (script.ZOOM * length for length in script.SHAPE[:2])
    return np.asarray(picture.crop((left, top, left + width, top + height)), dtype=int)[:: script.ZOOM, :: script.ZOOM]


def assert_shows(picture: Image.Image, script: ModuleType, panels: Any) -> None:
    for row, of_row in enumerate(panels):
        for column, panel in enumerate(of_row):
            difference = np.abs(panel_in(picture, script, row, column) - panel)
            # another machine's rounding may move a voxel to the next grey
            assert difference.max() <= np.ceil(ONE_GREY), f"row {row}, column {column}"


def test_the_picture_on_disk_shows_what_is_drawn_now(script: ModuleType, panels: Any) -> None:
    assert script.PICTURE == DOCS / "images" / "genesis_corruptions.png"
    assert script.PICTURE.stat().st_size < 150_000
    with Image.open(script.PICTURE) as picture:
        assert picture.format == "PNG"
        assert picture.size == script.corner(len(script.ROWS), script.COLUMNS)
        try:
            assert_shows(picture, script, panels)
        except AssertionError as error:
            pytest.fail(f"docs/images is out of date ({error}). Run: python docs/draw_corruptions.py")


def test_the_script_writes_the_picture_that_it_names(
    script: ModuleType, panels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "docs" / "images" / "genesis_corruptions.png"
    monkeypatch.setattr(script, "PICTURE", target)
    assert script.main() == 0
    assert capsys.readouterr().out == "docs/images/genesis_corruptions.png\n"
    with Image.open(target) as picture:
        assert_shows(picture, script, panels)
        titles = np.asarray(picture.crop((0, 0, *picture.size)))[:, : script.TITLES]
        for row in range(len(script.ROWS)):
            top = script.corner(row, 0)[1]
            assert titles[top : top + script.ZOOM * script.SHAPE[1]].max() > 200, f"row {row} has no title"


def test_draws_do_not_depend_on_what_was_drawn_before(script: ModuleType, patches: Any, panels: Any) -> None:
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    first = script.corrupted(patches[1], TOGETHER, 1)
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(6)
    assert (script.corrupted(patches[1], TOGETHER, 1) == first).all()


def test_each_row_shows_the_corruption_in_its_title(script: ModuleType, patches: Any, panels: Any) -> None:
    assert [row.title.replace("\n", " ") for row in script.ROWS] == [
        "patch",
        "local shuffling",
        "intensity, rising curve",
        "intensity, falling curve",
        "in-painting",
        "out-painting",
        "together, as in training",
    ]
    for column, patch in enumerate(patches):
        by_row = [script.corrupted(patch, row, column) for row in range(len(script.ROWS))]
        assert (by_row[PATCH] == patch).all()
        assert set(by_row[SHUFFLING].flatten().tolist()) <= set(patch.flatten().tolist())
        order = patch.flatten().argsort()
        assert (by_row[RISING].flatten()[order].diff() >= -1e-5).all()
        assert (by_row[FALLING].flatten()[order].diff() <= 1e-5).all()
        assert (by_row[INSIDE] != patch).float().mean() < 0.15
        assert 0.2 < (by_row[OUTSIDE] != patch).float().mean() < 0.9
        for row in range(1, len(script.ROWS)):
            # nor may the slice that is shown have been missed
            assert (panels[row][column] != panels[PATCH][column]).mean() > 0.01, f"row {row}, column {column}"


def test_the_last_row_is_what_the_trainer_corrupts_with(script: ModuleType) -> None:
    trainer: Any = SimpleNamespace(section=lambda _: ModelsGenesisSettings())
    trained_with = nnUNetTrainerModelsGenesis.corruptions(trainer)
    drawn = script.ROWS[TOGETHER].corruptions
    assert [(type(one.transform), one.apply_probability) for one in drawn] == [
        (type(one.transform), one.apply_probability) for one in trained_with
    ]
    assert all(vars(one.transform) == vars(other.transform) for one, other in zip(drawn, trained_with))
