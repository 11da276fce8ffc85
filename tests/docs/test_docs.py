"""What README and documentation say can be done: commands parse, settings validate, links lead somewhere."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote

import pytest

from benchmarks.engine.experiment import experiment_names
from nnunet_ext.arguments import parse_settings
from nnunet_ext.cli import COMMANDS, build_parser
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.plans.channel_roles import roles_of_dataset
from nnunet_ext.plans.plans_file import check_configuration_name
from nnunet_ext.plans.settings import settings_model, validated_settings
from nnunet_ext.registration import VARIABLE
from nnunet_ext.registry import TECHNIQUES, TRAINERS
from nnunet_ext.trainers.resuming import ALLOW_CHANGED_SETTINGS
from nnunet_ext.version import __version__
from support.pages import FENCE, NOTEBOOK, anchors, pictures_of_page, prose, text_of_page

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
PAGES += sorted((ROOT / "docs").rglob(f"*{NOTEBOOK}"))
PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
LINK_TARGETS = (
    "https://github.com/MIC-DKFZ/nnUNet",
    "https://doi.org/",
    "https://arxiv.org/abs/",
    # where public weights come from
    "https://github.com/MIC-DKFZ/nnssl",
    "https://github.com/wasserth/TotalSegmentator",
    "https://github.com/uni-medical/STU-Net",
    "https://zenodo.org/records/",
    "https://huggingface.co/",
)

INLINE_CODE = re.compile(r"`([^`\n]+)`")
SIGNED = re.compile(r"(?<![\d.])([+−]?)0?(\d*\.\d+)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# where a shell expects a command: at the line's start (behind a prompt), in $(…), behind PowerShell's assignment
COMMAND = re.compile(r"(?:^(?:\$ )?|\$\(|^\$env:\w+ = )(nnunet_ext(?: [^)\n]*)?)", re.MULTILINE)
REDIRECTION = re.compile(r" > \S+")
ASSIGNMENT = re.compile(r"[a-z][a-z_]*(\.[a-z_]+)*=\S+")


def text_of(page: str) -> str:
    return text_of_page(ROOT / page)


def blocks(text: str, *languages: str) -> Iterator[str]:
    """The content of the fenced blocks in any of the languages, lines continued by a backslash joined."""
    for match in FENCE.finditer(text):
        if match["language"] in languages:
            yield re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE).replace("\\\n", " ")


def commands(text: str) -> list[str]:
    """Every call of our command in the blocks of shell commands."""
    return [call for block in blocks(text, "bash", "sh", "console", "powershell") for call in COMMAND.findall(block)]


def parsed(call: str) -> argparse.Namespace:
    try:
        return build_parser().parse_args(shlex.split(REDIRECTION.sub("", call), comments=True)[1:])
    except SystemExit:
        pytest.fail(f"the command does not parse: {call}")


def configured_blocks(content: Any) -> Iterator[Mapping[str, Any]]:
    """Every value under the key ``nnunet_ext`` in JSON data."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == KEY:
                yield value
            else:
                yield from configured_blocks(value)


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_commands_parse_and_their_settings_validate(page: str) -> None:
    for call in commands(text_of(page)):
        args = parsed(call)
        if args.command == "configure":
            validated_settings(parse_settings(args.settings), where=f"{page}: {call}")
            if args.name is not None:
                check_configuration_name(args.name)


def section_of(annotation: Any) -> Any:
    """The model of a setting that is a section, which may be left out."""
    return next((one for one in (annotation, *get_args(annotation)) if hasattr(one, "model_fields")), annotation)


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_settings_in_running_text_validate(page: str) -> None:
    for code in INLINE_CODE.findall(prose(text_of(page))):
        if ASSIGNMENT.fullmatch(code):
            validated_settings(parse_settings([code]), where=f"{page}: {code}")
        section, dot, key = code.partition(".")
        if dot and section in {technique.name for technique in TECHNIQUES} and not key.endswith("md"):
            model = settings_model()
            for name in (section, *key.partition("=")[0].split(".")):
                assert name in model.model_fields, f"{page} names {code}, which is no setting"
                model = section_of(model.model_fields[name].annotation)


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_settings_in_plans_validate(page: str) -> None:
    for block in blocks(text_of(page), "json"):
        content = json.loads(block if block.lstrip().startswith("{") else f"{{{block}}}")
        if "channel_names" in content:  # a dataset.json
            assert roles_of_dataset(content).prior
            continue
        for settings in configured_blocks(content):
            checked = validated_settings(settings, where=page)  # raises for what a trainer would refuse
            assert set(settings) <= checked.model_fields_set


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_variables_of_this_package_exist(page: str) -> None:
    named = set(re.findall(r"\bnnUNet_ext\w*", text_of(page)))
    assert named <= {VARIABLE, ALLOW_CHANGED_SETTINGS}


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_trainers_that_are_named_exist(page: str) -> None:
    named = {name for block in blocks(text_of(page), "bash") for name in re.findall(r"-tr (\w+)", block)}
    assert named <= {"nnUNetTrainer", *(entry.name for entry in TRAINERS)}


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_links_lead_somewhere(page: str) -> None:
    source = ROOT / page
    for link in set(LINK.findall(prose(text_of(page)))) - pictures_of_page(source):
        if "://" in link:
            assert link.startswith(LINK_TARGETS), f"{page} links to {link}"
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (source.parent / path).resolve() if path else source
        assert target.exists(), f"{page} links to {link}, which does not exist"
        assert target.is_relative_to(ROOT), f"{page} links to {link}, outside of the repository"
        if anchor:
            assert anchor in anchors(target), f"{page} links to {link}, but {target.name} has no such heading"


