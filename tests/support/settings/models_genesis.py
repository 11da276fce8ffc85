"""Models Genesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_ext.augmentation.genesis_corruptions import BezierIntensity, LocalShuffling, Painting
from nnunet_ext.trainers import nnUNetTrainerModelsGenesis as GENESIS
from support.settings import Case, channel_dropout


def probability_of(corruption: type) -> Callable[[Any], float]:
    def probe(trainer: Any) -> float:
        transforms = trainer.get_training_transforms((16, 16, 16), None, None, None).transforms
        random = [one for one in transforms if isinstance(one, RandomTransform)]
        return next(one.apply_probability for one in random if isinstance(one.transform, corruption))

    return probe


CASES = {
    "models_genesis.dropout": Case(GENESIS, 0.2, channel_dropout, pytest.approx(0.2, abs=0.02)),
    "models_genesis.shuffling_probability": Case(GENESIS, 0.1, probability_of(LocalShuffling), 0.1),
    "models_genesis.intensity_probability": Case(GENESIS, 0.2, probability_of(BezierIntensity), 0.2),
    "models_genesis.painting_probability": Case(GENESIS, 0.3, probability_of(Painting), 0.3),
}
