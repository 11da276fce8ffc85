"""The masked autoencoder."""

from __future__ import annotations

from typing import Any

from nnunet_ext.trainers import nnUNetTrainerMAE
from support.settings import Case

CASES = {
    "mae.block_size": Case(nnUNetTrainerMAE, 8, lambda trainer: masking(trainer).block_size, 8),
    "mae.masked_share": Case(nnUNetTrainerMAE, 0.5, lambda trainer: masking(trainer).share, 0.5),
}


def masking(trainer: Any) -> Any:
    return trainer.pretext()[-1]
