"""Reading and extending nnU-Net's plans files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.formats.names import problem_with_name
from nnunet_ext.messages import quoted

MEMORY = "nnunet_ext_configurations.json"
"""Beside the plans files: which configurations this package wrote, and by which command."""

NO_BEGINNING = "-.="
"""Of an option, of a hidden folder, and of a program's path to the shell zsh."""

PATIENCE_S = 30.0  # for another command that changes the same file, which takes it a moment


def read_plans(file: Path) -> dict[str, Any]:
    """Read a plans file; a UserError if it is missing, no plans file, or one of an older nnU-Net."""
    if not file.is_file():
        others = sorted(path.stem for path in file.parent.glob("*Plans*.json"))
        there = f" The folder has: {', '.join(others)}." if others else ""
        raise UserError(f"There is no plans file {file}.{there}")
    from nnunet_ext.formats.plans import checked_plans  # pydantic takes a while, and every command imports this module

    plans = checked_plans(read_json(file), where=file)
    for name, content in plans["configurations"].items():
        if "inherits_from" not in content and "architecture" not in content:
            old = f"{file} was made by an older nnU-Net: configuration {name!r} has no architecture"
            raise UserError(f"{old}. Make it anew with nnUNetv2_plan_experiment.")
    return plans


def check_configuration(plans: Mapping[str, Any], configuration: str, *, file: Path) -> None:
    """Raise a UserError, which names the configurations of a plans file, if one is not among them."""
    if configuration not in plans["configurations"]:
        raise UserError(f"{file} has no configuration {configuration!r}; it has: {', '.join(plans['configurations'])}.")


def add_configurations(
    file: Path, configurations: Mapping[str, Mapping[str, Any]], *, command: str, force: bool = False
) -> bool:
    """Write configurations into a plans file, all of them or none, the rest of it untouched.

    Args:
        file: the plans file.
        configurations: their contents by name.
        command: makes them again; remembered beside the plans file.
        force: replace those of the same name and other content, which is a UserError without.

    Returns:
        False if the very same configurations were there already.
    """
    memory = file.with_name(MEMORY)  # of all plans files of the dataset
    with only_run(file, patience_s=PATIENCE_S), only_run(memory, patience_s=PATIENCE_S):
        return _added(file, configurations, command=command, force=force)


def _added(file: Path, configurations: Mapping[str, Mapping[str, Any]], *, command: str, force: bool) -> bool:
    plans, remembered = read_plans(file), _remembered(file)
    present = plans["configurations"]
    new = {name: dict(content) for name, content in configurations.items() if present.get(name) != content}
    for name in new:
        if name in present and not force:
            found = f"{file} has a configuration {name!r} with other content"
            raise UserError(f"{found}. Choose another name, or add --force to replace it.")
        if "inherits_from" not in present.get(name, {"inherits_from": ""}):
            raise UserError(f"{name!r} in {file} is what nnU-Net planned, which is not replaced. Choose another name.")
    if new:
        from nnunet_ext.formats.plans import checked_plans

        present.update(new)
        checked_plans(plans, where=f"{file} stays as it is. With this configuration it would be wrong")
        write_json(file, plans)
    remembered.setdefault(file.stem, {}).update(dict.fromkeys(configurations, command))
    write_json(file.with_name(MEMORY), remembered)
    return bool(new)


def vanished_configurations(file: Path) -> dict[str, str]:
    """Configurations that this package wrote and that have gone, with the commands that make them again."""
    present = read_plans(file)["configurations"]
    return {name: command for name, command in _remembered(file).get(file.stem, {}).items() if name not in present}


def _remembered(file: Path) -> dict[str, dict[str, str]]:
    from nnunet_ext.formats.typed import read_typed  # pydantic takes a moment to import

    memory = file.with_name(MEMORY)
    return read_typed(dict[str, dict[str, str]], memory) if memory.is_file() else {}


def check_configuration_name(name: str, what: str = "a configuration") -> None:
    """Raise a UserError if a later command could not take a name, or no folder could have it on some system."""
    if not name or name.strip() != name or "__" in name or any(letter in '/\\:*?"<>|' for letter in name):
        forbidden = "slashes, wildcards, quotes and a double underscore (nnU-Net's own separator) are not allowed"
        raise UserError(f"{name!r} cannot name {what}, which becomes part of a folder's name: {forbidden}.")
    problem = problem_with_name(name, windows=True)
    if not problem and name[0] in NO_BEGINNING:
        problem = f"it begins with {name[0]}, which command lines and folders take for something else"
    if problem:
        raise UserError(f"{quoted(name)} cannot name {what}: {problem}. Choose another name.")
