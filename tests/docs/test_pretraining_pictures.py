"""The pictures of the pre-trainings' tasks show what the transforms do now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from drawing.pretraining import COLUMNS, TASKS, corrupted, middle_slice, patches
from nnunet_ext.techniques.pretraining import MAESettings, ModelsGenesisSettings, VolumeFusionSettings
from nnunet_ext.trainers.mae import nnUNetTrainerMAE
from nnunet_ext.trainers.models_genesis import nnUNetTrainerModelsGenesis
from nnunet_ext.trainers.volume_fusion import nnUNetTrainerVolumeFusion

PATCH, SHUFFLING, RISING, FALLING, INSIDE, OUTSIDE, TOGETHER = range(7)
FIRST, SECOND, BLEND, COEFFICIENT = range(4)
MASKED = 0


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    task, patch = TASKS["genesis_corruptions"], patches()[1]
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    first = corrupted(patch, task, TOGETHER, 1)["image"]
    assert (np.random.get_state()[1] == state).all()
    np.random.seed(6)
    assert (corrupted(patch, task, TOGETHER, 1)["image"] == first).all()


@pytest.mark.parametrize("column", range(COLUMNS))
def test_each_row_shows_the_corruption_in_its_title(column: int) -> None:
    task, patch = TASKS["genesis_corruptions"], patches()[column]
    assert [step.title for step in task.steps] == [
        "Patch, which the network has to restore",
        "Local shuffling",
        "Intensities, by a rising curve",
        "by a falling curve",
        "In-painting",
        "Out-painting",
        "Together, as in training",
    ]
    by_row = [corrupted(patch, task, row, column)["image"] for row in range(len(task.steps))]
    assert (by_row[PATCH] == patch).all()
    assert set(by_row[SHUFFLING].flatten().tolist()) <= set(patch.flatten().tolist())
    order = patch.flatten().argsort()
    assert (by_row[RISING].flatten()[order].diff() >= -1e-5).all()
    assert (by_row[FALLING].flatten()[order].diff() <= 1e-5).all()
    assert (by_row[INSIDE] != patch).float().mean() < 0.15
    assert 0.2 < (by_row[OUTSIDE] != patch).float().mean() < 0.9
    shown = [middle_slice(task, row, column) for row in range(len(task.steps))]
    for row in range(1, len(task.steps)):
        # nor may the slice that is shown have been missed
        assert (shown[row] != shown[PATCH]).mean() > 0.01, f"row {row}"


@pytest.mark.parametrize("column", range(COLUMNS))
def test_a_blend_is_of_the_crops_above_it(column: int) -> None:
    task = TASKS["volume_fusion"]
    assert task.steps[COEFFICIENT].shown == ("segmentation", 0)
    crops, again, blend, same_blend = (corrupted(patches()[column], task, row, column) for row in range(4))
    assert (crops["image"] == again["image"]).all()
    assert (blend["image"] == same_blend["image"]).all()
    alpha = blend["segmentation"] / 4
    first, second = crops["image"]
    assert (blend["image"] - (alpha * first + (1 - alpha) * second)).abs().max() < 1e-5
    assert set(alpha.unique().tolist()) == {0, 0.25, 0.5, 0.75, 1}


@pytest.mark.parametrize("column", range(COLUMNS))
def test_most_of_a_masked_patch_is_gone(column: int) -> None:
    patch = patches()[column]
    masked = corrupted(patch, TASKS["masked_blocks"], MASKED, column)["image"]
    assert (masked == 0).float().mean() == pytest.approx(0.75, abs=0.06)
    assert torch.equal(masked, torch.where(masked == 0, 0, patch))


def test_the_pictures_show_what_the_trainers_train_with() -> None:
    def trained_with(trainer: Any, settings: Any) -> Any:
        about = SimpleNamespace(section=lambda _: settings)
        made = trainer.corruptions(about) if hasattr(trainer, "corruptions") else trainer.pretext(about)
        return [getattr(one, "transform", one) for one in made], [getattr(one, "apply_probability", 1) for one in made]

    for name, row, trainer, settings in (
        ("genesis_corruptions", TOGETHER, nnUNetTrainerModelsGenesis, ModelsGenesisSettings()),
        ("volume_fusion", BLEND, nnUNetTrainerVolumeFusion, VolumeFusionSettings()),
        ("masked_blocks", MASKED, nnUNetTrainerMAE, MAESettings()),
    ):
        transforms, probabilities = trained_with(trainer, settings)
        drawn = list(TASKS[name].steps[row].transforms)[-len(transforms) :]
        assert [getattr(one, "apply_probability", 1) for one in drawn] == probabilities
        drawn = [getattr(one, "transform", one) for one in drawn]
        assert [(type(one), vars(one)) for one in drawn] == [(type(one), vars(one)) for one in transforms]
