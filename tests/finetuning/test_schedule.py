"""The learning rate by epoch."""

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler

from nnunet_ext.finetuning.schedule import FACTOR, FineTuningSchedule


def optimizer(*factors):
    return torch.optim.SGD([{"params": [torch.zeros(1)], **factor} for factor in factors], lr=0.1)


def rates(schedule, epochs):
    found = []
    for epoch in range(epochs):
        schedule.step(epoch)
        found.append([group["lr"] for group in schedule.optimizer.param_groups])
    return found


def test_without_warm_up_it_is_nnunets_bit_for_bit():
    ours = FineTuningSchedule(optimizer({}), 0.1, 37, warmup=0)
    assert rates(ours, 37) == rates(PolyLRScheduler(optimizer({}), 0.1, 37), 37)


def test_rate_rises_linearly_then_decays_over_the_rest():
    schedule = FineTuningSchedule(optimizer({}), 0.4, 13, warmup=3)
    found = [rate for (rate,) in rates(schedule, 13)]
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4] == pytest.approx(0.4 * (1 - 1 / 10) ** 0.9)
    assert found[12] == pytest.approx(0.4 * (1 - 9 / 10) ** 0.9)


def test_each_group_has_its_factor():
    schedule = FineTuningSchedule(optimizer({FACTOR: 0.1}, {}), 0.4, 10, warmup=1)
    assert rates(schedule, 2) == [[pytest.approx(0.02), 0.2], [pytest.approx(0.04), 0.4]]
