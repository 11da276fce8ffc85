"""The engine with stand-ins for the commands: what it does, leaves out, repeats, and writes."""

import gzip
import math
import os
import re
import shutil
import zipfile
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.__main__ import EVIDENCE, RESULTS, main, planned
from benchmarks.data.folds import PatientFolds
from benchmarks.engine.children import Children, CommandFailed
from benchmarks.engine.drawing import curves_figure, trade_off_figure
from benchmarks.engine.evidence import evidence_page, primary_lines, primary_results
from benchmarks.engine.experiment import Comparison, Test, TradeOff, experiment_names, load_experiment
from benchmarks.engine.journal import Journal, OutOfTime, open_folder
from benchmarks.engine.operating_points import mean_curve, rows_of_points
from benchmarks.engine.pilots import next_rate, searched_rates
from benchmarks.engine.progress import Progress
from benchmarks.engine.results import (
    Judged,
    comparison_lines,
    corrected_p,
    is_rendered,
    origin_lines,
    page_lines,
    render,
    whole_runs,
    write_results,
    write_table,
)
from benchmarks.engine.runner import Runner
from benchmarks.engine.statistics import Estimate, Figures, estimate, figure, most_kept
from nnunet_ext.arguments import parse_settings
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import COLUMNS, read_scores, write_scores
from nnunet_ext.files import read_json, write_json
from nnunet_ext.plans.settings import validated_settings
from nnunet_ext.registry import TRAINERS
from support.tiny_experiment import EXPERIMENT, TEACHER, groups, patient_of

TINY = str(Path(__file__).parents[1] / "support" / "tiny_experiment.py")


