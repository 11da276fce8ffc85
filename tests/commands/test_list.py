"""`nnunet_ext list` shows what the techniques declare."""

import argparse
import json
import shutil
from os import terminal_size

import pytest

from nnunet_ext.commands import list as list_command
from nnunet_ext.registry import TRAINERS
from nnunet_ext.techniques import TrainerEntry


def test_table_names_every_trainer_and_fits_100_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "get_terminal_size", lambda fallback: terminal_size((250, 50)))
    assert list_command.run(argparse.Namespace(json=False)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    first_words = [line.split()[0] for line in lines if not line.startswith(" ")]
    assert first_words == ["TRAINER", *(entry.name for entry in TRAINERS)]


def test_json_holds_the_whole_registry(capsys: pytest.CaptureFixture[str]) -> None:
    assert list_command.run(argparse.Namespace(json=True)) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {key for entry in listed for key in entry} == {"name", "technique", "needs", "paper"}
    assert [TrainerEntry(*entry.values()) for entry in listed] == list(TRAINERS)


def test_cells_are_wrapped_in_their_own_column_without_losing_words() -> None:
    rows = [("name", "a few words that do not fit", "x"), ("other", "short", "y")]
    lines = list(list_command.table(rows, 25))
    assert lines == [
        "name   a few words      x",
        "       that do not fit",
        "other  short            y",
    ]


def test_wide_terminal_leaves_no_cell_wrapped() -> None:
    rows = [("name", "a few words that do not fit", "x")]
    assert list(list_command.table(rows, 100)) == ["name  a few words that do not fit  x"]


def test_words_longer_than_the_line_are_kept_whole() -> None:
    assert list(list_command.table([("a" * 30, "b" * 30)], 20)) == ["a" * 30 + "  " + "b" * 30]
