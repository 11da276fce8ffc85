"""What the tests of several commands start from."""

from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.pseudo_labels import teachers
from support.labelling import StandIn, Workplace


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty nnUNet_raw, and no nnUNet_preprocessed."""
    root = tmp_path / "raw ü x"
    root.mkdir()
    monkeypatch.setenv("nnUNet_raw", str(root))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    return root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    place = Workplace(tmp_path / "nnU-Net für alle")
    for variable, folder in (
        ("nnUNet_raw", place.raw),
        ("nnUNet_preprocessed", place.preprocessed),
        ("nnUNet_results", place.results),
        ("nnUNet_extTrainer", ""),
    ):
        monkeypatch.setenv(variable, str(folder))
    return place


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in that every run of a test gets."""
    stand_in = StandIn([])

    def load(model: Any, *, device: str, mirroring: bool) -> StandIn:
        stand_in.list_of_parameters = StandIn(model.folds).list_of_parameters
        return stand_in

    monkeypatch.setattr(teachers, "load_predictor", load)
    return stand_in
