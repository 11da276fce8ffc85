"""Finding, reading and extending nnU-Net's plans files."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json, write_json
from nnunet_ext.messages import dataset_number

MEMORY = "nnunet_ext_configurations.json"
"""Beside the plans files: which configurations this package wrote, and by which command."""

PATIENCE_S = 30.0  # for another command that changes the same file, which takes it a moment

DATA = {"nnUNet_raw": "raw data", "nnUNet_preprocessed": "preprocessed data", "nnUNet_results": "trained models"}
"""What is in the folders that nnU-Net's variables name."""


def preprocessed_folder(dataset: str) -> Path:
    """The dataset's folder in nnUNet_preprocessed, by id ("4", "004") or name; a UserError unless there is just one."""
    root = folder_of_variable("nnUNet_preprocessed")
    if found := dataset_folder("nnUNet_preprocessed", dataset):
        return found
    fix = f"nnUNetv2_plan_and_preprocess -d {dataset_number(dataset)}"
    raise UserError(f"Dataset {dataset} is not in {root}. Plan it first: {fix}")


def raw_folder(dataset: str) -> Path:
    """The dataset's folder in nnUNet_raw, see `preprocessed_folder`."""
    root = folder_of_variable("nnUNet_raw")
    if found := dataset_folder("nnUNet_raw", dataset):
        return found
    there = ", ".join(sorted(path.name for path in root.glob("Dataset*"))) or "no dataset"
    raise UserError(f"Dataset {dataset} is not in {root}. There is: {there}.")


def folder_of_variable(variable: str) -> Path:
    """The folder that one of nnU-Net's variables names; a UserError if the variable is not set."""
    root = os.environ.get(variable)
    if not root:
        fix = f"Set it to nnU-Net's folder of {DATA[variable]}, e.g. export {variable}=$HOME/{variable}"
        raise UserError(f"The environment variable {variable} is not set. {fix}")
    return Path(root)


def dataset_folder(variable: str, dataset: str) -> Path | None:
    """The dataset's folder below one of nnU-Net's folders, None if it is not there; a UserError if several fit."""
    root = folder_of_variable(variable)
    if Path(dataset).name != dataset or "\\" in dataset:
        raise UserError(f"{dataset!r} is a path. Give the id or the name of a dataset in {root}.")
    found = matching_datasets(root, dataset)
    if len(found) > 1:
        raise UserError(f"Several datasets in {root} fit {dataset!r}: {', '.join(path.name for path in found)}.")
    return found[0] if found else None


def matching_datasets(root: Path, dataset: str) -> list[Path]:
    """Folders in `root` with the name `dataset`, or with the id if `dataset` is a number."""
    if dataset.isdigit():
        return sorted(path for path in root.glob(f"Dataset{int(dataset):03d}_*") if path.is_dir())
    return [root / dataset] if (root / dataset).is_dir() else []


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
