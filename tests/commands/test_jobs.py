"""``nnunet_ext jobs``: what is asked for, and what is refused. What jobs do is tested in tests/jobs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from nnunet_ext.claims import only_run
from nnunet_ext.cli import main
from support.sweeps import DATASET, StandIn, nnunet  # noqa: F401  the fixture

A, STOCK = "nnUNetTrainerConfigurable", "nnUNetTrainer"
START = ["jobs", "start", "-d", "4", "-c", "2d", "--device", "cpu"]


@pytest.fixture
def sweep_folder(nnunet: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    """A place for a sweep whose jobs are not started."""

    monkeypatch.setattr("nnunet_ext.jobs.local.LocalJobs.submit", lambda *_: "not started")
    return tmp_path / "sweep ü x"


def start(folder: Path, *arguments: str) -> int:
    return main([*START, "-o", str(folder), *(arguments or ("-tr", A, "-f", "0"))])


def plans_file() -> Path:
    return Path(os.environ["nnUNet_preprocessed"]) / DATASET / "nnUNetPlans.json"


def test_a_seed_is_a_configuration_that_configure_would_write(sweep_folder: Path, capsys) -> None:
    assert start(sweep_folder, "-tr", A, "-f", "0", "all", "--seeds", "0", "3") == 0
    assert "4 trainings" in capsys.readouterr().out
    configurations = json.loads(plans_file().read_text())["configurations"]
    assert configurations["2d_s3"] == {"inherits_from": "2d", "nnunet_ext": {"seed": 3}}
    assert set(configurations) == {"2d", "3d_fullres", "2d_s0", "2d_s3"}
    content = plans_file().read_text()
    assert main(["configure", "-d", "4", "-c", "2d", "--name", "2d_s3", "seed=3"]) == 0
    assert plans_file().read_text() == content
    assert start(sweep_folder, "-tr", A, "-f", "0", "all", "--seeds", "0", "3") == 0, "the same may be asked again"


def test_a_sweep_that_another_command_is_starting_is_left_to_it(sweep_folder: Path, capsys) -> None:
    with only_run(sweep_folder):
        assert start(sweep_folder) == 2
    assert f"is writing {sweep_folder}" in capsys.readouterr().err
    assert not sweep_folder.exists()


def test_a_configuration_of_that_name_and_other_content_is_left_alone(sweep_folder: Path, capsys) -> None:
    assert main(["configure", "-d", "4", "-c", "2d", "--name", "2d_s1", "seed=7"]) == 0
    content = plans_file().read_text()
    assert start(sweep_folder, "-tr", A, "-f", "0", "--seeds", "0", "1") == 2
    assert "'2d_s1' that is not '2d' with the seed 1" in capsys.readouterr().err
    assert plans_file().read_text() == content
    assert not sweep_folder.exists()


@pytest.mark.parametrize(
    ("stage", "following", "said", "pair"),
    [
        ("cascade", "cascade", "second stage", {"pair_lowres": "lowres", "pair": "cascade"}),
        ("lowres", "cascade", "first stage", {"pair": "lowres", "pair_cascade": "cascade"}),
        ("tuned", "cascade", "first stage", {"pair": "tuned", "pair_cascade": "cascade"}),
        ("lowres", ["cascade", "other"], "first stage", {"pair_lowres": "lowres", "pair": "cascade"}),
    ],
)
def test_seeds_of_a_cascades_stage_are_refused_with_the_way_to_do_it(
    sweep_folder: Path, capsys, stage: str, following: str | list[str], said: str, pair: dict[str, str]
) -> None:
    content = json.loads(plans_file().read_text())
    content["configurations"]["lowres"] = {"inherits_from": "3d_fullres", "next_stage": following}
    content["configurations"]["cascade"] = {"inherits_from": "3d_fullres", "previous_stage": "lowres"}
    content["configurations"]["tuned"] = {"inherits_from": "lowres"}
    plans_file().write_text(json.dumps(content))
    before = plans_file().read_text()
    command = [one if one != "2d" else stage for one in START]
    assert main([*command, "-o", str(sweep_folder), "-tr", A, "-f", "0", "--seeds", "0", "1"]) == 2
    error = capsys.readouterr().err
    assert f"{stage!r} is the {said}" in error
    advised = error.partition("(nnunet_ext ")[2].partition(")")[0]
    assert plans_file().read_text() == before
    assert main([*command, "-o", str(sweep_folder), "-tr", A, "-f", "0"]) == 0, (
        "without seeds it is a sweep like others"
    )
    assert main(advised.replace("NAME", "pair").replace("=N", "=1").split()) == 0, "the advice can be followed"
    configurations = json.loads(plans_file().read_text())["configurations"]
    assert {name: configurations[name]["inherits_from"] for name in pair} == pair
    assert all(configurations[name]["nnunet_ext"] == {"seed": 1} for name in pair)


def test_another_request_in_the_folder_is_refused_by_the_key_that_differs(sweep_folder: Path, capsys) -> None:
    assert start(sweep_folder) == 0
    assert start(sweep_folder) == 0
    assert start(sweep_folder, "-tr", A, "-f", "0", "1") == 2
    error = capsys.readouterr().err
    assert "folds: [0], asked for: [0, 1]" in error
    assert "trainers" not in error
    assert start(sweep_folder, "-tr", A, "-f", "0", "--local", "2") == 0, "how it is run may change"


def test_folds_are_made_before_several_trainings_would_make_them_at_once(sweep_folder: Path) -> None:
    splits = plans_file().with_name("splits_final.json")
    assert start(sweep_folder) == 0
    folds = json.loads(splits.read_text())
    assert len(folds) == 5
    assert sorted(case for fold in folds for case in fold["val"]) == [f"case_{number}" for number in range(6)]
    splits.write_text('[{"train": ["case_0"], "val": ["case_1"]}]')
    assert start(sweep_folder) == 0
    assert len(json.loads(splits.read_text())) == 1, "folds that are there are kept"


def test_a_sweep_is_resumed_with_its_own_folders_whatever_this_shell_names(
    sweep_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = plans_file().with_name("splits_final.json")
    assert start(sweep_folder) == 0
    content = splits.read_text()
    splits.unlink()
    other = tmp_path / "other"
    (other / DATASET).mkdir(parents=True)
    (other / DATASET / "splits_final.json").write_text("[]")
    monkeypatch.setenv("nnUNet_preprocessed", str(other))
    assert main(["jobs", "resume", str(sweep_folder)]) == 0
    assert splits.read_text() == content
    assert (other / DATASET / "splits_final.json").read_text() == "[]"


def test_a_sweep_that_brings_variables_along_is_not_resumed(sweep_folder: Path, capsys) -> None:
    assert start(sweep_folder) == 0
    content = json.loads((sweep_folder / "sweep.json").read_text())
    content["request"]["folders"]["PYTHONPATH"] = str(sweep_folder)
    (sweep_folder / "sweep.json").write_text(json.dumps(content))
    assert main(["jobs", "resume", str(sweep_folder)]) == 2
    assert "'PYTHONPATH' is none of nnU-Net's folders. Start the sweep anew." in capsys.readouterr().err


def test_a_fold_that_is_not_there_is_refused_as_nnunet_would_draw_one_by_cases(sweep_folder: Path, capsys) -> None:
    plans_file().with_name("splits_final.json").write_text('[{"train": ["case_0"], "val": ["case_1"]}]')
    assert start(sweep_folder, "-tr", A, "-f", "0", "3", "all") == 2
    assert "has no fold 3; it has 1 fold, numbered from 0. Name folds that are there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-tr", "nnUNetTrainerMixup", "-f", "0"], "There is no trainer 'nnUNetTrainerMixup'"),
        (["-tr", STOCK, "-f", "0", "--seeds", "1"], "nnUNetTrainer reads no settings"),
        (["-tr", A, "-f", "0", "-c", "3d_lowres"], "no configuration '3d_lowres'"),
        (["-tr", A, "-f", "0", "-p", "Other"], "There is no plans file"),
        (["-tr", A, "-f", "0", "-d", "5"], "Dataset 5 is not in"),
        (["-tr", A, "-f", "0", "-o", "100% sure"], "has a % in its path"),
    ],
)
def test_wrong_use_writes_nothing_and_says_what_is_wrong(
    sweep_folder: Path, capsys, arguments: list[str], message: str
) -> None:
    content = plans_file().read_text()
    assert start(sweep_folder, *arguments) == 2
    assert message in capsys.readouterr().err
    assert plans_file().read_text() == content
    assert not sweep_folder.exists()


def test_a_stock_trainer_needs_no_seed(sweep_folder: Path) -> None:
    assert start(sweep_folder, "-tr", STOCK, "-f", "0") == 0


def test_a_folder_with_something_else_is_refused(sweep_folder: Path, capsys) -> None:
    sweep_folder.mkdir()
    (sweep_folder / "thesis.tex").touch()
    assert start(sweep_folder) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["jobs", "status", str(sweep_folder)]) == 2
    assert "holds no sweep" in capsys.readouterr().err


def test_without_results_folder_it_names_the_variable(
    sweep_folder: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("nnUNet_results")
    assert start(sweep_folder) == 2
    assert "nnUNet_results is not set" in capsys.readouterr().err


def test_without_submitit_it_says_how_to_install_it(
    sweep_folder: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("nnunet_ext.jobs.slurm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert start(sweep_folder, "-tr", A, "-f", "0", "--slurm", "time=60") == 2
    assert "pip install -U submitit" in capsys.readouterr().err
    assert not sweep_folder.exists()
    assert start(sweep_folder) == 0, "this machine needs no library"
