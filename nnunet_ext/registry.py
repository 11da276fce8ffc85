"""Every technique: those of this package, and those in the folders of users that nnU-Net looks into.

Importing this module imports no torch; looking into the folders of users imports whatever is in them.
"""

import contextlib
import os
import pkgutil
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

from nnunet_ext import techniques
from nnunet_ext.errors import UserError, in_one_line
from nnunet_ext.registration import VARIABLE, folders_of_users
from nnunet_ext.techniques import Technique, TrainerEntry


def declared_in(module: ModuleType) -> list[Technique[Any]]:
    """The techniques that have a name in a module."""
    return [value for value in vars(module).values() if isinstance(value, Technique)]


_MODULES = [import_module(f"{techniques.__name__}.{one.name}") for one in pkgutil.iter_modules(techniques.__path__)]

TECHNIQUES: tuple[Technique[Any], ...] = tuple(dict.fromkeys(one for module in _MODULES for one in declared_in(module)))
"""Those of this package."""

TRAINERS: tuple[TrainerEntry, ...] = tuple(entry for technique in TECHNIQUES for entry in technique.trainers)
"""The trainers of this package. The contract suite (tests/contract/) runs on each of them."""


def user_techniques() -> tuple[list[Technique[Any]], list[str]]:
    """The techniques in other folders of ``nnUNet_extTrainer``, and a sentence for each module that is broken."""
    found: list[Technique[Any]] = []
    broken: list[str] = []
    for folder in folders_of_users():
        modules, errors = imported(folder)
        found += [technique for module in modules for technique in declared_in(module)]
        broken += [
            f"The module {module} in {folder}, a folder of {VARIABLE}, cannot be imported: {error}. Repair it, or take "
            "the folder out of the variable."
            for module, error in errors.items()
        ]
    return [one for one in dict.fromkeys(found) if one not in TECHNIQUES], broken


def technique_of(trainer: str) -> tuple[Technique[Any], TrainerEntry]:
    """The technique that declares a trainer, and its entry; a UserError if none does."""
    ours = {entry.name: (technique, entry) for technique in TECHNIQUES for entry in technique.trainers}
    if trainer in ours:
        return ours[trainer]
    techniques_of_users, broken = user_techniques()
    theirs = {entry.name: (technique, entry) for technique in techniques_of_users for entry in technique.trainers}
    if trainer in theirs:
        return theirs[trainer]
    message = f"There is no trainer {trainer!r} in this package. It has: {', '.join(entry.name for entry in TRAINERS)}."
    if theirs:
        message += f" Declared in other folders of {VARIABLE} are: {', '.join(theirs)}."
    raise UserError("\n".join([message, *broken]))


def modules_of(folder: str, prefix: str = "") -> Iterator[str]:
    """The modules below a folder, in the order in which nnU-Net imports them."""
    found = list(pkgutil.iter_modules([folder]))
    yield from (prefix + module.name for module in found if not module.ispkg)
    for package in (module.name for module in found if module.ispkg):
        yield from modules_of(os.path.join(folder, package), f"{prefix}{package}.")


def imported(folder: str) -> tuple[list[ModuleType], dict[str, str]]:
    """Import every module below a folder as nnU-Net's lookup does, which forgets them; modules, and errors by name."""
    from nnunetv2.utilities import find_class_by_name as lookup

    modules, errors = [], {}
    with (
        lookup.temporarily_extend_syspath(folder),
        lookup.temporarily_cleanup_imports_from_path(folder),
        contextlib.redirect_stdout(sys.stderr),  # what they print must not mix with a command's output
    ):
        for name in modules_of(folder):
            try:
                modules.append(import_module(name))
            except (Exception, SystemExit) as error:
                if isinstance(error, ModuleNotFoundError) and error.name == name:
                    continue  # nnU-Net passes over these, too
                errors[name] = in_one_line(error)
    return modules, errors
