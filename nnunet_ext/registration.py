"""The environment variable ``nnUNet_extTrainer``, by which nnU-Net finds the trainers of this package."""

import os
from pathlib import Path

VARIABLE = "nnUNet_extTrainer"


def discovery_folder() -> Path:
    """The one folder nnU-Net may be pointed at; see docs/design.md for why it is not the package itself."""
    return Path(__file__).resolve().parent / "discovery"


def folders_of_users() -> list[str]:
    """The folders that the variable names beside ours, as nnU-Net takes them.

    One that lies around this package or in it is left out: it was meant to be ours, and ``nnunet_ext doctor`` says so.
    """
    package = Path(__file__).resolve().parent
    entries = os.environ.get(VARIABLE, "").split(os.pathsep)
    paths = {entry: Path(entry).resolve() for entry in entries if entry.strip() and Path(entry).is_dir()}
    return [name for name, path in paths.items() if not (path.is_relative_to(package) or package.is_relative_to(path))]


def extended_value(current: str | None) -> str:
    """The variable's present value, followed by our folder unless it is there already."""
    ours = str(discovery_folder())
    entries = [entry for entry in (current or "").split(os.pathsep) if entry.strip()]
    if ours in entries:
        return str(current)
    return os.pathsep.join([*entries, ours])


def register() -> str:
    """Make nnU-Net find this package's trainers in this process and in those it starts.

    Does for a Python program what ``export nnUNet_extTrainer=$(nnunet_ext path)`` does for a shell, and returns the
    new value of the variable.
    """
    os.environ[VARIABLE] = extended_value(os.environ.get(VARIABLE))
    return os.environ[VARIABLE]
