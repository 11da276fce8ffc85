"""MixUp and CutMix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.trainers import nnUNetTrainerMixUp as MIXUP
from support.changed_trainers import step_terms
from support.settings import Case, Times, random_batch


def mixing(trainer: Any, passes: int = 100) -> list[dict[str, Any]]:
    """Prepared batches whose first sample is zero and whose second is one."""
    trainer.rng, trainer.shared_rng = np.random.default_rng(1), np.random.default_rng(2)
    batch = random_batch(trainer)
    batch["data"] = torch.arange(2.0).reshape(2, *[1] * (batch["data"].ndim - 1)).expand(batch["data"].shape)
    return [trainer.prepare_batch(batch, training=True) for _ in range(passes)]


def is_blended(trainer: Any) -> bool:
    """Whether a mixed patch holds anything between its two sources."""
    (batch,) = mixing(trainer, 1)
    return bool(((batch["mixed"]["data"] != 0) & (batch["mixed"]["data"] != 1)).any())


def deviation_of_ratios(trainer: Any) -> float:
    return float(np.std([batch["mixed"]["data"][0].mean() for batch in mixing(trainer)]))


def share_of_mixed_steps(trainer: Any) -> float:
    return float(np.mean(["mixed" in batch for batch in mixing(trainer)]))


def mixed_terms(trainer: Any) -> dict[str, torch.Tensor]:
    (batch,) = mixing(trainer, 1)
    return step_terms(trainer, batch)


CASES = {
    "mixup.kind": Case(MIXUP, "cutmix", is_blended, False),
    "mixup.mode": Case(
        MIXUP, "alternate", lambda t: sorted(mixed_terms(t)), ["mixup"], {"mixup": {"probability": 1.0}}
    ),
    "mixup.alpha": Case(MIXUP, 1000.0, deviation_of_ratios, pytest.approx(0.011, rel=0.3)),
    "mixup.weight": Case(MIXUP, 3.0, lambda trainer: float(mixed_terms(trainer)["mixup"].detach()), Times(3)),
    "mixup.probability": Case(MIXUP, 0.3, share_of_mixed_steps, pytest.approx(0.3, abs=0.12)),
}