@pytest.mark.parametrize("entry", TRAINERS, ids=lambda entry: entry.name)
def test_every_trainer_is_in_the_readme_with_a_page_of_its_own_or_of_the_reference(entry: Any) -> None:
    rows = [line for line in text_of("README.md").splitlines() if line.startswith("| `nnUNetTrainer")]
    row = next((line for line in rows if f"`{entry.name}`" in line.split("|")[1]), "")
    assert LINK.search(row), f"the table of README.md needs {entry.name} in a row with a link to its page"
    assert entry.name.lower() in anchors(ROOT / "docs" / "reference" / "trainers.md")


def test_the_line_of_the_readme_that_the_page_on_new_techniques_shows_is_there() -> None:
    page = text_of("docs/add-a-technique.md")
    (diff,) = re.findall(r'^```diff title="README.md"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL)
    added, below = diff.splitlines()
    assert (added[0], below[0]) == ("+", " ")
    assert below[1:] in text_of("README.md").splitlines()


def test_every_command_is_in_the_readme() -> None:
    text = text_of("README.md")
    missing = [command for command in COMMANDS if f"`{command}`" not in text]
    assert not missing


def test_the_page_on_benchmarks_lists_every_experiment() -> None:
    table = text_of("docs/benchmarks.md").partition("| Experiment |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(experiment_names())


def gains(page: str) -> list[tuple[str, str]]:
    """Links to a technique's results, and what a table says of them: the table of choices, or that of the README."""
    text = text_of(page)
    if page == "README.md":
        rows = [line.split("|") for line in text.splitlines() if line.startswith("| `nnUNetTrainer")]
        return [(LINK.findall(row[2])[0], row[3]) for row in rows if "docs/techniques" in row[2]]
    table = text.partition("## What was measured")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| [")]
    return [(f"docs/{LINK.findall(row[1])[0]}", row[5]) for row in rows]


@pytest.mark.parametrize(("page", "least"), [("docs/choose.md", 40), ("README.md", 20)])
def test_gains_in_a_table_are_those_of_the_results_it_links_to(page: str, least: int) -> None:
    checked = 0
    for link, gain in gains(page):
        results = text_of(link.partition("#")[0]).partition("\n## Results\n")[2].partition("\n## ")[0]
        known = set(SIGNED.findall(results.replace("-", "−")))
        for sign, number in SIGNED.findall(gain):
            # a gain may be without its sign on one of the two, but not have another one
            expected = {(one, number) for one in (["−"] if sign == "−" else ["+", ""])}
            assert known & expected, f"{page}: {sign}{number} is not on {link}"
            checked += 1
    assert checked >= least


def test_the_pages_do_hold_commands_and_settings() -> None:
    """So that a change of style cannot switch the tests above off unseen."""
    calls = [call for page in PAGE_NAMES for call in commands(text_of(page))]
    assert {parsed(call).command for call in calls} == set(COMMANDS)
    assert "nnunet_ext path" in commands("```powershell\n$env:nnUNet_extTrainer = nnunet_ext path\n```\n")
    assert commands("```bash\n$ nnunet_ext plan -d 4 \\\n    --preset quick\n```\n")
    assert any("configure" in call and "=" in call for call in calls)
    assert any(list(blocks(text_of(page), "json")) for page in PAGE_NAMES)


def test_the_citation_names_the_version_of_the_package() -> None:
    assert f"\nversion: {__version__}\n" in text_of("CITATION.cff")
