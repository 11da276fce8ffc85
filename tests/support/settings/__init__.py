"""How the effect of each setting is seen: a module for each technique, with a case for each of its settings.

`every_case` finds them, so that a new technique brings a file of its own.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch

from nnunet_ext.networks.multi_decoder import FeatureDropout
from support.changed_trainers import batch_of
from support.tiny_data import IGNORE


class Times(NamedTuple):
    """A multiple of what is seen with the default."""

    factor: float


class Case(NamedTuple):
    """How the effect of a setting is seen.

    Attributes:
        trainer: one that the setting is for.
        value: what it is changed to.
        probe: from an initialized trainer to what can be seen.
        expected: what is seen then, `Times` for a multiple of what is seen with the default; None for anything else.
        beside: settings that hold with both.
        kind: of the data.
    """

    trainer: type
    value: Any
    probe: Callable[[Any], Any]
    expected: Any = None
    beside: Mapping[str, Any] = {}
    kind: str = "labels"


def every_case() -> dict[str, Case]:
    """The cases of all techniques, by the whole key of the setting."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {key: case for module in modules for key, case in module.CASES.items()}


def random_batch(trainer: Any) -> dict[str, Any]:
    """Images, and labels of which most are background or unknown."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, *trainer.configuration_manager.patch_size)
    labels = torch.randint(0, 3, shape, generator=generator)
    hidden = 0 if trainer.label_manager.ignore_label is None else IGNORE
    labels[torch.rand(shape, generator=generator) < 0.7] = hidden
    data = torch.randn((2, trainer.num_input_channels, *shape[2:]), generator=generator)
    return {**batch_of(trainer, labels), "data": data}


def terms(trainer: Any, *, epoch: int = 0, outputs: Any = None) -> dict[str, float]:
    """The terms of the loss for fixed outputs and draws."""
    batch = random_batch(trainer)
    trainer.current_epoch, trainer.shared_rng = epoch, np.random.default_rng(5)
    values = trainer.loss_terms(random_outputs(trainer) if outputs is None else outputs, batch)
    values |= trainer.weight_terms()
    return {name: float(value.detach()) for name, value in values.items()}


def random_outputs(trainer: Any) -> Any:
    """Logits at every resolution, of each decoder where there are several."""
    generator = torch.Generator().manual_seed(1)
    branches = 1 + len(getattr(trainer.network, "auxiliary_decoders", ()))
    heads = [one.shape[2:] for one in random_batch(trainer)["target"]]
    made = [[2 * torch.randn((2, 3, *shape), generator=generator) for shape in heads] for _ in range(branches)]
    return made if branches > 1 else made[0]


def term(name: str, epoch: int = 0) -> Callable[[Any], float]:
    return lambda trainer: terms(trainer, epoch=epoch).get(name, 0.0)


def terms_present(trainer: Any) -> list[str]:
    return sorted(terms(trainer))


def channel_dropout(trainer: Any) -> float:
    """The share of channels that is dropped before the second decoder."""
    dropout = next(module for module in trainer.network.modules() if isinstance(module, FeatureDropout)).train()
    torch.manual_seed(0)
    (feature,) = dropout([torch.ones(1, 10_000, *[1] * len(trainer.configuration_manager.patch_size))])
    return (feature == 0).float().mean().item()


def last_kernel(trainer: Any) -> torch.Tensor:
    return trainer.network.decoder.stages[-1].convs[0].conv.weight
