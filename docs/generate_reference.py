"""Write the reference pages from the code: ``python docs/generate_reference.py``.

Settings come from their pydantic models, commands from the parser, trainers from the registry. Nothing depends on the
terminal or on how a release of Python lays its help out, so that the pages are the same everywhere;
tests/docs/test_reference.py fails when they are not those on disk.
"""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal, Union, get_args, get_origin

from nnunet_ext import trainers
from nnunet_ext.cli import build_parser
from nnunet_ext.files import write_text
from nnunet_ext.plans.settings import Settings
from nnunet_ext.registry import TECHNIQUES, TRAINERS
from nnunet_ext.techniques import Section, Technique, TrainerEntry

DOCS = Path(__file__).resolve().parent
TYPE_NAMES = {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
API = {
    "losses": "Losses",
    "networks": "Networks",
    "finetuning": "What may move in a fine-tuning",
    "augmentation": "Augmentation",
    "evaluation": "Evaluation",
    "checkpoints": "Checkpoints",
}
NOTICE = "<!-- Written by docs/generate_reference.py: change the code, then run that. -->"


def pages() -> dict[str, str]:
    """The content of every generated page, by its path below ``docs/``."""
    return {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/trainers.md": trainers_page(),
        "reference/api.md": api_page(),
    }


def api_page() -> str:
    """What Python programs can import: for each module a line from which mkdocstrings writes its documentation."""
    package = DOCS.parent / "nnunet_ext"
    parts = [
        "For Python programs. Losses, networks, the sparsity of updates and augmentation need no trainer: they can be "
        "used, and are tested, on their own.",
        "::: nnunet_ext.registration",
        "## What a technique declares",
        "::: nnunet_ext.techniques",
    ]
    for folder, title in API.items():
        files = sorted(file.relative_to(package).with_suffix("") for file in (package / folder).rglob("*.py"))
        modules = [".".join(file.parts) for file in files if file.stem != "__init__"]
        parts += [f"## {title}", *(f"::: nnunet_ext.{module}" for module in modules)]
    return page("Python", *parts)


def page(title: str, *parts: str) -> str:
    """A page: a notice that it is generated, the title, and what follows."""
    return "\n\n".join([NOTICE, f"# {title}", *(part.strip("\n") for part in parts)]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return "\n".join([line(header), line(["---"] * len(header)), *(line(row) for row in rows)])


def markdown(docstring: str) -> str:
    """A docstring of this package as Markdown: names in single backticks, indented examples as blocks of code."""
    blocks = []
    for block in docstring.strip().replace("``", "`").split("\n\n"):
        if block.startswith("    "):
            blocks.append(f"```bash\n{dedent(block).rstrip()}\n```")
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


# ----------------------------------------------------------------------------------------------------- settings


def type_name(annotation: Any, bounds: Sequence[Any] = ()) -> str:
    """A setting's type in words, with its limits: ``int | None`` with ``ge=1`` gives "whole number ≥ 1"."""
    annotation = without_none(annotation)
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is list:
        return f"list of {type_name(*get_args(annotation))}s"
    limits = [
        f"{symbol}\N{NO-BREAK SPACE}{number(getattr(bound, name))}"
        for bound in bounds
        for name, symbol in BOUNDS.items()
        if hasattr(bound, name)
    ]
    return " ".join([TYPE_NAMES[annotation], ", ".join(limits)]).strip()


def without_none(annotation: Any) -> Any:
    """The type that a setting has if it is set."""
    if get_origin(annotation) in (Union, types.UnionType):
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
    return annotation


def number(value: float) -> str:
    """A limit as text; 2**32 is no number to read."""
    return "2^32" if value == 2**32 else str(value)


def setting_rows(model: type[Section], prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """A row for each setting of a model: key, type, default, description."""
    for name, field in model.model_fields.items():
        meaning, annotation = field.description or "", without_none(field.annotation)
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield f"`{prefix}{name}`", "the keys below", "not set", meaning
            yield from setting_rows(annotation, f"{prefix}{name}.")
            continue
        # as `nnunet_ext configure` wants it: true, not True
        value = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = "none: it is needed" if field.is_required() else "not set" if value is None else f"`{value}`"
        yield f"`{prefix}{name}`", type_name(field.annotation, field.metadata), default, meaning


def with_settings(techniques: Iterable[Technique]) -> list[Technique]:
    """Those that have any."""
    return [technique for technique in techniques if technique.settings]


def settings_page() -> str:
    """Every setting, by section."""
    header = ("Key", "Type", "Default", "Meaning")
    parts = [
        "What may stand in a plans file under the key `nnunet_ext` of a configuration. The command "
        "[`nnunet_ext configure`](commands.md#nnunet_ext-configure) writes it there. Settings are inherited along "
        "`inherits_from`, key by key, and checked when a training starts: an unknown key or a wrong value stops it, "
        "with the valid ones named.",
        "A key that is not set keeps the trainer's own value, which is nnU-Net's wherever the page of a technique "
        "does not say otherwise. The numbers after `nnU-Net:` are those of stock nnU-Net.",
        "## General",
        table(header, setting_rows(Settings)),
    ]
    for technique in with_settings(TECHNIQUES):
        name, model = technique.name, technique.settings
        readers = [entry.name for entry in TRAINERS if technique in getattr(trainers, entry.name).techniques]
        parts += [f"## {name}", markdown(inspect.getdoc(model) or "")]
        parts += [f"Read by {', '.join(f'`{reader}`' for reader in readers)}."]
        parts += [table(header, setting_rows(model, f"{name}."))]
    return page("Settings", *parts)


# ----------------------------------------------------------------------------------------------------- commands


def commands_page() -> str:
    """Every command with its arguments."""
    parser = build_parser()
    parts = [parser.description or "", parser.epilog or ""]
    for name, subparser in commands_of(parser).items():
        parts += command_parts(f"nnunet_ext {name}", subparser, level=2)
    return page("Commands", *parts)


def command_parts(name: str, parser: argparse.ArgumentParser, *, level: int) -> list[str]:
    """A command's heading, description and arguments, then those of its subcommands."""
    parts = [f"{'#' * level} {name}", markdown(parser.description or "")]
    rows = [(syntax(action), meaning(action, parser)) for action in arguments_of(parser)]
    if rows:
        parts.append(table(("Argument", "Meaning"), rows))
    for subname, subparser in commands_of(parser).items():
        parts += command_parts(f"{name} {subname}", subparser, level=level + 1)
    return [part for part in parts if part]


def commands_of(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """The parsers of the subcommands."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return found[0].choices if found else {}


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """The arguments of a command: required options, other options, positional ones; --help and subcommands left out."""
    left_out = (argparse._HelpAction, argparse._SubParsersAction)
    actions = [action for action in parser._actions if not isinstance(action, left_out)]
    # `required` of a positional argument is not the same in every release of Python
    yield from sorted(actions, key=lambda action: 2 if not action.option_strings else not action.required)


def syntax(action: argparse.Action) -> str:
    """How an argument is typed, e.g. ``-d DATASET, --dataset DATASET``."""
    if action.choices is not None:
        value = "{" + ",".join(str(choice) for choice in action.choices) + "}"
    else:
        metavar = action.metavar or action.dest.upper()
        value = " ".join(metavar) if isinstance(metavar, tuple) else metavar
    if action.nargs in ("*", "+"):
        value += " …"
    if not action.option_strings:
        return f"`{value}`"
    takes_value = action.nargs != 0
    return ", ".join(f"`{option} {value}`" if takes_value else f"`{option}`" for option in action.option_strings)


def meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    """An argument's help, placeholders filled in."""
    text = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"required; {text}" if action.required and action.option_strings else text


# ----------------------------------------------------------------------------------------------------- trainers


def trainers_page() -> str:
    """Every trainer of the registry."""
    parts = [
        "What can stand behind `-tr` of nnU-Net's commands; the same list as "
        "[`nnunet_ext list`](commands.md#nnunet_ext-list) prints. Every trainer takes the "
        "[general settings](settings.md#general) beside those named below."
    ]
    for entry in TRAINERS:
        parts += [f"## {entry.name}", f"{entry.summary[0].upper()}{entry.summary[1:]}."]
        parts.append("\n".join(trainer_facts(entry)))
    return page("Trainers", *parts)


def trainer_facts(entry: TrainerEntry) -> Iterator[str]:
    """What is known of a trainer, as a list."""
    trainer = getattr(trainers, entry.name)
    techniques = with_settings(trainer.techniques)
    yield f"- Needs: {entry.needs}."
    if techniques:
        yield f"- Settings: {', '.join(f'[`{one.name}`](settings.md#{one.name})' for one in techniques)}."
    if defaults := trainer.default_settings:
        yield f"- Own defaults: {', '.join(f'`{key}={json.dumps(value)}`' for key, value in defaults.items())}."
    if not trainer.segments:
        yield "- Its checkpoints are a start for other trainings. They predict nothing."
    for capability, reason in trainer.unsupported.items():
        yield f"- Cannot do `{capability}`: {reason}"
    if entry.paper:
        yield f"- Paper: {paper_link(entry.paper)}."
    for name in dict.fromkeys(one.page or one.name.replace("_", "-") for one in techniques):
        if (DOCS / "techniques" / f"{name}.md").is_file():
            yield f"- More: [{name}](../techniques/{name}.md)."


def paper_link(paper: str) -> str:
    """The registry's ``arXiv 2412.14846`` or ``Authors, doi 10.1038/…`` with a link."""
    authors, doi, identifier = paper.rpartition("doi ")
    if doi:
        return f"{authors}[doi {identifier}](https://doi.org/{identifier})"
    if paper.startswith("arXiv "):
        return f"[{paper}](https://arxiv.org/abs/{paper.removeprefix('arXiv ')})"
    return paper


def main() -> int:
    """Write every page."""
    for name, content in pages().items():
        write_text(DOCS / name, content)
        print(f"docs/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
