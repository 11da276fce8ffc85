"""What each technique declares: its settings, its trainers, and what is checked in their data.

A module here for each technique or family of techniques; `nnunet_ext.registry` finds them, and those in the folders of
users. Importing this folder imports neither torch nor nnunetv2, so that the command line stays quick.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from nnunet_ext.advice import Advice


class Section(BaseModel):
    """A block of settings: no unknown keys, no silent conversion of types, no infinities, no change after reading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=())


S = TypeVar("S", bound=Section)

FOREGROUND = "nnunet_ext.preprocessing.checks.foreground:ForegroundCheck"


@dataclass(frozen=True)
class TrainerEntry:
    """What ``nnunet_ext list`` says of a trainer.

    Attributes:
        name: class name, what goes behind ``nnUNetv2_train … -tr``.
        summary: what it does, in a few words.
        needs: what the dataset must have beyond images and labels.
        paper: source of the technique; empty if there is none.
    """

    name: str
    summary: str
    needs: str = "nothing"
    paper: str = ""


@dataclass(frozen=True, eq=False)
class Technique(Generic[S]):
    """A technique. Its trainers name it in the first line of their class: ``class …(…, technique=TDNET)``.

    Attributes:
        name: the key of its settings in the plans file. For a technique of this package it is also the module of
            `nnunet_ext.trainers` that holds the trainers.
        trainers: what is listed.
        settings: the model of its settings; None if it has none. A setting without a default is a ValueError.
        checks: what ``nnunet_ext check`` looks at beyond the files themselves: classes of the protocol
            `nnunet_ext.preprocessing.checks.dataset_check.DatasetCheck`, or where they are, as ``module:Class``.
        page: its page in ``docs/techniques``, if that has another name.
        advice: when its trainers are worth a try, for ``nnunet_ext advise``; none if nobody is to be advised.
    """

    name: str
    trainers: Sequence[TrainerEntry]
    settings: type[S] | None = None
    checks: Sequence[str | type] = (FOREGROUND,)
    page: str = ""
    advice: Sequence[Advice] = ()

    def __post_init__(self) -> None:
        try:
            if self.settings is not None:
                self.settings()
        except ValidationError as error:
            missing = ", ".join(str(problem["loc"][0]) for problem in error.errors())
            raise ValueError(f"settings of the technique {self.name!r} have no default: {missing}") from None
