"""The experiment with stand-ins for the programs that train and predict."""

import math
import os
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from benchmarks import experiment, few_shot, in_process, steps
from benchmarks.domain_shift import PILOT_FOLD, SEEDS, SHIFTS, SHOTS
from benchmarks.experiment import shown_commands
from benchmarks.few_shot import main
from benchmarks.few_shot_grid import (
    ALL_SHOTS,
    METHODS,
    PRIMARY_SHOTS,
    Pilot,
    Run,
    planned_pilots,
    planned_runs,
)
from benchmarks.few_shot_results import Scored, Trained, case_dice, collected, result_lines, seeds_by_cases
from benchmarks.in_process import run_command
from nnunet_ext import cli, trainers
from nnunet_ext.commands.configure import check_name
from nnunet_ext.demo.run import CommandFailed, CommandRunner
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.settings import configured_settings

SHIFT = SHIFTS["hippocampus"]
FULL = next(method for method in METHODS if method.name == "full")
HEAD = next(method for method in METHODS if method.name == "head only")
REQUEST = {"shift": "hippocampus", "epochs": 5, "iterations": 40, "lrs": [0.001, 0.01], "device": "cpu"}


# ---------------------------------------------------------------------- the grid


def test_primary_runs_come_first_one_seed_after_another():
    runs = planned_runs("full")
    primary = planned_runs("primary")
    assert runs[: len(primary)] == primary
    assert [(run.shots, run.seed) for run in primary] == [(PRIMARY_SHOTS, seed) for seed in SEEDS for _ in METHODS]
    shots = planned_runs("shots")
    assert runs[: len(shots)] == shots
    assert Counter(run.method.name for run in shots[len(primary) :]) == dict.fromkeys(ALL_SHOTS, 2 * len(SEEDS))


def test_full_grid_has_every_run_once():
    wanted = {Run(method, shots, seed) for method in METHODS for shots in SHOTS for seed in SEEDS}
    assert set(planned_runs("full")) == wanted
    assert len(planned_runs("full")) == len(wanted)


def test_every_family_has_one_method_that_pilots():
    assert Counter(method.family for method in METHODS if method.pilots) == dict.fromkeys(
        {method.family for method in METHODS}, 1
    )
    assert len(planned_pilots([0.1, 0.2])) == 2 * len({method.family for method in METHODS})


def test_names_are_distinct_and_can_name_configurations():
    names = [one.name for one in [*planned_runs("full"), *planned_pilots([1e-3, 1e-2])]]
    assert len(set(names)) == len(names)
    for name in names:
        check_name(name)
        assert re.fullmatch(r"[a-z0-9_.]+", name)


def test_trainers_exist():
    for method in METHODS:
        assert hasattr(trainers, method.trainer)


# ---------------------------------------------------------------------- the figures


def trained(*, target, source, moved=0.5, lr=0.01):
    return Trained(Scored(target, source), lr, moved, 2.0)


def test_dice_of_a_case_is_the_mean_of_the_labels_that_have_one():
    part = {"dataset": "D", "dice": {"a": {"x": 0.4, "y": 0.6}, "b": {"x": None, "y": 0.3}, "c": {"x": None}}}
    found = case_dice({"datasets": [{"dataset": "other", "dice": {}}, part]}, "D")
    assert found == pytest.approx({"a": 0.5, "b": 0.3, "c": math.nan}, nan_ok=True)


def test_runs_of_other_cases_are_not_mixed():
    assert seeds_by_cases([{"a": 1.0, "b": 2.0}, {"b": 4.0, "a": 3.0}]).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="same cases"):
        seeds_by_cases([{"a": 1.0}, {"b": 1.0}])


def test_differences_are_paired_by_seed_and_case():
    runs = {
        Run(FULL, 5, 0): trained(target={"a": 0.5, "b": 0.7}, source={"a": 0.4, "b": 0.4}),
        Run(FULL, 5, 1): trained(target={"a": 0.9, "b": 0.9}, source={"a": 0.4, "b": 0.4}),
        Run(HEAD, 5, 0): trained(target={"b": 0.8, "a": 0.6}, source={"a": 0.8, "b": 0.9}, moved=0.1),
        Run(HEAD, 1, 0): trained(target={"a": 0.0, "b": 0.0}, source={"a": 0.0, "b": 0.0}),
    }
    content = collected(SHIFT, Scored({"a": 0.1, "b": 0.3}, {"a": 0.9, "b": 1.0}), runs, {"full": {0.01: 0.5}})
    full, head, alone = content["rows"]
    assert (full["method"], full["shots"], full["seeds"]) == ("full", 5, [0, 1])
    assert full["target"]["dice"]["value"] == pytest.approx(0.75)
    assert full["target"]["deviation_over_seeds"] == pytest.approx(0.3 / math.sqrt(2))
    assert full["source"]["minus_source_model"]["value"] == pytest.approx(-0.55)
    assert "minus_full" not in full["target"]
    # only seed 0 is compared: that of full's seed 1 has no partner
    assert head["target"]["minus_full"]["seeds"] == [0]
    assert head["target"]["minus_full"]["value"] == pytest.approx(0.1)
    assert head["target"]["minus_full"]["low"] == pytest.approx(0.1)
    assert head["source"]["minus_full"]["value"] == pytest.approx(0.45)
    assert head["target"]["deviation_over_seeds"] is None
    assert head["moved"] == pytest.approx(0.1)
    assert (alone["shots"], "minus_full" in alone["target"]) == (1, False)
    assert content["source_model"]["source"]["value"] == pytest.approx(0.95)


