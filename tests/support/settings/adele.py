"""Correction of wrong labels."""

from __future__ import annotations

from typing import Any

from nnunet_ext.trainers import nnUNetTrainerADELE as ADELE
from support.settings import Case, random_batch, random_outputs

CURVE = [0.2, 0.4, 0.5, 0.55, 0.58, 0.6, 0.61, 0.615, 0.618, 0.62, 0.621, 0.622]


def corrected(trainer: Any) -> float:
    """The share of voxels that fixed outputs correct, if every class is open."""
    trainer.early_learning.corrected_from.update(dict.fromkeys(trainer.early_learning.iou, 0))
    trainer.loss_terms(random_outputs(trainer), random_batch(trainer))
    return trainer._observations["adele/corrected"].item()


def first_corrected(trainer: Any) -> int | None:
    """The first epoch in which a class of a fixed curve is corrected."""
    trainer.epoch_ious = lambda: {"shell": CURVE[trainer.current_epoch], "core": None}
    for epoch in range(len(CURVE)):
        trainer.current_epoch = epoch
        trainer.on_train_epoch_end([{"loss": 0.0}])
    return trainer.early_learning.corrected_from.get("shell")


CASES = {
    "adele.confidence": Case(ADELE, 0.95, corrected),
    "adele.slope_fall": Case(ADELE, 0.99, first_corrected),
    "adele.min_epochs": Case(ADELE, 11, first_corrected, 11),
}
