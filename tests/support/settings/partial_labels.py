"""Labels that are missing in some cases."""

from __future__ import annotations

from typing import Any

from nnunet_ext.trainers import nnUNetTrainerPartialLabels
from support.settings import Case, random_batch, random_outputs


def exclusion(trainer: Any) -> float:
    """The term in a batch whose second case was annotated for one label."""
    trainer.dataset_json["nnunet_ext"] = {"annotated_labels": {"b": ["shell"]}, "default": ["shell", "core"]}
    batch = random_batch(trainer)
    prepared = trainer.prepare_batch({**batch, "keys": ["a", "b"]}, training=True)
    return float(trainer.loss_terms(random_outputs(trainer), prepared).get("exclusion", 0.0))


CASES = {
    "partial_labels.exclusion_weight": Case(nnUNetTrainerPartialLabels, 0.5, exclusion),
}