def test_result_says_what_was_not_run():
    runs = {
        Run(method, 5, seed): trained(target={"a": 0.5}, source={"a": 0.5}, moved=None)
        for method in METHODS
        for seed in SEEDS
        if (method, seed) != (HEAD, 2)
    }
    content = collected(SHIFT, Scored({"a": 0.1}, {"a": 0.9}), runs, {})
    assert content["missing"] == ["5 shots: head only (seed 2)", "1 shot: everything", "10 shots: everything"]
    assert len(content["finished_runs"]) + len(content["missing_runs"]) == len(planned_runs("full"))
    text = "\n".join(result_lines(content, REQUEST, SHIFT))
    assert f"Finished: {len(runs)} of {len(planned_runs('full'))} trainings" in text
    assert "- 1 shot: everything" in text
    assert "## 5 shots" in text
    assert "## 10 shots" not in text
    assert re.search(r"\| head only +\| 0\.500 \[0\.500, 0\.500\] \| +\+0\.000 \[\+0\.000, \+0\.000\]", text)


def test_complete_grid_has_nothing_missing():
    runs = {run: trained(target={"a": 0.5}, source={"a": 0.5}) for run in planned_runs("full")}
    content = collected(SHIFT, Scored({"a": 0.1}, {"a": 0.9}), runs, {})
    assert content["missing"] == content["missing_runs"] == []
    assert "Not run:" not in result_lines(content, REQUEST, SHIFT)


# ---------------------------------------------------------------------- the whole of it, with stand-ins


