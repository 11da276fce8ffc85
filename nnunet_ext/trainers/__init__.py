"""The trainers, by name: ``from nnunet_ext.trainers import nnUNetTrainerTDNet``.

A trainer's module is imported when its name is asked for. Which module that is follows from its technique.
"""

from importlib import import_module
from typing import Any

from nnunet_ext.registry import TECHNIQUES

_MODULES = {entry.name: f"{__name__}.{technique.name}" for technique in TECHNIQUES for entry in technique.trainers}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_MODULES]
