"""What there is to predict with."""

import pytest
import torch

from nnunet_ext import machine
from nnunet_ext.errors import UserError
from nnunet_ext.machine import available_cores, choose_device, default_workers


def test_a_device_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    assert choose_device("cpu") == "cpu"
    with pytest.raises(UserError, match="no cuda device"):
        choose_device("cuda")


def test_cuda_is_preferred(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"


def test_there_is_at_least_one_core():
    assert available_cores() >= 1


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (6, 6), (64, 8)])
def test_scoring_takes_the_cores_that_are_there_but_not_more_than_eight(monkeypatch, cores, workers):
    monkeypatch.setattr(machine, "available_cores", lambda: cores)
    assert default_workers() == workers
