"""What is a trained model on disk, and what of it is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunet_ext.checkpoints.trained_model import find_trained_model, training_of
from nnunet_ext.errors import UserError

CONTENT = '{"configurations": {}, "channel_names": {"0": "MRI"}, "labels": {"background": 0}, "file_ending": ".nii.gz"}'
"""Of either file."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for file in ("plans.json", "dataset.json"):
        (tmp_path / file).write_text(CONTENT)
    for fold in ("1", "10", "2", "all", "3"):
        (tmp_path / f"fold_{fold}").mkdir()
        (tmp_path / f"fold_{fold}" / "checkpoint_best.pth").touch()
    (tmp_path / "fold_3" / "checkpoint_best.pth").unlink()  # has not begun
    return tmp_path


def test_all_folds_are_found_in_order(folder):
    model = find_trained_model(folder, checkpoint="checkpoint_best.pth")
    assert model.folds == (1, 2, 10, "all")
    assert model.checkpoints()["all"] == folder / "fold_all" / "checkpoint_best.pth"


def test_a_checkpoint_that_is_missing_is_told_with_those_that_are_there(folder):
    with pytest.raises(UserError, match=r"fold_1/checkpoint_best\.pth, fold_10/") as error:
        find_trained_model(folder, [1])
    assert f"{Path('fold_1') / 'checkpoint_final.pth'} does not exist" in str(error.value)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no model folder of nnU-Net: it has no plans\.json"):
        find_trained_model(tmp_path, [0])
    for file in ("plans.json", "dataset.json"):
        (tmp_path / file).write_text(CONTENT)
    with pytest.raises(UserError, match="has no fold_0, fold_1"):
        find_trained_model(tmp_path)


@pytest.mark.parametrize("content", [{}, {"trainer_name": "T"}, {"trainer_name": "T", "init_args": {}}])
def test_a_checkpoint_that_does_not_say_its_training_is_refused(content):
    with pytest.raises(UserError, match=r"x\.pth does not say which trainer"):
        training_of(content, Path("x.pth"))