class Programs:
    """What stands in for nnU-Net's commands and for ``nnunet_ext evaluate``: writes what they would leave."""

    def __init__(self):
        self.ran = []
        self.fail_at = None
        self.failure = CommandFailed("it failed")

    def runner(self):
        programs = self

        class Runner(CommandRunner):
            def run(self, name, command):
                self.shown.append(" ".join(command))
                programs.ran.append((name, list(command)))
                if name == programs.fail_at:
                    raise programs.failure
                folders = {key: Path(self.environment[f"nnUNet_{key}"]) for key in ("preprocessed", "results")}
                getattr(programs, command[0], lambda *_: None)(folders, command)

        return Runner

    def carry_out(self, command, *, environment, log=None, resume=False):
        """In place of `in_process`: the training as above, the evaluation as below, any other command as it is."""
        if command[1] not in ("evaluate", "805"):
            return run_command(command, environment=environment)
        name = log.stem
        self.ran.append((name, [*command, *(["--c"] if resume else [])]))
        if name == self.fail_at:
            raise self.failure
        folders = {key: Path(environment[f"nnUNet_{key}"]) for key in ("preprocessed", "results")}
        if command[1] == "evaluate":
            return self.evaluate(command)
        return self.nnUNetv2_train(folders, command)

    def nnUNetv2_plan_and_preprocess(self, folders, command):
        name = {"804": SHIFT.source, "805": SHIFT.target}[command[2]]
        (folders["preprocessed"] / name).mkdir()
        configurations = {"3d_fullres": {"architecture": {}}}
        write_json(folders["preprocessed"] / name / "nnUNetPlans.json", {"configurations": configurations})

    def nnUNetv2_move_plans_between_datasets(self, folders, command):
        plans = read_json(folders["preprocessed"] / SHIFT.source / "nnUNetPlans.json")
        write_json(folders["preprocessed"] / SHIFT.target / "nnUNetPlansSource.json", plans)

    def nnUNetv2_train(self, folders, command):
        dataset, configuration, fold, _, trainer = command[1:6]
        is_source = dataset == "804"
        identifier = "nnUNetPlans" if is_source else "nnUNetPlansSource"
        name = SHIFT.source if is_source else SHIFT.target
        plans = read_json(folders["preprocessed"] / name / f"{identifier}.json")
        settings = configured_settings(plans, configuration)
        folder = folders["results"] / name / f"{trainer}__{identifier}__{configuration}" / f"fold_{fold}"
        (folder / "validation").mkdir(parents=True)
        # in the stand-in's world the higher learning rate is the better one
        write_json(folder / "validation" / "summary.json", {"foreground_mean": {"Dice": settings["initial_lr"] * 10}})
        logging = {"epoch_start_timestamps": [0.0, 10.0], "epoch_end_timestamps": [3.0, 15.0]}
        extra = {"settings": settings}
        if "fine_tuning" in settings:
            extra["moved"] = {"shares": {"all": [1, 4]}}
        checkpoint = {"network_weights": {"w": torch.zeros(1)}, "logging": logging, "nnunet_ext": extra}
        torch.save(checkpoint, folder / "checkpoint_final.pth")

    def evaluate(self, command):
        assert (Path(command[2]) / f"fold_{command[command.index('-f') + 1]}" / "checkpoint_final.pth").is_file()
        out = Path(command[command.index("-o") + 1])
        out.mkdir()
        value = 0.9 if out.name == "source_model" else 0.5
        dice = {"case_1": {"Anterior": value, "Posterior": value - 0.2}, "case_2": {"Anterior": value}}
        datasets = [{"dataset": SHIFT.target, "dice": dice}, {"dataset": SHIFT.source, "dice": dice}]
        write_json(out / "evaluation.json", {"datasets": datasets})

    def names(self, start):
        return [name for name, _ in self.ran if name.startswith(start)]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    origin = tmp_path / "raw" / SHIFT.origin
    origin.mkdir(parents=True)
    (origin / "dataset.json").write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    stand_in = Programs()
    real = cli.main

    def command_line(argv):
        if argv[0] != "plan":
            return real(argv)
        folder = Path(os.environ["nnUNet_preprocessed"]) / SHIFT.source
        plans = read_json(folder / "nnUNetPlans.json")
        plans["configurations"]["3d_fullres_quick"] = {
            "inherits_from": "3d_fullres",
            "nnunet_ext": {"optimizer": "adamw", "initial_lr": 2e-3, "num_epochs": 20},
        }
        write_json(folder / "nnUNetPlans.json", plans)
        return 0

    monkeypatch.setattr(in_process.cli, "main", command_line)
    monkeypatch.setattr(experiment, "CommandRunner", stand_in.runner())
    monkeypatch.setattr(in_process, "train", stand_in.carry_out)
    monkeypatch.setattr(in_process, "run_command", stand_in.carry_out)
    monkeypatch.setattr(few_shot, "write_datasets", lambda shift, raw: None)
    monkeypatch.setattr(steps, "commit", lambda repository: "abc")
    return stand_in


def arguments(tmp_path, *more):
    return ["--out", str(tmp_path / "out"), "--device", "cpu", "--until", "primary", *more]


def test_one_command_does_everything_and_a_second_one_nothing(tmp_path, programs):
    assert main(arguments(tmp_path)) == 0
    primary = planned_runs("primary")
    assert programs.names("train_")[0] == "train_source"
    assert programs.names("train_")[1:] == [f"train_{one.name}" for one in [*planned_pilots([1e-3, 1e-2]), *primary]]
    assert programs.names("evaluate_") == ["evaluate_source_model", *(f"evaluate_{run.name}" for run in primary)]
    content = read_json(tmp_path / "out" / "few_shot.json")
    assert content["finished_runs"] == [run.name for run in primary]
    assert content["missing"] == ["1 shot: everything", "10 shots: everything"]
    assert content["commit"] == "abc"
    assert {family["best"] for family in content["pilot"].values()} == {0.01}
    rows = {row["method"]: row for row in content["rows"]}
    assert rows["scratch"]["moved"] is None
    assert rows["LoRA"]["moved"] == 0.25
    assert rows["LoRA"]["median_epoch_seconds"] == 4
    assert rows["LoRA"]["target"]["dice"]["value"] == pytest.approx((0.4 + 0.5) / 2)
    assert rows["LoRA"]["source"]["minus_source_model"]["value"] == pytest.approx(-0.4)
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran == []
    assert read_json(tmp_path / "out" / "few_shot.json")["rows"] == content["rows"]


