"""Trainings and commands in the benchmark's own process."""

import os

import pytest
import torch

from benchmarks.in_process import logged, run_command, train, variables
from nnunet_ext import cli
from nnunet_ext.demo.run import CommandFailed
from support.nnunet_runs import train as train_by_nnunet
from support.tiny_data import KINDS


def test_variables_hold_in_the_block_and_are_as_before_afterwards(monkeypatch):
    monkeypatch.setenv("A_VARIABLE", "before")
    monkeypatch.delenv("ANOTHER", raising=False)
    with pytest.raises(KeyError), variables({"A_VARIABLE": "inside", "ANOTHER": "new"}):
        assert (os.environ["A_VARIABLE"], os.environ["ANOTHER"]) == ("inside", "new")
        raise KeyError
    assert os.environ["A_VARIABLE"] == "before"
    assert "ANOTHER" not in os.environ


def test_an_error_is_in_the_log_and_goes_on(tmp_path):
    with pytest.raises(ValueError, match="lost"), logged(tmp_path / "log"):
        print("some output")
        raise ValueError("lost")
    text = (tmp_path / "log").read_text()
    assert "some output" in text
    assert "ValueError: lost" in text


def test_a_command_that_finds_a_problem_is_a_failure_that_names_its_log(tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    log = tmp_path / "log"
    with pytest.raises(CommandFailed, match=f"status 2.*{log.name}"):
        run_command(["nnunet_ext", "configure", "-d", "4"], environment={}, log=log)
    assert "nnUNet_preprocessed is not set" in log.read_text()


def test_a_command_that_is_interrupted_ends_what_called_it(monkeypatch):
    monkeypatch.setattr(cli, "main", lambda argv: 130)
    with pytest.raises(KeyboardInterrupt):
        run_command(["nnunet_ext", "evaluate"], environment={})


def test_trains_as_nnunet_does_without_the_final_validation(results, tmp_path, monkeypatch):
    expected = train_by_nnunet("nnUNetTrainerConfigurable").network.state_dict()
    other = tmp_path / "elsewhere"
    command = ["nnUNetv2_train", str(KINDS["labels"]["id"]), "3d_tiny", "0", "-tr", "nnUNetTrainerConfigurable"]
    command += ["-p", "nnUNetPlans", "-device", "cpu"]
    train(command, resume=False, environment={"nnUNet_results": str(other)}, log=tmp_path / "log")
    (checkpoint,) = other.glob("*/*/fold_0/checkpoint_final.pth")
    weights = torch.load(checkpoint, weights_only=False)["network_weights"]
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())
    assert not (checkpoint.parent / "validation").exists()
    assert "Training done." in (tmp_path / "log").read_text()


def test_starts_from_pretrained_weights_but_not_when_it_goes_on(results, tmp_path):
    source = train_by_nnunet("nnUNetTrainerConfigurable")
    weights = tmp_path / "weights ü.pth"
    values = {name: torch.zeros_like(value) for name, value in source.network.state_dict().items()}
    torch.save({"network_weights": values}, weights)
    command = ["nnUNetv2_train", str(KINDS["labels"]["id"]), "3d_tiny", "0", "-tr", "nnUNetTrainerConfigurable"]
    command += ["-p", "nnUNetPlans", "-device", "cpu", "-pretrained_weights", str(weights)]
    elsewhere = {"nnUNet_results": str(tmp_path / "elsewhere")}
    train(command, resume=False, environment=elsewhere, log=tmp_path / "log")
    assert f"Loading pretrained weights from file  {weights}" in (tmp_path / "log").read_text()
    train(command, resume=True, environment=elsewhere, log=tmp_path / "log")
    assert "Loading pretrained weights" not in (tmp_path / "log").read_text()
