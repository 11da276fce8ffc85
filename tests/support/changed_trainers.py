"""Trainers whose plans, dataset or network differ from what the workspace holds."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nnunet_ext.plans.plans_file import read_plans
from support.tiny_data import dataset_name


def changed_trainer(
    trainer: type,
    configuration: str = "3d_tiny",
    *,
    kind: str = "labels",
    patch: Sequence[int] | None = None,
    network: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """A trainer that is not initialized.

    Args:
        trainer: its class.
        configuration: one of the workspace's.
        kind: of data.
        patch: another patch size.
        network: changes of arch_kwargs.
        dataset: changes of dataset.json.
        plan: other changes of the configuration.
        settings: changes under ``nnunet_ext``.
    """
    folder = Path(os.environ["nnUNet_preprocessed"]) / dataset_name(kind)
    content = read_plans(folder / "nnUNetPlans.json")
    chosen = content["configurations"][configuration]
    chosen.setdefault("nnunet_ext", {}).update(settings)
    if patch is not None:
        chosen["patch_size"] = list(patch)
    if network is not None:
        chosen["architecture"]["arch_kwargs"].update(network)
    chosen.update(plan or {})
    content["continue_training"] = False
    description = {**json.loads((folder / "dataset.json").read_text()), **(dataset or {})}
    return trainer(content, configuration, 0, description, torch.device("cpu"))


def at_every_resolution(trainer: Any, full: torch.Tensor) -> list[torch.Tensor]:
    """A full-resolution target (B, 1, [X,] Y, Z) at every resolution of deep supervision, as nnU-Net reduces it."""
    targets = []
    for scale in trainer._get_deep_supervision_scales():
        shape = [round(side * factor) for side, factor in zip(full.shape[2:], scale)]
        targets.append(torch.nn.functional.interpolate(full.float(), shape, mode="nearest-exact"))
    return targets


def batch_of(trainer: Any, full: torch.Tensor) -> dict[str, Any]:
    """A prepared batch without images whose labels are `full`, -1 outside the image."""
    targets = at_every_resolution(trainer, full)
    return {
        "target": [torch.where(one == -1, 0, one) for one in targets],
        "inside": [one != -1 for one in targets],
    }


def step_terms(trainer: Any, prepared: dict[str, Any]) -> dict[str, Any]:
    """The terms of the loss in a step on a prepared batch, those of a further batch included."""
    terms = trainer.loss_terms(trainer.forward(prepared), prepared)
    if (further := trainer.further_batch(prepared)) is not None:
        terms |= trainer.further_terms(trainer.forward(further), further)
    return terms