def test_runs_get_their_settings_fold_and_plans(tmp_path, programs):
    main(arguments(tmp_path, "--epochs", "3", "--steps", "7"))
    out = tmp_path / "out"
    plans = read_json(out / "nnUNet_preprocessed" / SHIFT.target / "nnUNetPlansSource.json")
    settings = configured_settings(plans, "dgst_random_k1_5shot_s2")
    assert settings["fine_tuning"]["source"] == (
        f"$nnUNet_results/{SHIFT.source}/nnUNetTrainerConfigurable__nnUNetPlans__3d_fullres_source/fold_0/"
        "checkpoint_final.pth"
    )
    assert settings["dgst"] == {"mode": "strict", "top_k": 1, "selection": "random"}
    assert settings["optimizer"] == "adamw"
    assert (settings["seed"], settings["initial_lr"], settings["memory_format"]) == (2, 0.01, "channels_last")
    assert (settings["num_epochs"], settings["num_iterations_per_epoch"]) == (3, 7)
    assert "fine_tuning" not in configured_settings(plans, "scratch_5shot_s0")
    commands = dict(programs.ran)
    run = Run(next(method for method in METHODS if method.name == "DGST random k=1"), 5, 2)
    assert commands[f"train_{run.name}"] == (
        f"nnUNetv2_train 805 {run.name} {run.fold} -tr nnUNetTrainerDGST -p nnUNetPlansSource -device cpu".split()
    )
    assert commands[f"train_{Pilot(FULL, 0.001).name}"][3] == str(PILOT_FOLD)


def test_failed_command_leaves_the_results_of_what_is_there_and_is_repeated(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary')[2].name}"
    assert main(arguments(tmp_path)) == 1
    assert "failed" in capsys.readouterr().err
    content = read_json(tmp_path / "out" / "few_shot.json")
    assert content["finished_runs"] == [run.name for run in planned_runs("primary")[:2]]
    failed, programs.fail_at = programs.fail_at, None
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran[0][0] == failed


def test_interruption_leaves_the_results_of_what_is_there(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary')[1].name}"
    programs.failure = KeyboardInterrupt()
    assert main(arguments(tmp_path)) == 130
    assert "goes on from here" in capsys.readouterr().err
    assert len(read_json(tmp_path / "out" / "few_shot.json")["finished_runs"]) == 1


def test_interrupted_training_goes_on_from_its_checkpoint(tmp_path, programs):
    run = planned_runs("primary")[0]
    programs.fail_at = f"train_{run.name}"
    main(arguments(tmp_path))
    model = f"{run.method.trainer}__nnUNetPlansSource__{run.name}"
    fold = tmp_path / "out" / "nnUNet_results" / SHIFT.target / model / f"fold_{run.fold}"
    fold.mkdir(parents=True)
    (fold / "checkpoint_best.pth").touch()
    programs.fail_at = f"evaluate_{run.name}"
    programs.ran.clear()
    main(arguments(tmp_path))
    assert programs.ran[0][1][-1] == "--c"
    assert "--c" not in programs.ran[1][1]


def test_over_time_nothing_is_begun_and_results_are_written(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary')[1].name}"
    main(arguments(tmp_path))
    (tmp_path / "out" / "few_shot.json").unlink()
    programs.ran.clear()
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert programs.ran == []
    assert "goes on from here" in capsys.readouterr().out
    assert read_json(tmp_path / "out" / "few_shot.json")["finished_runs"] == [planned_runs("primary")[0].name]


def test_before_the_source_model_is_scored_there_are_no_results(tmp_path, programs, capsys):
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert "Nothing is scored yet" in capsys.readouterr().out
    assert not (tmp_path / "out" / "few_shot.json").exists()


def test_other_request_in_the_same_folder_is_refused(tmp_path, programs, capsys):
    main(arguments(tmp_path, "--max-minutes", "0"))
    assert main(arguments(tmp_path, "--epochs", "6")) == 2
    assert "Choose another folder" in capsys.readouterr().err


def test_missing_dataset_is_wrong_usage_that_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(arguments(tmp_path)) == 2
    assert SHIFT.origin in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_name_no_folder_of_this_machine(tmp_path, programs):
    main(arguments(tmp_path, "--results", str(tmp_path / "results")))
    for name in ("few_shot.json", "few_shot.md"):
        assert str(tmp_path) not in (tmp_path / "results" / name).read_text()


def test_results_show_the_commands_before_the_pilot_and_those_of_one_run(tmp_path, programs):
    main(arguments(tmp_path))
    content = read_json(tmp_path / "out" / "few_shot.json")
    text = (tmp_path / "out" / "few_shot.md").read_text()
    assert "nnUNetv2_move_plans_between_datasets" in text
    assert text.count("nnUNetv2_train ") == 2
    assert "train 805 scratch_5shot_s0" in text
    assert sum("nnUNetv2_train " in line for line in content["commands"]) == len(programs.names("train_"))
    left_out = len(content["commands"]) - len(shown_commands(content["commands"], content["finished_runs"])) + 1
    assert f"# and {left_out} commands" in text


def test_environment_of_this_process_is_as_before(tmp_path, programs, monkeypatch):
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    before = dict(os.environ)
    main(arguments(tmp_path))
    assert dict(os.environ) == before
