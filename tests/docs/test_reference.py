"""The generated reference pages are those that the code makes now."""

from __future__ import annotations

import pytest

import generate_reference
from nnunet_ext.cli import COMMANDS
from nnunet_ext.plans.settings import Settings
from nnunet_ext.registry import TECHNIQUES, TRAINERS
from nnunet_ext.techniques.dual_encoder import DualEncoderSettings
from support.pages import DOCS

PAGES = ("reference/settings.md", "reference/commands.md", "reference/trainers.md", "reference/api.md")


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    return generate_reference.pages()


def test_all_pages_are_generated(generated: dict[str, str]) -> None:
    assert sorted(generated) == sorted(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_page_on_disk_is_up_to_date(generated: dict[str, str], name: str) -> None:
    on_disk = (DOCS / name).read_text(encoding="utf-8")
    assert on_disk == generated[name], f"docs/{name} is out of date. Run: python docs/generate_reference.py"


def test_every_setting_has_a_row(generated: dict[str, str]) -> None:
    keys = list(Settings.model_fields)
    for technique in TECHNIQUES:
        keys += [f"{technique.name}.{name}" for name in getattr(technique.settings, "model_fields", ())]
    rows = [line for line in generated["reference/settings.md"].splitlines() if line.startswith("| `")]
    listed = [row.split("`")[1] for row in rows]
    assert [key for key in listed if key.count(".") < 2] == keys


def test_every_command_and_trainer_has_a_heading(generated: dict[str, str]) -> None:
    headings = {
        name: [line.removeprefix("## ") for line in content.splitlines() if line.startswith("## ")]
        for name, content in generated.items()
    }
    assert headings["reference/commands.md"] == [f"nnunet_ext {command}" for command in COMMANDS]
    assert headings["reference/trainers.md"] == [entry.name for entry in TRAINERS]


def test_subcommands_have_headings_and_options_of_their_own(generated: dict[str, str]) -> None:
    lines = generated["reference/commands.md"].splitlines()
    for command in ("simulate scribbles", "jobs start"):
        below = lines[lines.index(f"### nnunet_ext {command}") :]
        assert any(line.startswith("| `-o") for line in below[: below.index("", 6)])
    assert any("`--num-slices N`" in line for line in lines)
    assert not [line for line in lines if line.endswith("|  |")], "an argument without a meaning"


def test_width_of_the_terminal_does_not_matter(generated: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert generate_reference.pages() == generated


def test_limits_of_a_setting_are_in_its_type() -> None:
    fields = Settings.model_fields
    types = {
        name: generate_reference.type_name(fields[name].annotation, fields[name].metadata)
        for name in ("num_epochs", "momentum")
    }
    assert types["num_epochs"].replace("\N{NO-BREAK SPACE}", " ") == "whole number ≥ 1"
    assert types["momentum"].replace("\N{NO-BREAK SPACE}", " ") == "number ≥ 0, < 1"
    assert generate_reference.type_name(fields["optimizer"].annotation) == "`sgd` or `adamw`"


def test_settings_within_a_setting_are_listed_with_their_whole_key() -> None:
    rows = {row[0]: row for row in generate_reference.setting_rows(DualEncoderSettings, "d.")}
    assert rows["`d.channels`"][1:3] == ("the keys below", "not set")
    assert rows["`d.channels.current`"][1:3] == ("list of whole numbers", "none: it is needed")
    assert rows["`d.channels.prior_labels`"][2] == "`[]`"
