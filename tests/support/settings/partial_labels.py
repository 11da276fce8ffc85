"""Labels that are missing in some cases."""

from __future__ import annotations

from typing import Any

from nnunet_ext.trainers import nnUNetTrainerMixedSupervision, nnUNetTrainerPartialLabels
from support.settings import Case, random_batch, random_outputs


def exclusion(trainer: Any) -> float:
    """The term in a batch whose second case was annotated for one label."""
    trainer.dataset_json["nnunet_ext"] = {"annotated_labels": {"b": ["shell"]}, "default": ["shell", "core"]}
    batch = random_batch(trainer)
    prepared = trainer.prepare_batch({**batch, "keys": ["a", "b"]}, training=True)
    return float(trainer.loss_terms(random_outputs(trainer), prepared).get("exclusion", 0.0))


def sureness(trainer: Any) -> float:
    """The term of entropy."""
    batch = {**random_batch(trainer), "keys": ["a", "b"]}
    return float(trainer.loss_terms(random_outputs(trainer), batch).get("entropy", 0.0))


CASES = {
    "partial_labels.entropy_weight": Case(nnUNetTrainerMixedSupervision, 0.5, sureness, kind="ignore"),
    "partial_labels.exclusion_weight": Case(nnUNetTrainerPartialLabels, 0.5, exclusion),
}
