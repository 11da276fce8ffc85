import argparse

import pytest

from benchmarks.experiment import (
    assignments,
    environment_of,
    exit_status,
    learning_rate,
    raw_dataset_folder,
    shared_settings,
    shown_commands,
)
from nnunet_ext.commands.configure import parse_settings
from nnunet_ext.demo.run import CommandFailed
from nnunet_ext.errors import UserError


def test_few_cores_get_one_exporting_process_unless_the_user_chose(tmp_path, monkeypatch):
    monkeypatch.delenv("nnUNet_def_n_proc", raising=False)
    assert environment_of(tmp_path, cores=2)["nnUNet_def_n_proc"] == "1"
    assert "nnUNet_def_n_proc" not in environment_of(tmp_path, cores=16)
    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    assert "nnUNet_def_n_proc" not in environment_of(tmp_path, cores=2)


def test_settings_are_what_configure_reads():
    settings = shared_settings(epochs=3, iterations=7, seed=2, lr=3e-3)
    assert parse_settings(assignments({**settings, "dbdmp.ramp_epochs": 1, "tdnet.dilations": [1, 1, 1]})) == {
        "seed": 2,
        "initial_lr": 0.003,
        "num_epochs": 3,
        "num_iterations_per_epoch": 7,
        "num_val_iterations_per_epoch": 1,
        "save_every": 3,
        "memory_format": "channels_last",
        "dbdmp": {"ramp_epochs": 1},
        "tdnet": {"dilations": [1, 1, 1]},
    }
    assert parse_settings(assignments({"tdnet.detach_target": False})) == {"tdnet": {"detach_target": False}}


def test_dataset_is_looked_for_where_the_user_keeps_them(tmp_path, monkeypatch):
    (tmp_path / "Dataset001_A").mkdir()
    (tmp_path / "Dataset001_A" / "dataset.json").write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert raw_dataset_folder("Dataset001_A", advice="Get it.") == tmp_path / "Dataset001_A"
    with pytest.raises(UserError, match="Dataset002_B is not there. The experiment is made from it"):
        raw_dataset_folder("Dataset002_B", advice="The experiment is made from it.")
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(UserError, match="nnUNet_raw is not set"):
        raw_dataset_folder("Dataset001_A", advice="Get it.")


def test_shown_commands_are_those_before_the_pilot_and_those_of_the_first_run():
    commands = ["plan", "train pilot_a", "configure pilot_b", "train one", "evaluate one", "train two"]
    assert shown_commands(["plan", "train pilot_a"], []) == [
        "plan",
        "# and 1 commands of the pilot and the other runs, in the JSON file",
    ]
    assert shown_commands(commands, ["one", "two"])[:3] == ["plan", "train one", "evaluate one"]
    assert "# and 3 commands" in shown_commands(commands, ["one", "two"])[3]


def test_learning_rate_is_a_number_above_zero():
    assert learning_rate("1e-3") == 0.001
    for text in ("0", "-1", "inf", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="not above 0"):
            learning_rate(text)


@pytest.mark.parametrize(
    ("error", "status"), [(UserError("a"), 2), (CommandFailed("b"), 1), (KeyboardInterrupt(), 130), (None, 0)]
)
def test_exit_status_tells_how_it_ended(error, status, capsys):
    def action():
        if error is not None:
            raise error

    assert exit_status("name", action) == status
    assert ("name: " in capsys.readouterr().err) == (error is not None)