class Commands:
    """Stand-ins for nnU-Net's commands and this package's."""

    def __init__(self):
        self.ran = []
        self.failing = ""
        self.dice = lambda name: 0.8
        # threshold and F1; precision and recall are as high
        self.points = {"voxel": [(0.1, 0.9), (0.5, 0.2), ("", 0.95)], "lesion": [(0.1, 0.2), (0.7, 0.6), ("", 0.8)]}

    def __call__(self, command, log):
        self.ran.append((log.stem, command))
        if self.failing and self.failing in log.stem:
            raise CommandFailed("it failed")
        getattr(self, log.stem.split("_")[0])(command, log.parents[1])

    def names(self, start=""):
        return [name for name, _ in self.ran if name.startswith(start)]

    def command(self, name):
        return dict(self.ran)[name]

    def plan(self, command, out):
        number = command[command.index("-t") + 1] if "-t" in command else command[2]
        (raw,) = (out / "nnUNet_raw").glob(f"Dataset{number}_*")
        folder = out / "nnUNet_preprocessed" / raw.name
        stages = {"features_per_stage": [8, 16, 32, 64], "strides": [1, 2, 2, 2], "n_conv_per_stage_decoder": [1, 1, 1]}
        plans = {"configurations": {"2d_quick": {"architecture": {"arch_kwargs": stages}, "patch_size": [9, 9]}}}
        if "-s" in command:
            (source,) = (out / "nnUNet_preprocessed").glob(f"Dataset{command[command.index('-s') + 1]}_*")
            plans = read_json(source / "nnUNetPlans.json")
        write_json(folder / "nnUNetPlans.json", plans)
        write_json(folder / "dataset_fingerprint.json", {})

    def preset(self, command, out):
        pass

    preprocess = configure = preset

    def train(self, command, out):
        if command[0] == "mix":
            return Path(command[2]).touch()
        _, dataset, name, fold, _, trainer, *_ = command
        (raw,) = (out / "nnUNet_raw").glob(f"Dataset{dataset}_*")
        folder = out / "nnUNet_results" / raw.name / f"{trainer}__nnUNetPlans__{name}" / f"fold_{fold}"
        folder.mkdir(parents=True, exist_ok=True)
        for file in (folder / "checkpoint_final.pth", folder.parent / "plans.json", folder.parent / "dataset.json"):
            file.touch()
        return None

    def evaluate(self, command, out):
        model, folder = Path(command[2]), Path(command[command.index("-o") + 1])
        dataset, fold = command[command.index("--on") + 1].split(":")[0], int(command[command.index("-f") + 1])
        (preprocessed,) = (out / "nnUNet_preprocessed").glob(f"Dataset{dataset}_*")
        cases = read_json(preprocessed / "splits_final.json")[fold]["val"]
        dice = self.dice(model.name.split("__")[2])
        folder.mkdir()
        parts = (0.0, 0.0) if math.isnan(dice) else (dice, 1.0)
        rows = [("model", "", "D", "", case, case, "square", "dice", *parts) for case in cases]
        write_scores(folder / "scores.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
        if "--thresholds" in command:
            found = self.points(model.name.split("__")[2]) if callable(self.points) else self.points
            rows = [(level, *point) for level, points in found.items() for point in points]
            table = pd.DataFrame(rows, columns=["level", "threshold", "f1"])
            table = table.assign(found=table.f1 * 10, right=table.f1 * 20, reference=10, predicted=20)
            table.to_csv(folder / "operating_points.csv", index=False)


@pytest.fixture
def commands(monkeypatch):
    found = Commands()
    monkeypatch.setattr(Children, "run", lambda self, command, log: found(command, log))
    return found


@pytest.fixture
def out(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    open_folder(folder, {})
    monkeypatch.setenv("nnUNet_raw", str(folder / "nnUNet_raw"))
    return folder


def run(out, experiment=EXPERIMENT, *, device="cpu", at_once=1, methods=(), **options):
    runner = Runner(experiment, Journal(out, **options), device)
    runner.run(at_once=at_once, methods=methods)
    return runner


# ---------------------------------------------------------------------- declarations


@pytest.mark.parametrize("name", experiment_names())
def test_declared_experiment_has_a_plan_of_valid_commands(name, tmp_path, capsys):
    assert main(["run", name, "--out", str(tmp_path / "x"), "--dry-run"]) == 0
    assert not (tmp_path / "x").exists()
    printed = capsys.readouterr().out
    assert "nnUNetv2_train" in printed
    experiment = load_experiment(name)
    trainers = {entry.name for entry in TRAINERS}
    assert {method.trainer for method in experiment.methods} <= trainers
    for step, command in planned(experiment, tmp_path / "x", "cpu").planned.items():
        if step.startswith("configure_"):
            words = command.replace("'", "").split()
            settings = parse_settings(words[words.index("--name") + 2 :])
            validated_settings(settings, where=step)


@pytest.mark.parametrize("name", experiment_names())
def test_declaration_is_one_short_file(name):
    file = Path(__file__).parents[2] / "benchmarks" / "experiments" / f"{name}.py"
    assert len(file.read_text().splitlines()) <= 150


@pytest.mark.parametrize(("name", "message"), [("nothing", "is no experiment"), ("nothing.py", "is not a Python file")])
def test_unknown_experiment_is_wrong_usage(name, message, tmp_path, capsys):
    assert main(["status", name, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_comparison_of_an_unknown_method_is_refused():
    with pytest.raises(UserError, match="unknown: .*'nothing'"):
        replace(EXPERIMENT, comparisons=(Comparison("stock", "nothing"),))


def test_unknown_metric_is_refused():
    with pytest.raises(UserError, match="there is no metric hd99"):
        replace(EXPERIMENT, comparisons=(Comparison("MixUp", "stock", "hd99"),))


def test_a_pilot_by_a_distance_is_refused():
    with pytest.raises(UserError, match="a pilot by hd95 would prefer rates that miss labels"):
        replace(EXPERIMENT, pilot=replace(EXPERIMENT.pilot, metric="hd95"))


def test_experiment_without_learning_rate_is_refused():
    with pytest.raises(UserError, match="lr or a pilot"):
        replace(EXPERIMENT, pilot=None)


def test_curves_are_of_whole_models():
    parts = tuple(replace(one, labels=("square",)) for one in EXPERIMENT.methods)
    with pytest.raises(UserError, match="leave out --thresholds, or part_of and labels"):
        replace(EXPERIMENT, methods=parts, tests=(Test("squares", options=("--thresholds",)),))


@pytest.mark.parametrize("asks", ["level", "decided_by"])
def test_a_threshold_can_only_be_chosen_where_there_are_some(asks):
    changed = {"pilot": replace(EXPERIMENT.pilot, level="voxel")}
    if asks == "decided_by":
        changed = {"tests": (Test("squares", decided_by="voxel"),)}
    with pytest.raises(UserError, match="the test of the pilot needs --thresholds"):
        replace(EXPERIMENT, **changed)


def test_missing_original_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert main(["run", "scribbles", "--out", str(tmp_path / "x"), "--device", "cpu"]) == 2
    assert "Dataset027_ACDCScribble, which is not in nnUNet_raw" in capsys.readouterr().err


# ---------------------------------------------------------------------- running


def test_whole_seeds_are_trained_one_after_another_and_what_decides_first(out, commands):
    run(out)
    trained = [name for name in commands.names("train_") if "pilot" not in name]
    primary = ["stock_6steps_s0", "taught_6steps_s0", "stock_6steps_s1", "taught_6steps_s1"]
    assert trained == [f"train_{name}" for name in [*primary, "mixup_6steps_s0"]]


def test_further_seeds_are_for_what_decides(out, commands):
    run(out, replace(EXPERIMENT, more_seeds=(5,)))
    trained = [name for name in commands.names("train_") if name.endswith("_s5")]
    assert trained == ["train_stock_6steps_s5", "train_taught_6steps_s5"]
    folds = read_json(out / "nnUNet_preprocessed" / "Dataset990_Squares" / "splits_final.json")
    assert len(folds) == 1 + 3
    assert commands.command("train_stock_6steps_s5")[3] == "3"


def test_a_seed_is_finished_in_all_lengths_that_decide_before_the_next_one():
    longer = Comparison("taught", "stock", steps=(6, 12), is_primary=True)
    methods = tuple(replace(one, steps=(6, 12)) if one is TEACHER else one for one in EXPERIMENT.methods)
    order = replace(EXPERIMENT, methods=methods, comparisons=(longer,)).in_running_order()
    decided = [(one.method.name, one.steps, one.seed) for one in order[:4]]
    assert decided == [("taught", 6, 0), ("stock", 12, 0), ("taught", 6, 1), ("stock", 12, 1)]


def test_curves_of_a_trade_off_decide():
    trade_off = TradeOff("squares", "squares", {"a": ("MixUp",), "b": ("taught",)}, ours="a", theirs="b")
    order = replace(EXPERIMENT, trade_off=trade_off, comparisons=()).in_running_order()
    assert [one.method.name for one in order] == ["MixUp", "taught", "taught", "stock", "stock"]


def test_network_is_changed_and_plans_are_taken_over(out, commands):
    run(out)
    plans = read_json(out / "nnUNet_preprocessed" / "Dataset990_Squares" / "nnUNetPlans.json")["configurations"]
    assert plans["2d_quick"]["patch_size"] == [32, 32]
    kwargs = plans["2d_quick"]["architecture"]["arch_kwargs"]
    assert (kwargs["n_stages"], kwargs["strides"], kwargs["n_conv_per_stage_decoder"]) == (3, [1, 2, 2], [1, 1])
    assert "-s 990 -t 992" in " ".join(commands.command("plan_Dataset992_Taught"))
    assert (out / "nnUNet_preprocessed" / "Dataset992_Taught" / "dataset_fingerprint.json").is_file()


def test_network_that_a_dataset_takes_over_can_be_wider(out, commands):
    wide = replace(EXPERIMENT.methods[2].data, width=1.3)
    methods = tuple(replace(one, data=wide) if number == 2 else one for number, one in enumerate(EXPERIMENT.methods))
    run(out, replace(EXPERIMENT, methods=methods))
    plans = read_json(out / "nnUNet_preprocessed" / "Dataset992_Taught" / "nnUNetPlans.json")["configurations"]
    assert plans["2d_quick"]["architecture"]["arch_kwargs"]["features_per_stage"] == [10, 21, 42]
    state = read_json(out / "steps.json")
    del state["finished"]["widen_Dataset992_Taught"]  # killed before it was noted
    write_json(out / "steps.json", state)
    run(out, replace(EXPERIMENT, methods=methods))
    assert read_json(out / "nnUNet_preprocessed" / "Dataset992_Taught" / "nnUNetPlans.json")["configurations"] == plans


def test_start_and_teacher_are_models_of_the_same_seed(out, commands):
    run(out)
    start = commands.command("train_mixup_6steps_s0")[-1]
    assert start.endswith("nnUNetTrainerConfigurable__nnUNetPlans__stock_6steps_s0/fold_1/checkpoint_final.pth")
    assert {path.name for path in (out / "nnUNet_raw").glob("*Taught")} == {"Dataset992_Taught", "Dataset993_Taught"}
    setting = replace(EXPERIMENT.methods[1], start_by="fine_tuning.source")
    runner = Runner(replace(EXPERIMENT, methods=(TEACHER, setting), comparisons=()), Journal(out), "cpu")
    training = next(one for one in runner.experiment.trainings() if one.method is setting)
    assert runner.settings(training, 1e-2)["fine_tuning.source"].startswith("$nnUNet_results/Dataset990_Squares/")


def test_method_may_be_made_by_a_command_from_its_start(out, commands):
    mixed = replace(EXPERIMENT.methods[1], command=lambda start, made: ["mix", str(start), str(made)])
    experiment = replace(EXPERIMENT, methods=(TEACHER, mixed), comparisons=())
    run(out, experiment)
    program, start, made = commands.command("train_mixup_6steps_s0")
    assert program == "mix"
    assert "stock_6steps_s0" in start
    assert "mixup_6steps_s0/fold_1" in made
    commands.ran = []
    run(out, experiment)  # goes on where it was
    assert commands.ran == []


@pytest.mark.parametrize(("level", "threshold"), [("voxel", "0.1"), ("lesion", "0.7")])
def test_every_method_is_scored_at_the_threshold_that_its_own_pilot_has_chosen(out, commands, level, threshold):
    pilot = replace(EXPERIMENT.pilot, test=Test("curve", options=("--thresholds",)))
    runner = run(out, replace(EXPERIMENT, tests=(Test("squares", decided_by=level),), pilot=pilot))
    for name in ("stock_6steps_s0", "mixup_6steps_s0", "taught_6steps_s1"):
        command = commands.command(f"evaluate_{name}__squares")
        assert command[command.index("--threshold") + 1] == threshold
    # of a method of another's family as well, at the family's learning rate
    (tried,) = [name for name in commands.names("train_pilot") if "taught" in name]
    assert tried == "train_pilot_taught_6steps_lr0.001_s0"
    assert "--threshold" not in commands.command("evaluate_pilot_taught_6steps_lr0.001_s0__curve")
    write_results(runner, out / "results", ["run"])
    page = (out / "results" / "tiny.md").read_text()
    assert f"taught, 6 steps: threshold {threshold}" in page
    rates = page.partition("## Learning rates")[2].splitlines()
    assert [line.split(" | ")[0] for line in rates if "6 steps" in line and "|" in line] == ["| stock, 6 steps"]


def test_rates_can_be_chosen_by_the_best_f1_of_all_thresholds(out, commands):
    """The mean over the pilot's trainings counts: 0.1 is best for the first, 0.7 for both together."""
    f1 = {"lr0.1_s0": [0.9, 0.6], "lr0.1_s1": [0.2, 0.7]}
    commands.dice = lambda name: 0.1 if "lr0.1_" in name else 0.8
    commands.points = lambda name: {
        "lesion": list(zip((0.1, 0.7), next((f for run, f in f1.items() if run in name), [0.3, 0.3])))
    }
    pilot = replace(EXPERIMENT.pilot, test=Test("curve", options=("--thresholds",)), level="lesion", seeds=(0, 1))
    drawn = []
    make = EXPERIMENT.methods[2].data.make
    noted = replace(EXPERIMENT.methods[2].data, make=lambda folder, draw: drawn.append(draw) or make(folder, draw))
    methods = (*EXPERIMENT.methods[:2], replace(EXPERIMENT.methods[2], data=noted))
    tests = (Test("squares", decided_by="lesion"),)
    collected(run(out, replace(EXPERIMENT, methods=methods, tests=tests, pilot=pilot)), out)
    assert "initial_lr=0.1" in commands.command("configure_stock_6steps_s0")
    command = commands.command("evaluate_stock_6steps_s0__squares")
    assert command[command.index("--threshold") + 1] == "0.7"
    assert [draw.threshold for draw in drawn if draw.fold] == [0.7, 0.7], "a teacher decides as it is scored"
    page = (out / "tiny.md").read_text()
    assert "| stock, 6 steps | 0.300 | 0.650 | 0.1 (at the edge) |" in page
    assert "F1 of lesions at the best threshold" in page


def test_precision_against_recall_is_in_the_table_and_drawn(out, commands):
    curve = Test("all", metrics=("dice", "lesions"), options=("--thresholds",), methods=("stock",))
    experiment = replace(EXPERIMENT, tests=(*EXPERIMENT.tests, curve))
    collected(run(out, experiment), out)
    scores = read_scores(out / "tiny.csv.gz")
    of_run = scores[(scores.run == "stock, 6 steps") & (scores.dataset == "all")]
    assert mean_curve(of_run, "lesion").to_dict("list") == {
        "threshold": [0.1, 0.7],
        "recall": [0.2, 0.6],
        "precision": [0.2, 0.6],
        "f1": pytest.approx([0.2, 0.6]),
    }
    assert "](tiny_precision_recall.png)" in (out / "tiny.md").read_text()
    (axes,) = curves_figure(experiment, [curve], scores).axes
    assert [line.get_label() for line in axes.lines] == ["stock, 6 steps"]
    assert [tuple(axis) for axis in axes.lines[0].get_data()] == [(0.2, 0.6), (0.2, 0.6)]
    assert (out / "tiny_precision_recall.png").read_bytes().startswith(b"\x89PNG")


def test_mean_curve_is_over_the_seeds_and_counts_an_undefined_f1_as_nothing():
    points = {"0": [(0.5, 2, 4, 1, 4), (0.9, 0, 4, 0, 0)], "1": [(0.5, 4, 4, 2, 2), (0.9, 4, 4, 2, 2)]}
    columns = ["threshold", "found", "reference", "right", "predicted"]
    rows = [
        rows_of_points(pd.DataFrame(of_seed, columns=columns).assign(level="lesion")).assign(seed=seed)
        for seed, of_seed in points.items()
    ]
    curve = mean_curve(pd.concat(rows, ignore_index=True), "lesion")
    assert curve.recall.to_list() == [0.75, 0.5]
    assert curve.precision.to_list() == [0.625, 1.0]  # of the seed that predicts something
    assert curve.f1.to_list() == pytest.approx([(1 / 3 + 1) / 2, 0.5])


def test_a_pilot_that_finds_nothing_chooses_no_threshold(out, commands):
    commands.points = {"lesion": [(0.1, 0.0)]}
    pilot = replace(EXPERIMENT.pilot, test=Test("curve", options=("--thresholds",)))
    failed = run(out, replace(EXPERIMENT, tests=(Test("squares", decided_by="lesion"),), pilot=pilot)).journal.state
    assert any("finds no lesion at any threshold" in reason for reason in failed["failed"].values())


def test_a_pilot_without_a_score_leaves_out_only_its_method(out, commands):
    commands.dice = lambda name: math.nan if "pilot_mixup" in name else 0.8
    mixup = replace(EXPERIMENT.methods[1], lr=None)
    state = run(out, replace(EXPERIMENT, methods=(mixup, *EXPERIMENT.methods[::2]))).journal.state
    (reason,) = state["failed"].values()
    assert "No training of MixUp's pilot has a dice. Give another Pilot.first." in reason
    assert not commands.names("train_mixup")
    commands.dice = lambda name: 0.8
    pilot = replace(EXPERIMENT.pilot, rates=(*EXPERIMENT.pilot.rates, 1.0, 10.0), first={"MixUp": 10.0, "stock": 1e-2})
    again = run(out, replace(EXPERIMENT, methods=(mixup, *EXPERIMENT.methods[::2]), pilot=pilot)).journal
    assert again.state["failed"] == Journal(out).state["failed"] == {}
    assert commands.names("train_mixup")
    assert {f"train_{name}_6steps_s{seed}" for name in ("stock", "taught") for seed in (0, 1)} <= set(commands.names())


def test_setting_may_depend_on_the_epochs(out):
    method = replace(TEACHER, settings={"dbdmp.ramp_epochs": lambda epochs: 10 * epochs})
    runner = Runner(replace(EXPERIMENT, methods=(method,), comparisons=()), Journal(out), "cpu")
    assert runner.settings(next(runner.experiment.trainings()), 1e-2)["dbdmp.ramp_epochs"] == 30


def test_finished_steps_are_not_repeated(out, commands):
    run(out)
    commands.ran.clear()
    run(out)
    assert commands.ran == []


def test_interrupted_training_goes_on_from_its_checkpoint(out, commands):
    commands.failing = "train_stock_6steps_s0"
    run(out)
    assert "--c" not in commands.command("train_stock_6steps_s0")
    fold = out / "nnUNet_results/Dataset990_Squares/nnUNetTrainerConfigurable__nnUNetPlans__stock_6steps_s0/fold_1"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    commands.failing = ""
    run(out)
    assert commands.command("train_stock_6steps_s0")[-1] == "--c"


def test_failed_training_stops_only_what_needs_it(out, commands):
    commands.failing = "train_stock_6steps_s0"
    states = run(out).journal.state
    assert list(states["failed"]) == ["train_stock_6steps_s0"]
    assert "train_taught_6steps_s0" not in commands.names()
    assert "train_stock_6steps_s1" in commands.names()
    assert commands.names().count("train_stock_6steps_s0") == 1
    commands.failing = ""
    states = run(out).journal.state
    assert not states["failed"]
    assert "train_taught_6steps_s0" in states["finished"]


def test_finished_step_that_is_declared_otherwise_now_is_refused(out, commands):
    run(out)
    changed = replace(EXPERIMENT, settings={"weight_decay": 0.1})
    with pytest.raises(
        UserError, match=r"configure_pilot_stock_6steps_lr0.01_s0 has been done otherwise .* Now: .*weight_decay"
    ):
        run(out, changed)
    planned(changed, out, "cpu")  # its status can be told


def test_folds_that_are_declared_behind_the_others_are_added(out, commands):
    run(out)
    files = [out / part / "Dataset990_Squares" / "splits_final.json" for part in ("nnUNet_raw", "nnUNet_preprocessed")]
    before = read_json(files[0])
    run(out, replace(EXPERIMENT, more_seeds=(5,)))
    for file in files:
        assert read_json(file)[:-1] == before
    assert commands.command("train_stock_6steps_s5")[3] == str(len(before))
    commands.ran.clear()
    run(out)  # fewer are those that are there
    assert commands.ran == []


@pytest.mark.parametrize(
    "changed", [{"more_seeds": (5,)}, {"folds": PatientFolds(groups, tested=1)}, {"sizes": (3, 2)}]
)
def test_folds_that_are_others_now_are_refused(out, commands, changed):
    """With several sizes, that of the last seed would be trained on the patients of another size and seed."""
    sized = replace(EXPERIMENT, sizes=(2, 3))
    run(out, sized)
    with pytest.raises(UserError, match=r"splits_final.json: fold \d has other cases than the experiment says now"):
        run(out, replace(sized, **changed))
    planned(replace(sized, **changed), out, "cpu")  # its status can be told


def without_declarations(out):
    """Make the journal one of an earlier version, and return it."""
    state = read_json(out / "steps.json")
    for record in state["finished"].values():
        record.pop("declared", None)
    write_json(out / "steps.json", state)
    return state


def test_network_that_is_declared_otherwise_now_is_refused(out, commands):
    def wider(width):
        wide = replace(EXPERIMENT.methods[2], data=replace(EXPERIMENT.methods[2].data, width=width))
        return replace(EXPERIMENT, methods=(*EXPERIMENT.methods[:2], wide))

    run(out, wider(1.3))
    with pytest.raises(
        UserError, match=r"plan_Dataset99\d_Taught has been done otherwise .* Now: .*features times 1.5"
    ):
        run(out, wider(1.5))
    patch = replace(EXPERIMENT.network, changes={"patch_size": [16, 16], "batch_size": 2})
    changed = replace(wider(1.3), network=patch)
    with pytest.raises(UserError, match=r"plan_Dataset990_Squares has been done otherwise .* Now: .*\[16, 16\]"):
        run(out, changed)
    state = without_declarations(out)
    with pytest.raises(UserError, match=r"change_Dataset990_Squares has been done otherwise .* Now: .*\[16, 16\]"):
        run(out, changed)
    with pytest.raises(UserError, match=r"widen_Dataset99\d_Taught has been done otherwise .* Now: features times 1.5"):
        run(out, wider(1.5))
    run(out, wider(1.3))
    assert read_json(out / "steps.json") == state


def test_change_of_the_network_that_was_added_or_removed_is_refused(out, commands):
    changed = replace(EXPERIMENT, methods=(TEACHER,), comparisons=())
    plain = replace(changed, network=replace(EXPERIMENT.network, changes={}, stages=None))
    for number, (before, now) in enumerate(((changed, plain), (plain, changed))):
        folder = out.with_name(f"{number}")
        open_folder(folder, {})
        run(folder, before)
        with pytest.raises(UserError, match="plan_Dataset990_Squares has been done otherwise"):
            run(folder, now)


def write_noisy(folder, draw, *, rate):
    TEACHER.data.make(folder, draw)


def test_dataset_that_is_declared_otherwise_now_is_refused(out, commands):
    def noisy(rate):
        data = replace(TEACHER.data, make=partial(write_noisy, rate=rate))
        return replace(EXPERIMENT, methods=(replace(TEACHER, data=data),), comparisons=())

    run(out, noisy(0.2))
    with pytest.raises(UserError, match=r"make_Dataset990_Squares has been done otherwise .*rate=0\.2.*rate=0\.4"):
        run(out, noisy(0.4))
    commands.ran.clear()
    run(out, noisy(0.2))
    without_declarations(out)
    run(out, noisy(0.4))
    assert commands.ran == []


def test_folder_can_be_moved(out, commands):
    run(out)
    commands.ran.clear()
    run(out.rename(out.with_name("moved")))
    assert commands.ran == []


def test_half_written_dataset_is_written_anew(out, commands):
    (out / "nnUNet_raw" / "Dataset990_Squares" / "imagesTr").mkdir(parents=True)
    assert run(out).journal.is_finished("make_Dataset990_Squares")


def test_nothing_begins_after_the_deadline(out, commands):
    with pytest.raises(OutOfTime):
        run(out, deadline=-math.inf)
    assert commands.ran == []


def test_methods_that_are_asked_for_come_alone_and_with_what_they_need(out, commands):
    run(out, methods=["taught"])
    trained = {name for name in commands.names() if name.startswith("train_") and "pilot" not in name}
    assert trained == {f"train_{method}_6steps_s{seed}" for method in ("stock", "taught") for seed in (0, 1)}
    run(out)
    assert "train_mixup_6steps_s0" in commands.names()
    assert len(commands.names()) == len(set(commands.names())), "nothing is done twice"
    assert main(["run", TINY, "--out", str(out), "--dry-run", "--methods", "Stock"]) == 2
    with pytest.raises(UserError, match=r"has no method 'Stock'. Choose one of 'stock', "):
        run(out, methods=["Stock"])


def test_several_at_once_do_each_step_once_and_before_what_needs_it(out, commands):
    run(out)
    alone, commands.ran = commands.ran.copy(), []
    other = out.with_name("at once")
    open_folder(other, {})
    os.environ["nnUNet_raw"] = str(other / "nnUNet_raw")
    found = run(other, at_once=6).journal
    assert sorted(commands.names()) == sorted(name for name, _ in alone)
    ends = list(found.state["finished"])
    for needed, later in (
        ("preprocess_Dataset990_Squares", "train_pilot_stock_6steps_lr0.01_s0"),
        ("evaluate_pilot_stock_6steps_lr0.1_s0__squares", "train_stock_6steps_s0"),
        ("train_stock_6steps_s0", "make_Dataset992_Taught"),
        ("train_stock_6steps_s0", "train_mixup_6steps_s0"),
    ):
        assert ends.index(needed) < ends.index(later)
    assert found.state["running"] == []


def test_failure_is_known_to_all_that_wait_for_it(out, commands):
    commands.failing = "preprocess_Dataset990_Squares"
    states = run(out, at_once=6).journal.state
    assert list(states["failed"]) == ["preprocess_Dataset990_Squares"]
    assert commands.names("train_") == []


def test_run_goes_on_on_another_machine(out, commands):
    commands.failing = "configure_stock_6steps_s1"
    run(out, machine="the first")
    commands.failing = ""
    commands.ran.clear()
    runner = run(out, machine="the second", device="cuda")
    assert commands.names("train_") == ["train_stock_6steps_s1", "train_taught_6steps_s1"]
    assert commands.command("train_stock_6steps_s1")[-1] == "cuda"
    lines = origin_lines(runner, [])
    assert lines[:2] == ["- Machine: the first (6 trainings)", "- Machine: the second (2 trainings)"]


def progress(out, file, experiment=EXPERIMENT, *, device="cpu"):
    return Progress(Runner(experiment, Journal(out), device), file)


def moved(out, folder):
    """A new folder with nothing but the scores of another one."""
    file = folder.parent / "progress.zip"
    file.unlink(missing_ok=True)
    progress(out, file).update()
    open_folder(folder, {})
    assert progress(folder, file).update() > 0
    return folder


def test_run_goes_on_from_scores_alone(out, commands, tmp_path):
    run(out, machine="the first")
    write_results(run(out), tmp_path / "whole", [])
    commands.ran.clear()
    runner = run(moved(out, tmp_path / "elsewhere"), machine="the second")
    assert commands.ran == []
    write_results(runner, tmp_path / "moved", [])
    assert (tmp_path / "whole/tiny.csv.gz").read_bytes() == (tmp_path / "moved/tiny.csv.gz").read_bytes()
    assert origin_lines(runner, [])[0] == "- Machine: the first (8 trainings)"


def test_model_that_is_elsewhere_is_trained_again_where_another_one_needs_it(out, commands, tmp_path):
    commands.failing = "train_taught_6steps_s1"
    run(out, machine="the first")
    folder = moved(out, tmp_path / "elsewhere")
    commands.failing = ""
    commands.ran.clear()
    runner = run(folder, machine="the second")
    # the teacher of this seed, and no pilot
    assert commands.names("train_") == ["train_stock_6steps_s1", "train_taught_6steps_s1"]
    assert commands.names("evaluate_") == ["evaluate_taught_6steps_s1__squares"]
    assert commands.names("plan_") == ["plan_Dataset990_Squares", "plan_Dataset993_Taught"]
    # the scores of the teacher are still those of the model that the first machine has
    assert origin_lines(runner, [])[:3] == [
        "- Machine: the first (7 trainings)",
        "- Machine: the second (1 trainings)",
        "- Machine: the second (1 trainings again, as starts or teachers)",
    ]
    commands.ran.clear()
    run(folder)
    assert commands.ran == []


def test_training_that_was_scored_elsewhere_is_not_repeated_for_its_start(out, commands, tmp_path):
    run(out)
    methods = [replace(one, is_scored=False) if one is TEACHER else one for one in EXPERIMENT.methods]
    commands.ran.clear()
    run(moved(out, tmp_path / "elsewhere"), replace(EXPERIMENT, methods=tuple(methods), comparisons=()))
    assert commands.ran == []


def test_scores_of_several_machines_come_together(out, commands, tmp_path):
    commands.failing = "_s1"
    run(out)
    folder, file = moved(out, tmp_path / "elsewhere"), tmp_path / "progress.zip"
    commands.failing = ""
    run(folder)
    progress(folder, file).update()
    commands.failing = "stock_6steps_s1"
    assert run(out).journal.state["failed"]  # meanwhile
    assert progress(out, file).update() == 2  # both of the seed
    commands.failing = ""
    commands.ran.clear()
    journal = run(out).journal
    assert commands.names("train_") == []
    assert journal.state["failed"] == {}
    before = file.read_bytes()  # which kept what the other one had added
    with zipfile.ZipFile(file) as archive:
        assert "evaluations/taught_6steps_s1__squares/scores.csv" in archive.namelist()
    assert progress(out, file).update() == 0
    assert file.read_bytes() == before


def test_models_trained_here_are_not_mixed_with_scores_from_elsewhere(out, commands, tmp_path):
    run(out)
    folder, file = tmp_path / "other", tmp_path / "progress.zip"
    progress(out, file).update()
    open_folder(folder, {})
    commands.failing = "evaluate_stock_6steps_s0"
    run(folder, machine="the second")
    commands.dice, commands.failing = lambda name: 0.5, ""
    assert progress(folder, file).update() == 0  # the others are here, and this one is trained here
    runner = run(folder, machine="the second")
    (scores,) = (
        runner.scores(training, test)
        for training, tests in EXPERIMENT.scorings()
        for test in tests
        if training.name == "stock_6steps_s0"
    )
    assert set(scores.numerator) == {0.5}


def test_a_model_is_taken_with_all_its_scores_or_not_at_all(out, commands, tmp_path):
    two = replace(EXPERIMENT, tests=(Test("squares"), Test("again")), columns=())
    commands.failing = "evaluate_stock_6steps_s0__again"
    run(out, two)
    folder, file = tmp_path / "elsewhere", tmp_path / "progress.zip"
    progress(out, file, two).update()
    open_folder(folder, {})
    progress(folder, file, two).update()
    commands.dice, commands.failing = lambda name: 0.5, ""
    commands.ran.clear()
    run(folder, two)
    assert "evaluate_stock_6steps_s0__squares" in commands.names()
    assert "evaluate_stock_6steps_s1__squares" not in commands.names()


@pytest.mark.parametrize("changed", [{"settings": {"weight_decay": 0.5}}, {"folds": PatientFolds(groups, tested=1)}])
def test_scores_of_another_declaration_are_refused_and_nothing_is_changed(out, commands, tmp_path, capsys, changed):
    run(out)
    folder, file = tmp_path / "elsewhere", tmp_path / "progress.zip"
    progress(out, file).update()
    before = file.read_bytes()
    open_folder(folder, {})
    other = replace(EXPERIMENT, **changed)
    with pytest.raises(UserError, match="done otherwise than the experiment says now|for other folds"):
        progress(folder, file, other).update()
    assert file.read_bytes() == before
    assert list((folder / "evaluations").iterdir()) == []
    run(folder, other)


def test_rates_that_were_added_are_tried_beside_scores_from_elsewhere(out, commands, tmp_path):
    commands.dice = lambda name: 0.9 if "lr0.1_" in name else 0.8
    run(out)
    file, folder = tmp_path / "progress.zip", tmp_path / "elsewhere"
    progress(out, file).update()
    open_folder(folder, {})
    wider = replace(EXPERIMENT, pilot=replace(EXPERIMENT.pilot, rates=(1e-3, 1e-2, 1e-1, 1.0)))
    assert progress(folder, file, wider).update() == 7
    commands.ran.clear()
    run(folder, wider)
    assert commands.names("train_") == ["train_pilot_stock_6steps_lr1_s0"]


def edited(file, **content):
    """The file with other entries."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()} | content
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in entries.items():
            if text is not None:
                archive.writestr(name, text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:200]), "no zip archive"),
        (lambda file: edited(file, **{"steps.json": None}), "is damaged or no progress of an experiment"),
        (lambda file: edited(file, **{"steps.json": "[]"}), "is damaged or no progress of an experiment"),
        (lambda file: edited(file, **{"steps.json": '{"train_x": 1}'}), "is damaged or no progress of an experiment"),
        (lambda file: edited(file, **{"about.json": '{"experiment": "scribbles"}'}), "is of scribbles; this is tiny"),
        (lambda file: edited(file, **{"about.json": '{"experiment": "tiny", "format": 9}'}), "by another version"),
    ],
)
def test_damaged_file_is_refused(out, commands, tmp_path, damage, message):
    file, folder = tmp_path / "progress.zip", tmp_path / "elsewhere"
    run(out)
    progress(out, file).update()
    open_folder(folder, {})
    damage(file)
    damaged = file.read_bytes()
    with pytest.raises(UserError, match=message):
        progress(folder, file).update()
    assert file.read_bytes() == damaged
    assert Journal(folder).state["finished"] == {}


def test_a_damaged_byte_anywhere_is_an_error_or_changes_nothing(out, commands, tmp_path):
    file, folder = tmp_path / "progress.zip", tmp_path / "elsewhere"
    run(out)
    progress(out, file).update()
    whole = bytearray(file.read_bytes())
    open_folder(folder, {})
    for place in np.random.default_rng(0).integers(len(whole), size=60):
        damaged = whole.copy()
        damaged[place] ^= 16
        file.write_bytes(damaged)
        with suppress(UserError):
            progress(folder, file).update()
    # what was taken is whole
    assert {*collected(run(folder), folder).numerator} == {0.8}


def test_model_without_its_table_is_left_out(out, commands, tmp_path):
    file, folder = tmp_path / "progress.zip", tmp_path / "elsewhere"
    run(out)
    progress(out, file).update()
    edited(file, **{"evaluations/stock_6steps_s1__squares/scores.csv": "no table"})
    open_folder(folder, {})
    progress(folder, file).update()
    commands.ran.clear()
    run(folder)
    assert commands.names("train_") == ["train_stock_6steps_s1"]


def test_progress_is_written_with_each_model_and_taken_at_the_start(tmp_path, commands, capsys):
    file = tmp_path / "kept" / "progress.zip"
    arguments = ["run", TINY, "--device", "cpu", "--progress", str(file)]
    tables = []
    evaluate = commands.evaluate

    def counted(command, out):
        tables.append(len(zipfile.ZipFile(file).namelist()) if file.exists() else 0)
        evaluate(command, out)

    commands.evaluate = counted
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    assert tables == [0, *range(3, 10)]
    assert "is not there yet" in capsys.readouterr().out
    commands.ran.clear()
    assert main([*arguments, "--out", str(tmp_path / "two")]) == 0
    assert commands.ran == []
    assert "8 models were scored elsewhere" in capsys.readouterr().out
    shown = []
    for name in ("one", "two"):
        assert main(["status", TINY, "--out", str(tmp_path / name)]) == 0
        shown.append(capsys.readouterr().out)
    assert shown == ["40 done, 0 running, 0 waiting, 0 failed\n"] * 2
    assert main([*arguments, "--out", str(tmp_path / "three"), "--dry-run"]) == 2
    assert "Leave one out" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_ends_no_run(tmp_path, commands, monkeypatch, capsys):
    file = tmp_path / "progress.zip"
    written = Progress._write

    def write(self):
        if len(commands.names("evaluate_")) in range(1, 8):
            raise OSError("no space left")
        written(self)

    monkeypatch.setattr(Progress, "_write", write)
    assert main(["run", TINY, "--device", "cpu", "--progress", str(file), "--out", str(tmp_path / "one")]) == 0
    assert "was not written: no space left" in capsys.readouterr().err
    assert len(zipfile.ZipFile(file).namelist()) == 10


def test_the_best_rate_is_that_of_the_search_whatever_else_was_tried():
    rates = (1e-3, 1e-2, 1e-1, 1.0)
    known = {1e-3: 0.82, 1e-2: 0.80, 1e-1: 0.81, 1.0: 0.7}
    assert searched_rates(rates, 1e-2, known) == {rate: known[rate] for rate in rates[1:]}
    assert searched_rates(rates, 1e-2, {1e-3: 0.82}) == {1e-3: 0.82}


def test_folder_of_another_request_is_refused(tmp_path):
    open_folder(tmp_path / "a", {"experiment": "a"})
    with pytest.raises(UserError, match="Choose another"):
        open_folder(tmp_path / "a", {"experiment": "b"})
    with pytest.raises(UserError, match="is not an empty folder"):
        open_folder(tmp_path, {})


def test_status_tells_what_is_done_failed_running_and_waiting(out, commands, capsys):
    commands.failing = "train_taught_6steps_s0"
    runner = run(out)
    assert runner.journal.lock()
    state = {**runner.journal.state, "running": ["train_taught_6steps_s1"]}
    del state["finished"]["train_taught_6steps_s1"], state["finished"]["evaluate_taught_6steps_s1__squares"]
    write_json(out / "steps.json", state)
    capsys.readouterr()
    assert main(["status", TINY, "--out", str(out)]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.split(", ")[1:] == ["1 running", "2 waiting", "1 failed"]
    assert lines[:2] == ["running train_taught_6steps_s1", "failed  train_taught_6steps_s0: it failed"]
    assert not Journal(out).lock()


def test_status_of_a_folder_in_which_nothing_ran_leaves_it_as_it_is(tmp_path, capsys):
    assert main(["status", TINY, "--out", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.startswith("0 done, 0 running, ")
    assert not (tmp_path / "new").exists()  # a run may begin there


# ---------------------------------------------------------------------- learning rates


def test_search_ends_where_both_neighbours_of_the_best_rate_were_tried():
    rates, found = (1.0, 2.0, 3.0, 4.0, 5.0), {}
    score = {1.0: 0.1, 2.0: 0.2, 3.0: 0.5, 4.0: 0.9, 5.0: math.nan}
    order = []
    while (lr := next_rate(rates, 2.0, found)) is not None:
        order.append(lr)
        found[lr] = score[lr]
    assert order == [2.0, 3.0, 4.0, 5.0]


def test_family_takes_the_rate_that_its_first_method_chose(out, commands):
    commands.dice = lambda name: 0.9 if "lr0.1" in name else 0.8
    run(out)
    assert set(commands.names("train_pilot")) == {
        "train_pilot_stock_6steps_lr0.01_s0",
        "train_pilot_stock_6steps_lr0.1_s0",
    }
    assert "initial_lr=0.1" in commands.command("configure_taught_6steps_s1")
    assert "initial_lr=0.01" in commands.command("configure_mixup_6steps_s0")  # its own


def test_pilot_trains_and_tests_on_its_own_fold(out, commands):
    run(out)
    folds = read_json(out / "nnUNet_raw" / "Dataset990_Squares" / "splits_final.json")
    assert len(folds) == 3
    assert {case[:2] for case in folds[0]["val"]} == {"p6", "p7"}
    for fold in folds:
        assert not {patient_of(case) for case in fold["train"]} & {patient_of(case) for case in fold["val"]}
    assert not {"p6", "p7"} & {case[:2] for fold in folds[1:] for case in fold["val"]}


def test_search_for_rates_alone_has_no_runs(out, commands):
    pilot = replace(EXPERIMENT.pilot, seeds=(0, 1))
    runner = run(out, replace(EXPERIMENT, methods=(TEACHER,), comparisons=(), seeds=(), steps=(6, 12), pilot=pilot))
    assert len(commands.names("train_")) == 2 * 2 * 3
    assert "pilot" in commands.names("train_")[-1]
    lines = page_lines(runner.experiment, collected(runner, out))
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| stock")] == [
        "stock, 6 steps",
        "stock, 12 steps",
    ]
    assert not [line for line in lines if line.startswith(("## Runs", "Scored:"))]


# ---------------------------------------------------------------------- results


def collected(runner, out):
    write_results(runner, out, ["python"])
    return read_scores(out / "tiny.csv.gz")


def test_table_has_a_row_for_each_run_case_label_and_metric(out, commands):
    scores = collected(run(out), out)
    assert list(scores.columns) == list(COLUMNS)
    one = scores[(scores.run == "MixUp, 6 steps") & (scores.metric == "dice")]
    assert list(one.case) == ["p0_0", "p0_1", "p1_0", "p1_1"]
    assert set(one.patient) == {"p0", "p1"}
    assert set(one.dataset) == {"squares"}
    assert set(one.seed) == {"0"}
    assert "stock, 6 steps, pilot lr=0.01" in set(scores.run)


def test_page_says_the_best_rate_of_each_familys_own_search(out, commands):
    first, second, third = EXPERIMENT.methods
    pilot = replace(EXPERIMENT.pilot, rates=(1e-4, 1e-3, 1e-2, 1e-1), first={"stock": 1e-3, "MixUp": 1e-2})
    experiment = replace(EXPERIMENT, methods=(first, third, replace(second, lr=None)), pilot=pilot)
    commands.dice = lambda name: 0.7 if "stock" in name and "lr0.001_" in name else 0.5
    collected(run(out, experiment), out)
    rates = (out / "tiny.md").read_text().partition("## Learning rates")[2]
    # the search of MixUp begins at 0.01, which that of stock has tried and left
    assert re.search(r"\| stock, 6 steps +\|.*\| +0\.001 \|", rates)


def test_methods_with_labels_of_their_own_make_up_one_run(out, commands):
    first, second, third = EXPERIMENT.methods
    methods = (
        replace(first, part_of="both", labels=("square",)),
        replace(second, part_of="both", labels=("circle",), start=None),
        third,
    )
    comparisons = (Comparison("taught", "both"),)
    experiment = replace(EXPERIMENT, methods=methods, comparisons=comparisons)
    scores = collected(run(out, experiment), out)
    # the rows of the second method, which is scored by its circles alone, are left out
    assert set(scores[scores.run == "both, 6 steps"].label) == {"square"}
    assert not scores.run.str.startswith(("stock", "MixUp")).any()
    assert whole_runs(experiment, scores).run.drop_duplicates().to_list() == [
        run for run in scores.run.drop_duplicates() if run != "both, 6 steps"
    ]
    with pytest.raises(UserError, match="unknown: .*'two'"):
        replace(EXPERIMENT, comparisons=(Comparison("taught", "two"),))


def of_parts():
    """An experiment in which a run of two models, one for each label, is compared with one model; and its scores."""
    first, second, third = EXPERIMENT.methods
    methods = (
        replace(first, part_of="both", labels=("square",)),
        replace(second, part_of="both", labels=("circle",), start=None, seeds=()),
        third,
    )
    experiment = replace(
        EXPERIMENT, methods=methods, comparisons=(Comparison("taught", "both", is_primary=True),), seeds=(0, 1, 2)
    )
    labels = {"square": 0.5, "circle": 0.1}
    rows = [
        table({(f"{name}, 6 steps", seed): {f"p{n}": (value + n / 100, 1) for n in range(8)}}, label=label)
        for name in ("both", "taught")
        for seed in "012"
        for label, value in labels.items()
    ]
    return experiment, pd.concat(rows).assign(dataset="squares")


def test_a_seed_of_which_a_part_is_missing_waits():
    experiment, scores = of_parts()

    def rows(found):
        lines = page_lines(experiment, found)
        (run_line,) = (line for line in lines if line.startswith("| both, 6 steps"))
        (compared,) = (line for line in lines if line.startswith("| taught, 6 steps − both"))
        return [[cell.strip() for cell in line.split("|")] for line in (run_line, compared)]

    _, compared = rows(scores)
    assert (compared[3], compared[4], compared[7]) == ("+0.000 [+0.000, +0.000]", "3", "open")
    # by its squares alone this seed would be ahead of the model with both labels
    run_cells, compared = rows(
        scores[(scores.run != "both, 6 steps") | (scores.seed != "2") | (scores.label == "square")]
    )
    assert run_cells[3] == "0, 1"
    assert (compared[3], compared[4], compared[7]) == ("+0.000 [+0.000, +0.000]", "2", "waits for 1 more seed")


def test_models_are_counted_not_runs():
    experiment, scores = of_parts()
    assert "Scored: 9 of 9 models." in page_lines(experiment, scores)
    parts = scores[(scores.run == "both, 6 steps") & (scores.seed != "0") & (scores.label == "circle")]
    pilot = parts.assign(run="both, 6 steps, pilot lr=0.01")
    assert "Scored: 2 of 9 models." in page_lines(experiment, pd.concat([parts, pilot]))


def test_runs_are_compared_by_the_same_labels():
    seeds = {("a", seed): {f"p{n}": (0.5, 1) for n in range(8)} for seed in "012"}
    both = [table({**seeds, ("b", "0"): seeds["a", "0"], ("b", "1"): seeds["a", "1"]})]
    both.append(table({("a", seed): {f"p{n}": (0.1, 1) for n in range(8)} for seed in "01"}, label="m"))
    both.append(table({("b", "0"): {f"p{n}": (0.1, 1) for n in range(8)}}, label="m"))
    difference = Figures(pd.concat(both)).difference("a", "b", "t", "dice")
    assert (difference.value, difference.seeds) == (0, ("0",))


def test_page_has_runs_comparisons_rates_and_provenance(out, commands):
    commands.dice = lambda name: {"stock": 0.5, "taught": 0.8}.get(name.split("_")[0], 0.6)
    # with a patient for each case, as four are too few
    collected(run(out, replace(EXPERIMENT, patient_of=str, seeds=(0, 1, 2))), out)
    page = (out / "tiny.md").read_text()
    assert "| stock, 6 steps  | 0.500 [0.500, 0.500] | 0, 1, 2 |" in page
    assert "+0.300 [+0.300, +0.300] |     3 |    0.5 | 0.000 | better, but within the margin | primary |" in page
    assert "(at the edge)" in page
    assert "nnUNetv2_train 990 stock_6steps_s0" in page
    assert str(out) not in page


def test_page_is_rendered_from_the_table_and_keeps_its_provenance(out, commands):
    collected(run(out), out)
    before = (out / "tiny.md").read_text()
    (out / "tiny.md").write_text(before.replace("| stock, 6 steps", "| wrong"))
    render(EXPERIMENT, out)
    assert (out / "tiny.md").read_text() == before


def test_page_that_the_engine_did_not_make_is_left_alone(out, commands):
    collected(run(out), out)
    (out / "tiny.md").write_text("by hand\n")
    with pytest.raises(UserError, match=r"tiny\.md"):
        render(EXPERIMENT, out)


def test_same_scores_give_the_same_bytes(tmp_path):
    for name in ("a.csv.gz", "b.csv.gz"):
        write_table(tmp_path / name, table({("a", "0"): {"p": (0.5, 1)}}))
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.csv.gz").read_bytes()).startswith(b"run,seed,dataset")


def test_nothing_is_written_before_anything_is_scored(out, commands, capsys):
    commands.failing = "train"
    write_results(run(out), out, ["python"])
    assert "no results" in capsys.readouterr().out
    assert not (out / "tiny.md").exists()


def test_page_of_an_earlier_program_is_not_replaced(out, commands, capsys):
    (out / "tiny.md").write_text("# Cited by the documentation\n")
    write_results(run(out), out, ["python"])
    assert "tiny.md was made by an earlier program. Move it away" in capsys.readouterr().out
    assert (out / "tiny.md").read_text() == "# Cited by the documentation\n"
    assert not (out / "tiny.csv.gz").exists()


def test_figure_of_one_model_is_the_mean_over_the_labels_that_have_one():
    parts = {"l": [(1, 3), (0, 1)], "m": [(0, 0), (0, 0)], "n": [(1, 1), (1, 3)]}
    rows = [
        ("", "", "", "", case, "", label, "lesions_recall", *one)
        for label in parts
        for case, one in zip("ab", parts[label])
    ]
    scores = pd.DataFrame(rows, columns=list(COLUMNS))
    assert figure(scores, "lesions_recall") == pytest.approx((0.25 + 0.5) / 2)
    assert math.isnan(figure(scores, "dice"))


# ---------------------------------------------------------------------- statistics


def table(values, metric="dice", label="l"):
    """A scores table from ``{(run, seed): {patient: (numerator, denominator)}}``."""
    rows = [
        (run, seed, "t", "", patient, patient, label, metric, *parts)
        for (run, seed), by_patient in values.items()
        for patient, parts in by_patient.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def test_difference_is_paired_by_patient_and_seed():
    patients = {f"p{number}": number / 10 for number in range(10)}
    base = {(run, seed): {} for run in "ab" for seed in "012"}
    for (run, seed), by_patient in base.items():
        by_patient |= {p: (v + int(seed) + (0.25 if run == "a" else 0), 1) for p, v in patients.items()}
    figures = Figures(table(base))
    single, difference = figures.estimate("a", "t", "dice"), figures.difference("a", "b", "t", "dice")
    assert single.value == pytest.approx(0.45 + 1 + 0.25)
    assert single.high - single.low > 0.5
    assert (difference.low, difference.high) == pytest.approx((0.25, 0.25))
    assert difference.p < 0.001
    assert difference.seeds == ("0", "1", "2")


def test_difference_is_over_the_seeds_that_both_have():
    values = {("a", "0"): {"p": (1, 1)}, ("a", "1"): {"p": (9, 1)}, ("b", "0"): {"p": (0.5, 1)}}
    difference = Figures(table(values)).difference("a", "b", "t", "dice")
    assert difference.value == 0.5
    assert difference.seeds == ("0",)


def test_one_model_that_serves_all_seeds_is_paired_with_each_of_the_other():
    patients = {f"p{number}": number / 10 for number in range(10)}
    tuned = {("a", seed): {p: (v + gain, 1) for p, v in patients.items()} for seed, gain in zip("012", (0.1, 0.2, 0.6))}
    figures = Figures(table({**tuned, ("start", "0"): {p: (v, 1) for p, v in patients.items()}}))
    for pair, sign in ((("a", "start"), 1), (("start", "a"), -1)):
        assert figures.difference(*pair, "t", "dice").value == pytest.approx(sign * 0.1)
        difference = figures.difference(*pair, "t", "dice", shared={"start"})
        assert difference.value == pytest.approx(sign * 0.3)
        assert difference.seeds == ("0", "1", "2")
    assert math.isnan(figures.difference("missing", "start", "t", "dice", shared={"start"}).value)


@pytest.mark.parametrize("patients", [5, 6])
def test_with_fewer_than_six_patients_nothing_is_tested(patients):
    """Five that agree have p = 2 / 2⁵ = 0.0625 in a test of signs; a bootstrap of them would have p = 0."""
    values = {
        (run, seed): {f"p{number}": (0.1 * number + (run == "a") * (0.1 + int(seed)), 1) for number in range(patients)}
        for run in "ab"
        for seed in "012"
    }
    figures = Figures(table(values))
    single, difference = figures.estimate("a", "t", "dice"), figures.difference("a", "b", "t", "dice")
    assert difference.value == pytest.approx(1.1)
    if patients == 6:
        assert difference.p < 0.05
        assert not difference.by_seed
        assert single.low < single.value
        return
    assert math.isnan(difference.p)
    assert math.isnan(single.low)
    assert difference.text(is_signed=True) == "+1.100 (+0.100, +1.100, +2.100)"
    judgement = Judged("", EXPERIMENT.comparisons[0], "a", "b", "t", difference, 1)
    assert judgement.verdict(difference.p) == "described"
    assert comparison_lines([judgement, judgement])[2].split("|")[6].strip() == "", "and there is nothing to correct"


@pytest.mark.parametrize(("seeds", "verdict"), [(1, "described"), (2, "described"), (3, "better")])
def test_with_fewer_than_three_seeds_there_is_an_interval_and_no_verdict(seeds, verdict):
    values = {
        (f"{run}, 6 steps", str(seed)): {f"p{n}": (value + n / 100, 1) for n in range(8)}
        for run, value in (("taught", 0.9), ("stock", 0.2))
        for seed in range(seeds)
    }
    scores = table(values).assign(dataset="squares")
    (line,) = (
        line
        for line in page_lines(replace(EXPERIMENT, seeds=tuple(range(seeds))), scores)
        if line.startswith("| taught, 6 steps − stock")
    )
    _, _, _, difference, counted, _, p, judgement, *_ = (cell.strip() for cell in line.split("|"))
    assert difference == "+0.700 [+0.700, +0.700]"
    assert (counted, judgement) == (str(seeds), verdict)
    assert bool(p) == (seeds == 3)


def test_a_run_gains_no_distance_by_missing_what_is_hard():
    """Where only one of two runs has a distance, none counts; Dice, which is 0 there, does."""
    near = {f"p{number}": (2.0, 1) for number in range(8)}
    missed = {**near, "p7": (0.0, 0)}
    values = {("a", "0"): missed, ("b", "0"): {**near, "p7": (90.0, 1)}}
    figures = Figures(table(values, "hd95"))
    difference = figures.difference("a", "b", "t", "hd95")
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)
    assert difference.text() == "0.000 [0.000, 0.000], 1 left out"
    assert figures.estimate("b", "t", "hd95").value == pytest.approx(13)
    # a seed that only one of them has yet is not left out, but waits
    waiting = Figures(table({**values, ("b", "1"): near}, "hd95")).difference("a", "b", "t", "hd95")
    assert waiting.left_out == 1


def test_only_patients_with_a_value_count_and_a_seed_without_any_is_left_out():
    far = {f"p{number}": (3.0, 1) for number in range(20)}
    few = {patient: (5.0, 1) if number < 2 else (0.0, 0) for number, patient in enumerate(far)}
    nothing = dict.fromkeys(far, (0.0, 0))
    values = {("a", "0"): far, ("a", "1"): far, ("b", "0"): few, ("b", "1"): nothing}
    difference = Figures(table(values, "hd95")).difference("a", "b", "t", "hd95")
    assert (difference.value, difference.reference, difference.left_out) == (-2, 5, 38)
    assert math.isnan(difference.p), "two patients"
    assert difference.seeds == ("0",)
    assert math.isnan(Figures(table(values)).difference("a", "b", "t", "dice").p)


def test_rows_of_curves_are_no_patient():
    rows = table({(run, "0"): {f"p{number}": (number + (run == "a"), 1) for number in range(5)} for run in "ab"})
    curve = rows[rows.patient == "p0"].assign(case="", patient="", label="", metric="lesion recall at 0.5")
    assert math.isnan(Figures(pd.concat([rows, curve])).difference("a", "b", "t", "dice").p)


def test_primary_comparisons_that_wait_count_in_the_correction():
    differences = [Estimate(0.1, 0, 0.2, p=0.02, reference=1.0), Estimate(0.1, 0, 0.2, p=0.04, reference=1.0)]
    results = [Judged("", EXPERIMENT.comparisons[0], "a", "b", "t", one, 3) for one in differences]
    assert corrected_p(results) == pytest.approx([0.06, 0.08])


def test_primary_comparison_that_waits_for_seeds_counts_as_one_that_shows_nothing():
    """Its interim p would lower that of the other: 0.02 would be 0.02, and 0.04 when it has come to nothing."""
    differences = [Estimate(0.1, 0, 0.2, p=p, seeds=("0", "1", "2"), reference=1.0) for p in (0.001, 0.02)]
    results = [
        Judged("", EXPERIMENT.comparisons[0], "a", "b", "t", one, 2, waiting)
        for one, waiting in zip(differences, (2, 0))
    ]
    assert corrected_p(results) == pytest.approx([math.nan, 0.04], nan_ok=True)
    cells = [cell.strip() for cell in comparison_lines(results)[2].split("|")]
    assert cells[6:8] == ["", "waits for 2 more seeds"]


def test_figure_is_of_sums_and_the_mean_over_labels():
    first = table({("a", "0"): {"p": (1, 4), "q": (3, 4)}})
    second = table({("a", "0"): {"p": (0, 0), "q": (1, 1)}}, label="m")
    assert Figures(pd.concat([first, second])).estimate("a", "t", "dice").value == pytest.approx((0.5 + 1) / 2)


def test_f1_is_of_pooled_recall_and_precision_and_zero_without_a_prediction():
    found = table({("a", "0"): {"p": (1, 2), "q": (1, 2)}}, "lesions_recall")
    right = table({("a", "0"): {"p": (1, 4), "q": (1, 4)}}, "lesions_precision")
    value = Figures(pd.concat([found, right])).estimate("a", "t", "lesions_f1").value
    assert value == pytest.approx(2 * 0.5 * 0.25 / 0.75)
    nothing = [
        table({("a", "0"): {"p": (0, count)}}, f"lesions_{name}") for name, count in (("recall", 2), ("precision", 0))
    ]
    assert Figures(pd.concat(nothing)).estimate("a", "t", "lesions_f1").value == 0


def test_patients_of_other_runs_have_no_part_in_an_interval():
    runs = {("a", "0"): {f"p{number}": (number, 1) for number in range(5)}}
    pilot = {("a, pilot lr=1", "0"): {f"q{number}": (number, 1) for number in range(50)}}
    alone, beside = (Figures(table(rows)).estimate("a", "t", "dice") for rows in (runs, {**runs, **pilot}))
    assert alone == beside


def test_missing_run_has_no_figure():
    figures = Figures(table({("a", "0"): {"p": (1, 1)}}))
    assert math.isnan(figures.estimate("b", "t", "dice").value)
    assert figures.estimate("b", "t", "dice").text() == ""
    assert math.isnan(figures.difference("a", "b", "t", "dice").value)


def test_most_that_is_kept_on_a_curve_where_enough_is_gained():
    kept = np.array([1.0, 0.8, 0.4, 0.1])
    found = [
        float(most_kept(np.array(points)[:, None], kept[:, None], np.array([level]))[0])
        for points, level in (
            ((0.0, 0.5, 1.0, 0.8), 0.75),  # half of the way from 0.5 to 1.0
            ((0.2, 0.9, 0.6, 0.8), 0.8),  # 6/7 of the way to the second point, though a later one gains less
            ((0.0, 0.5, 1.0, 0.8), 0.0),
            ((0.0, 0.5, 1.0, 0.8), 1.1),
        )
    ]
    assert found[:3] == pytest.approx([0.6, 1 - 0.2 * 6 / 7, 1.0])
    assert math.isnan(found[3])


TRADE_OFF = TradeOff(
    gained="new",
    kept="old",
    curves={"ours": ("stock", "taught"), "theirs": ("stock", "MixUp")},
    ours="ours",
    theirs="theirs",
)
TWO_TESTS = replace(
    EXPERIMENT,
    methods=(
        replace(TEACHER, is_shared=True),
        *(replace(one, start=None, seeds=()) for one in EXPERIMENT.methods if one is not TEACHER),
    ),
    tests=(Test("new"), Test("old")),
    comparisons=(),
    trade_off=TRADE_OFF,
)


def two_tests():
    """Figures on two tests: the start, which has one seed, and two models that were tuned from it."""
    figures = {"stock": (0.0, 1.0), "taught": (0.8, 0.6), "MixUp": (0.4, 0.5)}
    tables = [
        table({(f"{run}, 6 steps", seed): {f"p{n}": (value + n / 100, 1) for n in range(10)}}).assign(dataset=test)
        for run, values in figures.items()
        for test, value in zip(("new", "old"), values)
        for seed in ("0" if run == "stock" else "01")
    ]
    return pd.concat(tables)


def test_trade_off_compares_what_is_kept_where_as_much_is_gained(tmp_path):
    # half of the way to its end, ours gains as much as theirs at its own
    page = page_lines(TWO_TESTS, two_tests())
    (line,) = (line for line in page if "old at equal new" in line)
    assert [part.strip() for part in line.split("|")[1:4]] == [
        "ours − theirs",
        "dice, old at equal new",
        "+0.300 [+0.300, +0.300]",
    ]
    assert "primary" in line
    assert "![Dice on new and on old](tiny.png)" in page
    (counted,) = (
        line
        for line in primary_lines([primary_results(TWO_TESTS, folder_with(two_tests(), tmp_path))])
        if "equal" in line
    )
    assert counted.split("|")[1].strip() == TWO_TESTS.title
    assert (line.split("|")[4].strip(), line.split("|")[7].strip()) == ("2", "described")
    incomplete = two_tests()
    assert not any("at equal" in line for line in page_lines(TWO_TESTS, incomplete[incomplete.run != "MixUp, 6 steps"]))


def test_trade_off_waits_for_the_seeds_of_every_point_but_the_common_start():
    """A point between start and end that lacks a seed must not mix that of the others with what it has."""
    trade_off = replace(TRADE_OFF, curves={"ours": ("stock", "between", "taught"), "theirs": ("stock", "MixUp")})
    between = replace(TWO_TESTS.methods[1], name="between")
    experiment = replace(TWO_TESTS, methods=(*TWO_TESTS.methods, between), trade_off=trade_off)
    # the second seed keeps far less; without it in one point, its ends do not count either
    scores = two_tests()
    middle = scores[(scores.run == "taught, 6 steps") & (scores.seed == "0")].assign(run="between, 6 steps")
    middle.numerator += middle.dataset.map({"new": -0.4, "old": 0.2})
    worse = (scores.run == "taught, 6 steps") & (scores.seed == "1") & (scores.dataset == "old")
    scores = pd.concat([scores.assign(numerator=scores.numerator - 0.4 * worse), middle])
    (line,) = (line for line in page_lines(experiment, scores) if "old at equal new" in line)
    cells = [cell.strip() for cell in line.split("|")]
    assert cells[3:8] == ["+0.300 [+0.300, +0.300]", "1", "0", "", "waits for 1 more seed"]


def test_trade_off_is_drawn_with_the_page(tmp_path):
    render(TWO_TESTS, folder_with(two_tests(), tmp_path))
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UserError, match="unknown: .*'nothing'"):
        replace(TWO_TESTS, trade_off=replace(TRADE_OFF, ours="nothing"))


def test_the_figure_of_a_trade_off_says_which_curves_are_of_fewer_seeds():
    def shown(scores):
        return [one.get_text() for one in trade_off_figure(TWO_TESTS, TRADE_OFF, scores).axes[0].get_legend().texts]

    scores = two_tests()
    assert shown(scores) == ["ours", "theirs"]
    fewer = scores[(scores.run != "MixUp, 6 steps") | (scores.seed == "0")]
    assert shown(fewer) == ["ours, seeds: 2", "theirs, seeds: 1"]


def folder_with(scores, folder):
    write_table(folder / "tiny.csv.gz", scores)
    return folder


def test_primary_comparisons_are_corrected_within_their_experiment_and_over_all(tmp_path):
    rows = {}
    for number in range(12):
        for run, value in (("stock, 6 steps", 0.0), ("taught, 6 steps", 0.1 if number else -0.05)):
            for seed in "012":
                rows.setdefault((run, seed), {})[f"p{number}"] = (value, 1)
    write_table(tmp_path / "tiny.csv.gz", table(rows).assign(dataset="squares"))
    shutil.copy(tmp_path / "tiny.csv.gz", tmp_path / "other.csv.gz")
    several = [replace(EXPERIMENT, name=name, seeds=(0, 1, 2)) for name in ("tiny", "other", "no")]
    lines = primary_lines([primary_results(one, tmp_path) for one in several])
    assert len(lines) == 4
    own, over_all = (float(cell) for cell in (lines[2].split("|")[7], lines[2].split("|")[9]))
    assert over_all == pytest.approx(2 * own, abs=0.002)


def test_page_of_evidence_is_what_the_results_say():
    """Docs that a change of declarations or results leaves behind: ``python -m benchmarks render`` writes it anew."""
    page = evidence_page([load_experiment(name) for name in experiment_names()], RESULTS)
    assert EVIDENCE.read_text(encoding="utf-8") == page


@pytest.mark.parametrize("name", experiment_names())
def test_all_trainings_of_an_experiment_have_the_same_plans(name):
    """So that they differ in nothing but their data and method."""
    planned = set()
    for method in load_experiment(name).methods:
        data = method.data
        while data.plans_of is not None:
            data = data.plans_of
        planned.add(data.number)
    assert len(planned) == 1


def test_trainings_of_the_pilot_have_a_teacher_each(out, commands):
    taught = replace(EXPERIMENT.methods[2], family="")
    pilot = replace(EXPERIMENT.pilot, seeds=(0, 1))
    run(out, replace(EXPERIMENT, methods=(*EXPERIMENT.methods[:2], taught), pilot=pilot))
    tried = {name[-2:]: command[1] for name, command in commands.ran if name.startswith("train_pilot_taught")}
    assert tried == {"s0": "991", "s1": "994"}, "behind those of the folds 1 and 2"


@pytest.mark.parametrize("name", [name for name in experiment_names() if is_rendered(RESULTS / f"{name}.md")])
def test_stored_page_is_what_its_table_and_declaration_say(name, tmp_path):
    for ending in ("md", "csv.gz"):
        shutil.copy(RESULTS / f"{name}.{ending}", tmp_path)
    render(load_experiment(name), tmp_path)
    assert (tmp_path / f"{name}.md").read_text() == (RESULTS / f"{name}.md").read_text()


def test_primary_comparison_that_is_not_complete_waits_on_the_page_of_evidence(tmp_path):
    complete, part = two_tests(), two_tests()
    folder_with(complete, tmp_path)
    render(TWO_TESTS, tmp_path)
    title, _, waiting = evidence_page([TWO_TESTS], tmp_path).partition("## Declared")
    assert "old at equal new" in title
    assert "old at equal new" not in waiting
    folder_with(part[part.run != "MixUp, 6 steps"], tmp_path)
    title, _, waiting = evidence_page([TWO_TESTS], tmp_path).partition("## Declared")
    assert "old at equal new" not in title
    assert f"- **{TWO_TESTS.title}** (`tiny`): " in waiting
    assert "`ours` − `theirs` in dice, old at equal new" in waiting


def test_primary_comparison_has_no_verdict_before_all_of_its_seeds_are_in():
    def verdict(*seeds):
        runs = {("taught, 6 steps", seed): 0.9 for seed in seeds} | {("stock, 6 steps", seed): 0.2 for seed in seeds}
        scores = table({key: {f"p{n}": (value + n / 100, 1) for n in range(8)} for key, value in runs.items()})
        lines = page_lines(replace(EXPERIMENT, seeds=(0, 1, 2, 3)), scores.assign(dataset="squares"))
        (line,) = (line for line in lines if line.startswith("| taught, 6 steps − stock"))
        return line.split("|")[7].strip()

    assert verdict("0", "1") == "waits for 2 more seeds"
    assert verdict("0", "1", "2") == "waits for 1 more seed"
    assert verdict("0", "1", "2", "3") == "better"


def test_lower_is_better_for_distances():
    rows = {
        (run, seed): {f"p{number}": (value, 1) for number in range(12)}
        for run, value in (("stock, 6 steps", 10.0), ("taught, 6 steps", 7.0))
        for seed in "012"
    }
    comparison = Comparison("taught", "stock", "hd95", margin=0.2, is_relative=True)
    experiment = replace(EXPERIMENT, comparisons=(comparison,), tests=(Test("squares"),))
    page = "\n".join(page_lines(experiment, table(rows, "hd95").assign(dataset="squares")))
    assert "-3.000 [-3.000, -3.000]" in page
    assert "|     3 |    20% | 0.000 |  better |" in page


def test_interval_of_a_median_covers_it():

    found = estimate(np.arange(101.0), np.median, np.random.default_rng(0))
    assert found.value == 50
    assert found.low < 50 < found.high
    assert found.divided_by(2).value == 25


@pytest.mark.parametrize("folder", ["/some/where", "/with a space/ü", "/x/Data"])
def test_a_command_on_a_users_dataset_has_no_folder_of_the_machine(tmp_path, folder):
    journal = Journal(tmp_path / "out", is_dry=True)
    command = ["nnunet_ext", "unlabelled", f"{folder}/Dataset027_A/imagesTr", "-o", "Dataset902_B"]
    assert folder not in journal._text(command)
    assert "$ORIGINALS/Dataset027_A/imagesTr" in journal._text(command)
    inside = ["nnunet_ext", "evaluate", str(tmp_path / "out" / "nnUNet_results" / "Dataset901_C")]
    assert journal._text(inside) == "nnunet_ext evaluate $OUT/nnUNet_results/Dataset901_C"
