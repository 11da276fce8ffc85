"""A prior scan."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.augmentation.registration_error import Misalignment
from nnunet_ext.trainers import nnUNetTrainerDualEncoder as DUAL
from support.settings import Case


def inputs_of(part: str) -> Callable[[Any], list[int]]:
    """Which input channels change what an encoder sees."""

    def probe(trainer: Any) -> list[int]:
        seen: list[torch.Tensor] = []
        encoder = {"current": trainer.network.encoder.stages[0], "prior": trainer.network.context_encoder}[part]
        encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        data = torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(2, 4, 16, 16, 16)
        trainer.network(data)
        return [int(channel) for channel in seen[0][0, :, 0, 0, 0]]

    return probe


def channels_with_intensities(trainer: Any) -> list[int]:
    """Which channels the intensity transforms of training touch."""
    arguments = ((16, 16, 16), (0, 0), trainer._get_deep_supervision_scales(), (), False)
    transforms = [getattr(one, "transform", None) for one in trainer.get_training_transforms(*arguments).transforms]
    return next(one.channels for one in transforms if hasattr(one, "channels") and not isinstance(one, Misalignment))


def share_without_prior(trainer: Any) -> float:
    trainer.rng = np.random.default_rng(0)
    batch = {"data": torch.ones(500, 4, 1, 1, 1), "target": torch.zeros(500, 1, 1, 1, 1)}
    return float((trainer.prepare_batch(batch, training=True)["data"][:, 1:] == 0).float().mean())


def misalignment(trainer: Any) -> list[float]:
    """The probability of a moved prior, and the largest shift and rotation."""
    arguments = ((16, 16, 16), (0, 0), trainer._get_deep_supervision_scales(), (), False)
    for one in trainer.get_training_transforms(*arguments).transforms:
        if isinstance(getattr(one, "transform", None), Misalignment):
            drawn = [one.transform.get_parameters() for _ in range(200)]
            largest = [float(np.abs([draw[key] for draw in drawn]).max()) for key in ("shift", "rotation")]
            return [one.apply_probability, *largest]
    return [0.0, 0.0, 0.0]


def misaligned_by(place: int) -> Callable[[Any], float]:
    return lambda trainer: misalignment(trainer)[place]


ALWAYS_MISALIGNED = {"dual_encoder": {"misalignment_probability": 1.0}}
ROLES = {"dual_encoder": {"channels": {"current": [0], "prior_labels": [3]}}}

CASES = {
    "dual_encoder.fusion": Case(
        DUAL, "gated", lambda trainer: type(trainer.network.fusions[0]).__name__, "GatedFusion"
    ),
    "dual_encoder.context_width": Case(
        DUAL, 0.5, lambda trainer: trainer.network.context_encoder.output_channels[:2], [2, 4]
    ),
    "dual_encoder.fuse_skips": Case(DUAL, True, lambda trainer: len(trainer.network.fusions), 5),
    "dual_encoder.prior_dropout": Case(DUAL, 0.3, share_without_prior, pytest.approx(0.3, abs=0.07)),
    "dual_encoder.misalignment_probability": Case(DUAL, 0.4, misaligned_by(0), 0.4),
    "dual_encoder.misalignment_shift": Case(
        DUAL, 9.0, misaligned_by(1), pytest.approx(9.0, rel=0.05), ALWAYS_MISALIGNED
    ),
    "dual_encoder.misalignment_rotation": Case(
        DUAL, 30.0, misaligned_by(2), pytest.approx(30.0, rel=0.05), ALWAYS_MISALIGNED
    ),
    "dual_encoder.channels.current": Case(DUAL, [0, 1], inputs_of("current"), [0, 1], ROLES),
    "dual_encoder.channels.prior_image": Case(DUAL, [2], channels_with_intensities, [0, 2], ROLES),
    "dual_encoder.channels.prior_labels": Case(DUAL, [1, 2], inputs_of("prior"), [1, 2], ROLES),
}
CASES = {key: case._replace(kind="prior") for key, case in CASES.items()}
