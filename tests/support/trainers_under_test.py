"""Which trainers the contract suite runs on, and on what data."""

from __future__ import annotations

from nnunet_ext.registry import TRAINERS
from nnunet_ext.trainers.image_border import ImageBorderMixin

NEEDS: dict[str, dict[str, str]] = {
    name: {"labels": "prior", "ignore": "prior_ignore"}
    for name in ("nnUNetTrainerDualEncoder", "nnUNetTrainerDualEncoderMixUp")
}
"""Per trainer, the kind of data (`tiny_data.KINDS`) to use in place of another one, for trainers that need more than
images and labels."""

EVERY_TRAINER = [entry.name for entry in TRAINERS]

ALTER_THE_NETWORK = ["nnUNetTrainerLoRA"]
"""Trainers that put modules of their own into the network after it was built."""

PRE_TRAINING = ["nnUNetTrainerModelsGenesis"]
"""Trainers whose checkpoint is a start for others and has no segmentation."""

SEGMENTING = [name for name in EVERY_TRAINER if name not in PRE_TRAINING]


def trainer_class(name: str) -> type:
    return next(entry.load() for entry in TRAINERS if entry.name == name)


PARTIAL = [name for name in EVERY_TRAINER if issubclass(trainer_class(name), ImageBorderMixin)]
"""Trainers that learn from partial labels."""


def one_per_network(names: list[str] = EVERY_TRAINER) -> list[str]:
    """The last of some trainers for each way to build the network, and those that alter it afterwards."""
    representatives = {
        trainer_class(name).build_network_architecture: name for name in names if name not in ALTER_THE_NETWORK
    }
    return [*representatives.values(), *ALTER_THE_NETWORK]


def representative(trainer: str, names: list[str]) -> str:
    """Which of some trainers builds its network as another one does."""
    build = trainer_class(trainer).build_network_architecture
    return next(name for name in names if trainer_class(name).build_network_architecture is build)


def data_kind(trainer: str, kind: str) -> str:
    return NEEDS.get(trainer, {}).get(kind, kind)
