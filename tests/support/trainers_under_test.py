"""Which trainers the contract suite runs on, and on what data."""

from __future__ import annotations

from nnunet_ext.registry import TRAINERS

NEEDS: dict[str, dict[str, str]] = {}
"""Per trainer, the kind of data (`tiny_data.KINDS`) to use in place of another one, for trainers that need more than
images and labels."""

EVERY_TRAINER = [entry.name for entry in TRAINERS]


def trainer_class(name: str) -> type:
    return next(entry.load() for entry in TRAINERS if entry.name == name)


def one_per_network() -> list[str]:
    """The last registered trainer for each way to build the network."""
    representatives = {trainer_class(name).build_network_architecture: name for name in EVERY_TRAINER}
    return list(representatives.values())


def data_kind(trainer: str, kind: str) -> str:
    return NEEDS.get(trainer, {}).get(kind, kind)
