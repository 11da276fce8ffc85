"""The experiment with stand-ins for the programs that simulate, train and predict."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import experiment, in_process, partial_instances, steps
from benchmarks.in_process import run_command
from benchmarks.partial_instances import copy_dataset, main, ramp_epochs
from benchmarks.partial_instances_grid import (
    DBDMP,
    DENSE,
    KEEPS,
    METHODS,
    ORIGIN,
    PILOT_FOLD,
    PRETRAINED,
    PRIMARY_KEEP,
    SEEDS,
    STOCK,
    STOCK_FULL,
    Labels,
    Pretraining,
    Run,
    datasets_of,
    planned_pilots,
    planned_runs,
)
from benchmarks.partial_instances_results import (
    COLUMNS,
    MEASURES,
    Trained,
    case_table,
    collected,
    dense_dice,
    estimates,
    pooled,
    result_lines,
)
from nnunet_ext import trainers
from nnunet_ext.commands.configure import check_name
from nnunet_ext.demo.run import CommandFailed, CommandRunner
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.settings import configured_settings, validated_settings
from nnunet_ext.preprocessing.raw.new_dataset import NAME

REQUEST = {"epochs": 15, "iterations": 30, "pretraining_epochs": 15, "lrs": [0.001, 0.003], "device": "cpu"}


# ---------------------------------------------------------------------- the grid


def test_primary_runs_come_first_one_seed_after_another():
    runs, primary = planned_runs("full"), planned_runs("primary")
    assert runs[: len(primary)] == primary
    assert [run.seed for run in primary] == [seed for seed in SEEDS for _ in METHODS]
    assert {run.keep for run in primary} == {PRIMARY_KEEP, DENSE}


def test_full_grid_has_every_run_once():
    runs = planned_runs("full")
    assert len(set(runs)) == len(runs)
    counts = Counter((run.method.name, run.keep) for run in runs)
    for method in METHODS:
        for keep in KEEPS:
            expected = 0 if method.is_dense else 5 if method in (STOCK, DBDMP) else 3
            assert counts[method.name, keep] == expected
    assert counts["stock_full", DENSE] == 3


def test_every_seed_of_the_primary_tests_a_patient_of_its_own_and_none_the_pilots():
    assert [Run(STOCK, PRIMARY_KEEP, seed).fold for seed in SEEDS] == [0, 1, 2]
    assert PILOT_FOLD not in {run.fold for run in planned_runs("full")}
    assert {pilot.fold for pilot in planned_pilots([0.1])} == {PILOT_FOLD}


def test_methods_that_are_compared_share_fold_and_labels_of_a_seed():
    for seed in SEEDS:
        runs = [run for run in planned_runs("primary") if run.seed == seed]
        assert len({run.fold for run in runs}) == 1
        assert {run.labels for run in runs if not run.method.is_dense} == {Labels(PRIMARY_KEEP, seed)}
        assert Pretraining(seed).fold == runs[0].fold


def test_names_are_distinct_and_can_name_configurations_and_datasets():
    runs = planned_runs("full")
    trainings = [*runs, *planned_pilots([1e-3, 3e-3]), *(Pretraining(seed) for seed in SEEDS)]
    names = [one.name for one in trainings]
    assert len(set(names)) == len(names)
    for name in names:
        check_name(name)
        assert re.fullmatch(r"[a-z0-9_.]+", name)
    labels = datasets_of([*planned_pilots([1e-3]), *runs])
    assert len({one.number for one in labels}) == len(labels) == 11
    for one in labels:
        assert int(NAME.fullmatch(one.name)[1]) == one.number


def test_trainers_exist():
    from benchmarks import partial_instances_ablations

    for method in METHODS:
        assert hasattr(trainers, method.trainer) or hasattr(partial_instances_ablations, method.trainer)
    assert hasattr(trainers, Pretraining(0).trainer)


def test_ramp_is_a_third_of_the_training_as_in_the_paper():
    assert ramp_epochs(300) == 100
    assert ramp_epochs(15) == 5
    assert ramp_epochs(1) == 1


def test_dataset_is_copied_with_what_is_needed_and_once(tmp_path):
    source, target = tmp_path / "source", tmp_path / "out" / ORIGIN
    write_origin(source)
    (source / "labelsTr" / "a.nii.gz").write_text("1")
    source.chmod(0o555)
    copy_dataset(source, target)
    assert (target / "labelsTr" / "a.nii.gz").read_text() == "1"
    (target / "labelsTr" / "a.nii.gz").write_text("2")
    copy_dataset(source, target)
    assert (target / "labelsTr" / "a.nii.gz").read_text() == "2"
    assert [path.name for path in target.parent.iterdir()] == [ORIGIN]


# ---------------------------------------------------------------------- the figures


def lesions(reference, found, predicted, right):
    return {"reference": reference, "found": found, "predicted": predicted, "right": right}


def trained(**cases):
    """A run from (dice, assd, hd95, reference, found, predicted, right) by case."""
    rows = []
    for values in cases.values():
        means = np.array(values[:3], dtype=float)
        rows.append([*means, *(~np.isnan(means)).astype(float), *values[3:]])
    return Trained(tuple(cases), np.array(rows), lr=0.001, seconds=100.0)


def test_rows_of_an_evaluation_have_its_columns():
    part = {
        "dice": {"a": {"lesion": 0.5}, "b": {"lesion": 0.0}},
        "assd": {"a": {"lesion": 2.0}, "b": {"lesion": None}},
        "hd95": {"a": {"lesion": 8.0}, "b": {"lesion": None}},
        "lesions": {"a": {"lesion": lesions(4, 2, 3, 1)}, "b": {"lesion": lesions(1, 0, 0, 0)}},
        "labels": {"lesion": {"dice_mean": 0.25}},
    }
    cases, table = case_table({"datasets": [part]})
    assert cases == ("a", "b")
    assert dict(zip(COLUMNS, table[0])) == {
        "dice": 0.5,
        "assd": 2,
        "hd95": 8,
        "cases_with_dice": 1,
        "cases_with_assd": 1,
        "cases_with_hd95": 1,
        "reference": 4,
        "found": 2,
        "predicted": 3,
        "right": 1,
    }
    assert table[1, 3:6].tolist() == [1, 0, 0]
    assert dense_dice({"datasets": [part]}) == 0.25


def test_measures_are_those_of_all_lesions_together():
    nothing = float("nan")
    run = trained(a=(0.5, 2, 8, 4, 2, 3, 1), b=(0.0, nothing, nothing, 1, 0, 0, 0))
    found = pooled(run.table)
    assert found["dice"] == 0.25
    assert found["assd"] == 2
    assert found["recall"] == pytest.approx(2 / 5)
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["f1"] == pytest.approx(2 * (2 / 5) * (1 / 3) / (2 / 5 + 1 / 3))


def test_a_model_that_predicts_nothing_has_no_precision_and_f1_zero():
    nothing = float("nan")
    found = pooled(trained(a=(0.0, nothing, nothing, 4, 0, 0, 0)).table)
    assert np.isnan(found["precision"])
    assert np.isnan(found["assd"])
    assert found["f1"] == 0
    assert estimates({Run(STOCK, 0.3, 0): trained(a=(0.0, nothing, nothing, 4, 0, 0, 0))})["assd"]["value"] is None


def test_every_seed_counts_alike_however_many_cases_it_has():
    runs = {
        Run(STOCK, 0.3, 0): trained(a=(0.2, 1, 1, 2, 1, 2, 1), b=(0.2, 1, 1, 2, 1, 2, 1), c=(0.2, 1, 1, 2, 1, 2, 1)),
        Run(STOCK, 0.3, 1): trained(d=(0.6, 3, 3, 2, 2, 2, 2)),
    }
    found = estimates(runs)
    assert found["dice"] == pytest.approx({"value": 0.4, "low": 0.4, "high": 0.4})
    assert found["recall"]["value"] == pytest.approx(0.75)


def test_interval_comes_from_the_cases_of_each_fold():
    rng = np.random.default_rng(1)
    dice = rng.random(20)
    run = trained(**{f"c{n}": (value, 1, 1, 2, 1, 2, 1) for n, value in enumerate(dice)})
    found = estimates({Run(STOCK, 0.3, 0): run})["dice"]
    assert found["value"] == pytest.approx(dice.mean())
    deviation = dice.std() / np.sqrt(20)
    assert found["low"] == pytest.approx(dice.mean() - 1.96 * deviation, abs=0.15 * deviation)
    assert found["high"] == pytest.approx(dice.mean() + 1.96 * deviation, abs=0.15 * deviation)
    # a second seed of another fold with equal values halves the variance; one of the same fold shares the draw
    other = estimates({Run(STOCK, 0.3, 0): run, Run(STOCK, 0.3, 1): run})["dice"]
    assert other["high"] - other["low"] == pytest.approx((found["high"] - found["low"]) / np.sqrt(2), rel=0.1)
    same = estimates({Run(STOCK, 0.3, 0): run, Run(STOCK, 0.3, 3): run})["dice"]
    assert same == pytest.approx(found)


def test_differences_are_paired_by_seed_and_case():
    rng = np.random.default_rng(1)
    dice = rng.random(20)
    nothing = float("nan")
    stock = {Run(STOCK, 0.3, 0): trained(**{f"c{n}": (v, 4, 9, 2, 1, 2, 1) for n, v in enumerate(dice)})}
    better = {
        Run(DBDMP, 0.3, 0): trained(
            **{f"c{n}": (v + 0.1, nothing if n else 3, 9, 2, 2, 2, 2) for n, v in enumerate(dice)}
        )
    }
    found = estimates(better, stock)
    assert found["dice"] == pytest.approx({"value": 0.1, "low": 0.1, "high": 0.1})
    assert found["assd"]["value"] == pytest.approx(-1)
    assert found["recall"]["value"] == pytest.approx(0.5)


def test_runs_of_other_cases_are_not_compared():
    row = (0.2, 1, 1, 2, 1, 2, 1)
    with pytest.raises(ValueError, match="same cases"):
        estimates({Run(DBDMP, 0.3, 0): trained(a=row)}, {Run(STOCK, 0.3, 0): trained(b=row)})


def test_only_seeds_that_both_have_are_compared():
    row, better = (0.2, 1, 1, 2, 1, 2, 1), (0.7, 1, 1, 2, 1, 2, 1)
    content = collected(
        {
            Run(STOCK, 0.3, 0): trained(a=row),
            Run(DBDMP, 0.3, 0): trained(a=better),
            Run(DBDMP, 0.3, 1): trained(b=row),
            Run(STOCK_FULL, DENSE, 0): trained(a=better),
        },
        {},
    )
    rows = {row["method"]: row for row in content["rows"]}
    assert rows["dbdmp"]["seeds"] == [0, 1]
    assert rows["dbdmp"]["minus"]["stock"]["seeds"] == [0]
    assert rows["dbdmp"]["minus"]["stock"]["dice"]["value"] == pytest.approx(0.5)
    assert rows["stock_full"]["minus"]["dbdmp"]["dice"]["value"] == pytest.approx(0)
    assert "stock" not in rows["stock"]["minus"]


def test_result_says_what_was_not_run():
    row = (0.2, 1.25, 1, 2, 1, 2, 1)
    runs = {run: trained(a=row) for run in planned_runs("primary") if (run.method.name, run.seed) != ("one_decoder", 2)}
    content = collected(runs, {"stock": {0.001: 0.5}})
    total = len(planned_runs("full"))
    assert len(content["finished_runs"]) + len(content["missing_runs"]) == total
    assert content["missing"] == [
        "30 % of the lesions annotated: stock (seed 3, 4), dbdmp (seed 3, 4), one_decoder (seed 2)",
        "50 % of the lesions annotated: everything",
    ]
    text = "\n".join(result_lines(content, REQUEST))
    assert f"Finished: {len(runs)} of {total} trainings" in text
    assert "- 50 % of the lesions annotated: everything" in text
    assert "## 30 % of the lesions annotated" in text
    assert "## 50 %" not in text
    assert re.search(r"\| dbdmp +\| 0\.200 \[0\.200, 0\.200\] \| 1\.2 \[1\.2, 1\.2\]", text)
    assert text.count("Minus `stock`:") == text.count("Minus `dbdmp`:") == 1


def test_complete_grid_has_nothing_missing():
    row = (0.2, 1, 1, 2, 1, 2, 1)
    content = collected({run: trained(a=row) for run in planned_runs("full")}, {})
    assert content["missing"] == content["missing_runs"] == []
    text = "\n".join(result_lines(content, REQUEST))
    assert "Not run:" not in text
    assert "## 50 % of the lesions annotated" in text


# ---------------------------------------------------------------------- the whole of it, with stand-ins


def write_origin(folder):
    for part in partial_instances.PARTS:
        (folder / part).mkdir(parents=True)
    for name in ("dataset.json", "splits_final.json"):
        (folder / name).write_text("{}")


class Programs:
    """What stands in for nnU-Net's commands and for those of this package that need data."""

    def __init__(self):
        self.ran = []
        self.fail_at = None
        self.failure = CommandFailed("it failed")

    def runner(self):
        programs = self

        class Runner(CommandRunner):
            def run(self, name, command):
                self.shown.append(" ".join(command))
                programs.note(name, command)
                folders = {key: Path(self.environment[f"nnUNet_{key}"]) for key in ("raw", "preprocessed")}
                if command[1] == "simulate":
                    (folders["raw"] / command[5]).mkdir()
                else:
                    (raw,) = folders["raw"].glob(f"Dataset{command[2]}_*")
                    (folders["preprocessed"] / raw.name).mkdir()
                    configurations = {"3d_fullres": {"architecture": {}}}
                    file = folders["preprocessed"] / raw.name / "nnUNetPlans.json"
                    write_json(file, {"configurations": configurations})

        return Runner

    def note(self, name, command):
        self.ran.append((name, list(command)))
        if name == self.fail_at:
            raise self.failure

    def carry_out(self, command, *, environment, log=None):
        """In place of `in_process.run_command`."""
        if command[1] == "configure":
            return run_command(command, environment=environment)
        if command[1] == "evaluate":
            self.note(log.stem, command)
            return self.evaluate(command)
        (folder,) = Path(environment["nnUNet_preprocessed"]).glob(f"Dataset{command[3]}_*")
        plans = read_json(folder / "nnUNetPlans.json")
        plans["configurations"]["3d_fullres_quick"] = {"inherits_from": "3d_fullres"}
        return write_json(folder / "nnUNetPlans.json", plans)

    def train(self, command, *, resume, environment, log):
        self.note(log.stem, [*command, *(["--c"] if resume else [])])
        _, dataset, configuration, fold, _, trainer, _, plans, *_ = command
        (preprocessed,) = Path(environment["nnUNet_preprocessed"]).glob(f"Dataset{dataset}_*")
        settings = configured_settings(read_json(preprocessed / f"{plans}.json"), configuration)
        validated_settings(settings, where="this test")
        folder = Path(environment["nnUNet_results"]) / preprocessed.name / f"{trainer}__{plans}__{configuration}"
        (folder / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
        logging = {"epoch_start_timestamps": [0.0, 10.0], "epoch_end_timestamps": [3.0, 15.0]}
        checkpoint = {
            "network_weights": {"w": torch.zeros(1)},
            "logging": logging,
            "nnunet_ext": {"settings": settings},
        }
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")

    def evaluate(self, command):
        model, fold = Path(command[2]), command[command.index("-f") + 1]
        assert (model / f"fold_{fold}" / "checkpoint_final.pth").is_file()
        out = Path(command[command.index("-o") + 1])
        out.mkdir()
        # in the stand-in's world the higher learning rate is the better one, and DBDMP is better than stock
        value = 0.3 if "0.003" in out.name else 0.6 if "DBDMP" in model.name else 0.2
        case = f"tile_of_fold_{fold}"
        part = {name: {case: {"lesion": value}} for name in ("dice", "assd", "hd95")}
        part["lesions"] = {case: {"lesion": lesions(10, round(10 * value), 5, 4)}}
        part["labels"] = {"lesion": {"dice_mean": value}}
        write_json(out / "evaluation.json", {"datasets": [part]})

    def names(self, start):
        return [name for name, _ in self.ran if name.startswith(start)]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    write_origin(tmp_path / "raw" / ORIGIN)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    stand_in = Programs()
    monkeypatch.setattr(experiment, "CommandRunner", stand_in.runner())
    monkeypatch.setattr(in_process, "train", stand_in.train)
    monkeypatch.setattr(in_process, "run_command", stand_in.carry_out)
    monkeypatch.setattr(steps, "commit", lambda repository: "abc")
    return stand_in


def arguments(tmp_path, *more):
    return ["--out", str(tmp_path / "out"), "--device", "cpu", "--until", "primary", *more]


def test_one_command_does_everything_and_a_second_one_nothing(tmp_path, programs):
    assert main(arguments(tmp_path)) == 0
    primary, pilots = planned_runs("primary"), planned_pilots([1e-3, 3e-3])
    expected = [f"train_{one.name}" for one in [*pilots, *primary]]
    for seed in SEEDS:  # each pre-training right before its run
        expected.insert(expected.index(f"train_{Run(PRETRAINED, 0.3, seed).name}"), f"train_pretraining_s{seed}")
    assert programs.names("train_") == expected
    assert programs.names("evaluate_") == [f"evaluate_{one.name}" for one in [*pilots, *primary]]
    content = read_json(tmp_path / "out" / "partial_instances.json")
    assert content["finished_runs"] == [run.name for run in primary]
    assert content["commit"] == "abc"
    rows = {row["method"]: row for row in content["rows"]}
    assert list(rows) == [method.name for method in METHODS]
    assert rows["dbdmp"]["minus"]["stock"]["recall"]["value"] == pytest.approx(0.4)
    assert rows["dbdmp"]["median_training_seconds"] == 8
    programs.ran.clear()
    assert main(arguments(tmp_path)) == 0
    assert programs.ran == []
    assert read_json(tmp_path / "out" / "partial_instances.json")["rows"] == content["rows"]


def test_runs_get_their_settings_fold_labels_and_learning_rate(tmp_path, programs):
    main(arguments(tmp_path, "--epochs", "6", "--steps", "7", "--pretrain-epochs", "4"))
    out = tmp_path / "out"

    def settings(run):
        file = out / "nnUNet_preprocessed" / run.labels.name / "nnUNetPlans.json"
        return configured_settings(read_json(file), run.name)

    run = Run(DBDMP, 0.3, 2)
    found = settings(run)
    assert (found["num_epochs"], found["num_iterations_per_epoch"], found["seed"]) == (6, 7, 2)
    assert found["dbdmp"] == {"ramp_epochs": 2}
    # stock's pilot is better with the higher rate, DBDMP's with the lower one
    assert found["initial_lr"] == 0.001
    assert settings(Run(STOCK, 0.3, 2))["initial_lr"] == settings(Run(STOCK_FULL, DENSE, 2))["initial_lr"] == 0.003
    assert "dbdmp" not in settings(Run(STOCK, 0.3, 2))
    without = next(method for method in METHODS if method.name == "no_pseudo_labels")
    assert settings(Run(without, 0.3, 1))["dbdmp"] == {"ramp_epochs": 2, "pseudo_label_weight": 0.0}
    assert settings(Pretraining(1))["num_epochs"] == 4
    commands = dict(programs.ran)
    assert commands[f"train_{run.name}"] == (
        f"nnUNetv2_train 732 {run.name} 2 -tr nnUNetTrainerDBDMP -p nnUNetPlans -device cpu".split()
    )
    assert commands[f"train_{Run(STOCK_FULL, DENSE, 1).name}"][1:4] == ["800", "stock_full_s1", "1"]
    assert commands["train_pilot_stock_lr0.001"][1:4] == ["733", "pilot_stock_lr0.001", "3"]
    assert commands["simulate_Dataset732_MSLesionsKeep30Seed2"] == (
        f"nnunet_ext simulate instances {ORIGIN} -o Dataset732_MSLesionsKeep30Seed2 --keep 0.3 --seed 2".split()
    )
    evaluated = commands[f"evaluate_{run.name}"]
    assert " ".join(evaluated[3:12]) == (
        "--on 732:val --labels labelsTr_dense --instances instancesTr --metrics dice surface"
    )


def test_pretrained_runs_start_from_the_pretraining_of_their_seed(tmp_path, programs):
    main(arguments(tmp_path))
    commands = dict(programs.ran)
    for seed in SEEDS:
        command = commands[f"train_{Run(PRETRAINED, 0.3, seed).name}"]
        weights = Path(command[command.index("-pretrained_weights") + 1])
        assert weights.is_file()
        folder = f"nnUNetTrainerModelsGenesis__nnUNetPlans__pretraining_s{seed}"
        assert (weights.parents[1].name, weights.parent.name) == (folder, f"fold_{seed}")
    assert sum("-pretrained_weights" in command for command in commands.values()) == len(SEEDS)


def test_full_grid_pretrains_once_for_both_shares(tmp_path, programs):
    assert main([*arguments(tmp_path)[:-1], "full"]) == 0
    assert programs.names("train_pretraining") == [f"train_pretraining_s{seed}" for seed in SEEDS]
    assert read_json(tmp_path / "out" / "partial_instances.json")["missing"] == []


def test_failed_command_leaves_the_results_of_what_is_there_and_is_repeated(tmp_path, programs, capsys):
    programs.fail_at = f"train_{planned_runs('primary')[2].name}"
    assert main(arguments(tmp_path)) == 1
    assert "failed" in capsys.readouterr().err
    content = read_json(tmp_path / "out" / "partial_instances.json")
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
    assert len(read_json(tmp_path / "out" / "partial_instances.json")["finished_runs"]) == 1


def test_interrupted_training_goes_on_from_its_checkpoint(tmp_path, programs):
    run = planned_runs("primary")[0]
    programs.fail_at = f"train_{run.name}"
    main(arguments(tmp_path))
    model = f"{run.method.trainer}__nnUNetPlans__{run.name}"
    fold = tmp_path / "out" / "nnUNet_results" / run.labels.name / model / f"fold_{run.fold}"
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
    (tmp_path / "out" / "partial_instances.json").unlink()
    programs.ran.clear()
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert programs.ran == []
    assert "goes on from here" in capsys.readouterr().out
    content = read_json(tmp_path / "out" / "partial_instances.json")
    assert content["finished_runs"] == [planned_runs("primary")[0].name]


def test_before_anything_is_scored_there_are_no_results(tmp_path, programs, capsys):
    assert main(arguments(tmp_path, "--max-minutes", "0")) == 0
    assert "Nothing is scored yet" in capsys.readouterr().out
    assert not (tmp_path / "out" / "partial_instances.json").exists()


def test_other_request_in_the_same_folder_is_refused(tmp_path, programs, capsys):
    main(arguments(tmp_path, "--max-minutes", "0"))
    assert main(arguments(tmp_path, "--pretrain-epochs", "6")) == 2
    assert "Choose another folder" in capsys.readouterr().err


def test_missing_dataset_is_wrong_usage_that_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(arguments(tmp_path)) == 2
    assert ORIGIN in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_name_no_folder_of_this_machine(tmp_path, programs, monkeypatch):
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "of_the_user"))
    main(arguments(tmp_path, "--results", str(tmp_path / "results")))
    for name in ("partial_instances.json", "partial_instances.md"):
        text = (tmp_path / "results" / name).read_text()
        assert str(tmp_path) not in text
        assert str(partial_instances.REPOSITORY) not in text
        assert "nnUNet_extTrainer=$(nnunet_ext path):benchmarks/ablations" in text


def test_results_have_a_table_of_the_pilot_and_all_measures(tmp_path, programs):
    main(arguments(tmp_path))
    text = (tmp_path / "out" / "partial_instances.md").read_text()
    assert re.search(r"\| stock +\| +0\.200 \| +0\.300 \| +0\.003 \|", text)
    assert re.search(r"\| dbdmp +\| +0\.600 \| +0\.300 \| +0\.001 \|", text)
    header = next(line for line in text.splitlines() if "lesion F1" in line)
    assert len(header.split("|")) == 2 + 1 + len(MEASURES) + 4
