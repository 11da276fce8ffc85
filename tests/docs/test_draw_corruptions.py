"""The pictures of the pre-trainings' tasks show what the transforms do now."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunet_ext.techniques.pretraining import MAESettings, ModelsGenesisSettings, VolumeFusionSettings
from nnunet_ext.trainers.mae import nnUNetTrainerMAE
from nnunet_ext.trainers.models_genesis import nnUNetTrainerModelsGenesis
from nnunet_ext.trainers.volume_fusion import nnUNetTrainerVolumeFusion

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = ("genesis_corruptions", "volume_fusion", "masked_blocks")
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
def pictures(script: ModuleType) -> dict[str, Any]:
    return {one.name: one for one in script.PICTURES}


@pytest.fixture(scope="module")
def panels(script: ModuleType, pictures: dict[str, Any]) -> dict[str, Any]:
    return {name: script.panels(one) for name, one in pictures.items()}


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


@pytest.mark.parametrize("name", NAMES)
def test_the_picture_on_disk_shows_what_is_drawn_now(
    script: ModuleType, pictures: dict[str, Any], panels: dict[str, Any], name: str
) -> None:
    assert tuple(pictures) == NAMES
    file = DOCS / "images" / f"{name}.png"
    assert file.stat().st_size < 150_000
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        assert picture.size == script.corner(len(pictures[name].rows), script.COLUMNS)
        try:
            assert_shows(picture, script, panels[name])
        except AssertionError as error:
            pytest.fail(f"docs/images is out of date ({error}). Run: python docs/draw_corruptions.py")


def test_the_script_writes_the_pictures_that_it_names(
    script: ModuleType,
    pictures: dict[str, Any],
    panels: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "IMAGES", tmp_path / "docs" / "images")
    assert script.main() == 0
    assert capsys.readouterr().out == "".join(f"docs/images/{name}.png\n" for name in NAMES)
    for name, about in pictures.items():
        with Image.open(tmp_path / "docs" / "images" / f"{name}.png") as picture:
            assert_shows(picture, script, panels[name])
            titles = np.asarray(picture.crop((0, 0, *picture.size)))[:, : script.TITLES]
            for row in range(len(about.rows)):
                top = script.corner(row, 0)[1]
                assert titles[top : top + script.ZOOM * script.SHAPE[1]].max() > 200, f"row {row} has no title"


def test_draws_do_not_depend_on_what_was_drawn_before(
    script: ModuleType, patches: Any, pictures: dict[str, Any]
) -> None:
    about = pictures["genesis_corruptions"]
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    first = script.corrupted(patches[1], about, TOGETHER, 1)["image"]
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(6)
    assert (script.corrupted(patches[1], about, TOGETHER, 1)["image"] == first).all()


def test_each_row_shows_the_corruption_in_its_title(
    script: ModuleType, patches: Any, pictures: dict[str, Any], panels: dict[str, Any]
) -> None:
    about, shown = pictures["genesis_corruptions"], panels["genesis_corruptions"]
    assert [row.title.replace("\n", " ") for row in about.rows] == [
        "patch",
        "local shuffling",
        "intensity, rising curve",
        "intensity, falling curve",
        "in-painting",
        "out-painting",
        "together, as in training",
    ]
    for column, patch in enumerate(patches):
        by_row = [script.corrupted(patch, about, row, column)["image"] for row in range(len(about.rows))]
        assert (by_row[PATCH] == patch).all()
        assert set(by_row[SHUFFLING].flatten().tolist()) <= set(patch.flatten().tolist())
        order = patch.flatten().argsort()
        assert (by_row[RISING].flatten()[order].diff() >= -1e-5).all()
        assert (by_row[FALLING].flatten()[order].diff() <= 1e-5).all()
        assert (by_row[INSIDE] != patch).float().mean() < 0.15
        assert 0.2 < (by_row[OUTSIDE] != patch).float().mean() < 0.9
        for row in range(1, len(about.rows)):
            # nor may the slice that is shown have been missed
            assert (shown[row][column] != shown[PATCH][column]).mean() > 0.01, f"row {row}, column {column}"


def test_a_blend_is_of_the_crops_above_it(script: ModuleType, patches: Any, pictures: dict[str, Any]) -> None:
    about = pictures["volume_fusion"]
    assert [row.title for row in about.rows] == ["first crop", "second crop", "coefficient", "blend"]
    for column, patch in enumerate(patches):
        crops, again, blend, same_blend = (script.corrupted(patch, about, row, column) for row in range(4))
        assert (crops["image"] == again["image"]).all()
        assert (blend["image"] == same_blend["image"]).all()
        alpha = blend["segmentation"] / 4
        first, second = crops["image"]
        assert (blend["image"] - (alpha * first + (1 - alpha) * second)).abs().max() < 1e-5
        assert set(alpha.unique().tolist()) == {0, 0.25, 0.5, 0.75, 1}


def test_most_of_a_masked_patch_is_gone(script: ModuleType, patches: Any, pictures: dict[str, Any]) -> None:
    for column, patch in enumerate(patches):
        masked = script.corrupted(patch, pictures["masked_blocks"], 1, column)["image"]
        assert (masked == 0).float().mean() == pytest.approx(0.75, abs=0.06)
        assert ((masked == patch) | (masked == 0)).all()


def test_the_pictures_show_what_the_trainers_train_with(pictures: dict[str, Any]) -> None:
    def trained_with(trainer: Any, settings: Any) -> Any:
        about = SimpleNamespace(section=lambda _: settings)
        made = trainer.corruptions(about) if hasattr(trainer, "corruptions") else trainer.pretext(about)
        return [getattr(one, "transform", one) for one in made], [getattr(one, "apply_probability", 1) for one in made]

    for name, row, trainer, settings in (
        ("genesis_corruptions", TOGETHER, nnUNetTrainerModelsGenesis, ModelsGenesisSettings()),
        ("volume_fusion", 3, nnUNetTrainerVolumeFusion, VolumeFusionSettings()),
        ("masked_blocks", 1, nnUNetTrainerMAE, MAESettings()),
    ):
        transforms, probabilities = trained_with(trainer, settings)
        drawn = list(pictures[name].rows[row].transforms)[-len(transforms) :]
        assert [getattr(one, "apply_probability", 1) for one in drawn] == probabilities
        drawn = [getattr(one, "transform", one) for one in drawn]
        assert [(type(one), vars(one)) for one in drawn] == [(type(one), vars(one)) for one in transforms]
