"""Which trainers the contract suite runs on, and on what data."""

from __future__ import annotations

from typing import Any

from nnunet_ext import trainers
from nnunet_ext.registry import TRAINERS
from nnunet_ext.trainers.adele import ADELEMixin
from nnunet_ext.trainers.image_border import ImageBorderMixin
from nnunet_ext.trainers.partial_labels import PartialLabelsMixin

EVERY_TRAINER = [entry.name for entry in TRAINERS]


def trainer_class(name: str) -> Any:
    return getattr(trainers, name)


ALTER_THE_NETWORK = [name for name in EVERY_TRAINER if trainer_class(name).alters_the_network]
SEGMENTING = [name for name in EVERY_TRAINER if trainer_class(name).segments]
PRE_TRAINING = [name for name in EVERY_TRAINER if name not in SEGMENTING]


PARTIAL = [
    name
    for name in EVERY_TRAINER
    if issubclass(trainer_class(name), ImageBorderMixin) and not issubclass(trainer_class(name), ADELEMixin)
]
"""Trainers that learn from partial labels. ADELE's are dense: outside the image is background, as in nnU-Net."""


def builds(name: str) -> Any:
    """What builds a trainer's network; prediction builds none for a pre-training."""
    cls = trainer_class(name)
    return getattr(cls, "pretext_network", cls.build_network_architecture)


def one_per_network(names: list[str] = EVERY_TRAINER) -> list[str]:
    """The last of some trainers for each way to build the network, and those that alter it afterwards."""
    representatives = {builds(name): name for name in names if name not in ALTER_THE_NETWORK}
    return [*representatives.values(), *ALTER_THE_NETWORK]


def representative(trainer: str, names: list[str]) -> str:
    """Which of some trainers builds its network as another one does."""
    return next(name for name in names if builds(name) is builds(trainer))


def data_kind(trainer: str, kind: str) -> str:
    """The kind of data (`tiny_data.KINDS`) to use in place of another one, for trainers that need something in it."""
    if issubclass(trainer_class(trainer), PartialLabelsMixin):
        return {"labels": "partial"}.get(kind, kind)
    with_prior = {"labels": "prior", "ignore": "prior_ignore"}
    return with_prior.get(kind, kind) if trainer_class(trainer).needs_prior else kind
