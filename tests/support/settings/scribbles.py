"""Scribbles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.trainers import nnUNetTrainerDMPLS as DMPLS
from nnunet_ext.trainers import nnUNetTrainerPartialCE
from nnunet_ext.trainers import nnUNetTrainerTDNet as TDNET
from support.settings import Case, Times, channel_dropout, random_batch, random_outputs, term, terms_present


def gradient_of_consistency(trainer: Any) -> list[float]:
    outputs, batch = random_outputs(trainer), random_batch(trainer)
    outputs[0][0].requires_grad_()
    trainer.loss_terms(outputs, batch)["uspc"].backward()
    return outputs[0][0].grad.flatten().tolist()


def bottleneck_dropout(trainer: Any) -> float:
    """The mean share of the bottleneck that is dropped before another decoder."""
    torch.manual_seed(0)
    dropout = trainer.network.perturbations[1].train()
    return float(np.mean([(dropout([torch.ones(1, 1, 1000)])[0] == 0).float().mean() for _ in range(200)]))


def dilations(trainer: Any) -> list[int]:
    decoders = (trainer.network.decoder, *trainer.network.auxiliary_decoders)
    return [decoder.stages[-1].convs[0].conv.dilation[0] for decoder in decoders]


CASES = {
    "partial_ce.entropy_weight": Case(nnUNetTrainerPartialCE, 0.5, terms_present, ["entropy", "partial_ce"]),
    "dmpls.dropout": Case(DMPLS, 0.2, channel_dropout, pytest.approx(0.2, abs=0.02)),
    "dmpls.supervision": Case(DMPLS, "dice_ce", terms_present, ["dice_ce", "pseudo_labels"]),
    "dmpls.pseudo_label_weight": Case(DMPLS, 1.0, term("pseudo_labels"), Times(2)),
    "dmpls.pseudo_label_dice": Case(DMPLS, "foreground", term("pseudo_labels")),
    "dmpls.ramp_epochs": Case(DMPLS, 10, term("pseudo_labels", epoch=5), Times(np.exp(-5 / 4))),
    "tdnet.dilations": Case(TDNET, [1, 2], dilations, [1, 2]),
    "tdnet.dropout": Case(TDNET, 0.2, bottleneck_dropout, pytest.approx(0.1, abs=0.02)),
    "tdnet.supervision": Case(TDNET, "dice_ce", terms_present, ["dice_ce", "mpcc", "uspc"]),
    "tdnet.uspc_weight": Case(TDNET, 5.0, term("uspc"), Times(0.5)),
    "tdnet.mpcc_weight": Case(TDNET, 5.0, term("mpcc"), Times(5)),
    "tdnet.uncertainty_weights": Case(TDNET, False, term("uspc")),
    "tdnet.detach_target": Case(TDNET, False, gradient_of_consistency),
    "tdnet.ramp_epochs": Case(TDNET, 0, term("uspc"), Times(np.exp(5))),
}
CASES = {key: case._replace(kind="ignore") for key, case in CASES.items()}
