"""Every setting, changed from its default, changes what it is there to set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

import pytest
import torch

from nnunet_ext.plans.settings import merged, settings_model
from nnunet_ext.techniques import Section
from nnunet_ext.trainers import nnUNetTrainerConfigurable
from support.changed_trainers import changed_trainer
from support.settings import Case, Times, every_case
from support.settings.fine_tuning import start

SETTINGS = settings_model()
CASES = every_case()


def every_setting(section: type[Section] = SETTINGS, prefix: str = "") -> Iterator[str]:
    """Every key, those of sections with the section's name before them."""
    for name, field in section.model_fields.items():
        options = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
        inner = [one for one in options if issubclass(one, Section)]
        yield from every_setting(inner[0], f"{prefix}{name}.") if inner else [f"{prefix}{name}"]


def nested(path: str, value: Any) -> dict[str, Any]:
    """A value as settings: ``a.b`` is the key ``b`` of the section ``a``."""
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def same(found: Any, expected: Any) -> bool:
    """Whether they are equal, numbers to rounding."""
    numbers = isinstance(expected, float) or (isinstance(expected, list) and isinstance(expected[0], float))
    return bool(found == (pytest.approx(expected, rel=1e-4) if numbers else expected))


@pytest.fixture
def probed(workspace, results, monkeypatch):
    """What a case sees of a trainer with some settings more; a checkpoint to start from lies beside it."""
    monkeypatch.chdir(results)

    def built(trainer: type, kind: str, settings: Mapping[str, Any]) -> Any:
        made = changed_trainer(trainer, "3d_tiny_without_settings", kind=kind, **settings)
        torch.manual_seed(0)
        made.initialize()
        return made

    def probe(case: Case, settings: Mapping[str, Any]) -> Any:
        if case.probe is start or "source.pth" in str(case.beside):
            built(nnUNetTrainerConfigurable, "labels", {"seed": 1}).save_checkpoint("source.pth")
        return case.probe(built(case.trainer, case.kind, settings))

    return probe


def test_every_setting_has_a_case():
    assert sorted(every_setting()) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_a_changed_setting_changes_what_it_sets(probed, name):
    case = CASES[name]
    before = probed(case, case.beside)
    after = probed(case, merged(case.beside, nested(name, case.value)))
    assert not same(after, before)
    if case.expected is not None:
        expected = case.expected.factor * before if isinstance(case.expected, Times) else case.expected
        assert same(after, expected)
