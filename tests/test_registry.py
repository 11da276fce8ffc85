"""What the techniques declare is what the trainers are."""

import re
from pathlib import Path

import pytest

from nnunet_ext import trainers
from nnunet_ext.discovery import nnunet_ext_trainers
from nnunet_ext.errors import UserError
from nnunet_ext.registry import TECHNIQUES, TRAINERS, technique_of

FILES = Path(trainers.__file__).parent.glob("*.py")
WRITTEN = {
    name
    for file in FILES
    if not file.stem.endswith("_inference")
    for name in re.findall(r"^class (nnUNetTrainer\w+)\(", file.read_text(encoding="utf-8"), re.MULTILINE)
}


def test_every_trainer_is_declared_once():
    assert sorted(entry.name for entry in TRAINERS) == sorted(WRITTEN)


@pytest.mark.parametrize("technique", TECHNIQUES, ids=[technique.name for technique in TECHNIQUES])
def test_trainers_have_the_technique_that_declares_them(technique):
    for entry in technique.trainers:
        assert technique in getattr(trainers, entry.name).techniques
        assert technique_of(entry.name) == (technique, entry)


def test_nnunet_is_shown_every_trainer_and_nothing_else():
    for entry in TRAINERS:
        assert getattr(nnunet_ext_trainers, entry.name) is getattr(trainers, entry.name)
        assert entry.name in dir(nnunet_ext_trainers)
    with pytest.raises(AttributeError, match="nnUNetTrainerNoSuch"):
        _ = nnunet_ext_trainers.nnUNetTrainerNoSuch


def test_our_trainers_are_known_without_a_look_into_folders(monkeypatch):
    monkeypatch.setattr("nnunet_ext.registry.folders_of_users", lambda: pytest.fail("a look into folders"))
    assert [technique_of(entry.name)[1] for entry in TRAINERS] == list(TRAINERS)


def test_unknown_trainer_is_told_the_known_ones():
    with pytest.raises(UserError, match=r"no trainer 'nnUNetTrainer' .*nnUNetTrainerTDNet"):
        technique_of("nnUNetTrainer")
