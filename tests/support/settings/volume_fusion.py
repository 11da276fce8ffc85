"""Volume Fusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from batchgeneratorsv2.transforms.intensity.inversion import InvertImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_ext.trainers import nnUNetTrainerVolumeFusion as FUSION
from support.settings import Case


def outputs(trainer: Any) -> int:
    return trainer.network.decoder.seg_layers[-1].out_channels


def fusion(attribute: str) -> Callable[[Any], Any]:
    return lambda trainer: getattr(trainer.pretext()[-1], attribute)


def scales(trainer: Any) -> Any:
    trainer.do_split = lambda: (["case_0"], ["case_1"])
    trainer.dataset_class = lambda folder, names, **_: type("Cases", (), {"identifiers": names})()
    return trainer.get_tr_and_val_datasets()[0].scales


def intensity_probabilities(trainer: Any) -> list[float]:
    (each,) = trainer.augmentation([])
    return [one.apply_probability for one in each.transform.transforms if isinstance(one, RandomTransform)]


def inversion_probability(trainer: Any) -> float:
    (each,) = trainer.augmentation([])
    return next(one.p_invert_image for one in each.transform.transforms if isinstance(one, InvertImageTransform))


CASES = {
    "volume_fusion.classes": Case(FUSION, 2, outputs, 3),
    "volume_fusion.smallest_block": Case(FUSION, 5, fusion("sides"), (5, 32)),
    "volume_fusion.largest_block": Case(FUSION, 20, fusion("sides"), (8, 20)),
    "volume_fusion.blended_share": Case(FUSION, 0.5, fusion("share"), 0.5),
    "volume_fusion.smallest_crop": Case(FUSION, 0.9, scales, (0.9, 1.5)),
    "volume_fusion.largest_crop": Case(FUSION, 1.2, scales, (0.7, 1.2)),
    "volume_fusion.intensity_probability": Case(FUSION, 0.1, intensity_probabilities, [0.1, 0.1]),
    "volume_fusion.inversion_probability": Case(FUSION, 0.5, inversion_probability, 0.5),
}
