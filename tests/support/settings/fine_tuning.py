"""Fine-tuning."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from nnunet_ext.errors import UserError
from nnunet_ext.finetuning.lora import adapted_layers
from nnunet_ext.trainers import nnUNetTrainerFineTune as FINE_TUNE
from nnunet_ext.trainers import nnUNetTrainerLoRA as LORA
from support.settings import Case, Times, terms


def start(trainer: Any) -> str:
    """What a fine-tuning starts from: "nothing" (it refuses), "random" weights, "source" or its "body" alone."""
    source = torch.load("source.pth", weights_only=False)["network_weights"]
    try:
        trainer.load_start()
    except UserError:
        return "nothing"
    equal = {name: torch.equal(value, source[name]) for name, value in trainer.network.state_dict().items()}
    if all(equal.values()):
        return "source"
    return "body" if all(value for name, value in equal.items() if ".seg_layers." not in name) else "random"


def adapter(trainer: Any) -> Any:
    return next(adapted_layers(trainer.network))


def dropped_inputs_of_adapters(trainer: Any) -> float:
    torch.manual_seed(0)
    return float((adapter(trainer).lora_dropout["default"].train()(torch.ones(10_000)) == 0).float().mean())


def factor_of_adapters(trainer: Any) -> float:
    """What an adapter whose weights are all one adds, by its inner size."""
    layer = adapter(trainer).eval()
    data = torch.ones(1, layer.base_layer.in_channels, 3, 3, 3)
    before = layer(data)
    for part in (layer.lora_A, layer.lora_B):
        torch.nn.init.ones_(part["default"].weight)
    kernel = layer.lora_A["default"].weight
    return (layer(data) - before)[0, 0, 1, 1, 1].item() / kernel.numel()


def penalty_for_moving(trainer: Any) -> float:
    """L2-SP per entry where everything has moved by 0.1."""
    trainer.load_start()
    parameters = list(trainer.network.parameters())
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0.1)
    return terms(trainer).get("l2_sp", 0.0) / sum(parameter.numel() for parameter in parameters)


def rate_of_copied(trainer: Any) -> float:
    trainer.load_start()
    return first_rate(trainer)


def first_rate(trainer: Any) -> float:
    trainer.lr_scheduler.step(0)
    return trainer.optimizer.param_groups[0]["lr"]


FROM_SOURCE = {"fine_tuning": {"source": "source.pth"}}
ANYHOW = {"fine_tuning": {"allow_random_start": True}}

CASES = {
    "fine_tuning.source": Case(FINE_TUNE, "source.pth", start, "source", ANYHOW),
    "fine_tuning.keep_heads": Case(FINE_TUNE, False, start, "body", FROM_SOURCE),
    "fine_tuning.allow_random_start": Case(FINE_TUNE, True, start, "random"),
    "fine_tuning.l2_sp": Case(FINE_TUNE, 0.5, penalty_for_moving, 0.5 * 0.1**2, FROM_SOURCE),
    "fine_tuning.copied_lr_factor": Case(FINE_TUNE, 0.25, rate_of_copied, Times(0.25), FROM_SOURCE),
    "fine_tuning.warmup_epochs": Case(FINE_TUNE, 3, first_rate, Times(0.25), ANYHOW),
    "fine_tuning.lora_rank": Case(LORA, 3, lambda trainer: adapter(trainer).lora_A["default"].weight.shape[0], 3),
    "fine_tuning.lora_alpha": Case(LORA, 64.0, factor_of_adapters, 2.0),
    "fine_tuning.lora_dropout": Case(LORA, 0.6, dropped_inputs_of_adapters, pytest.approx(0.6, abs=0.02)),
}
