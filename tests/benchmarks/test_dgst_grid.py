"""The search for momentum and learning rate, with stand-ins for trainings."""

import math

import pytest

from benchmarks import dgst_grid
from benchmarks.dgst_grid import (
    LADDER,
    LONG,
    SEARCHED,
    SHIFT,
    SHORT,
    DGSTGrid,
    Trial,
    by_lr,
    csv_text,
    next_lr,
    result_lines,
    trial,
)
from benchmarks.domain_shift import PILOT_FOLD
from nnunet_ext import trainers
from nnunet_ext.commands.configure import check_name
from nnunet_ext.plans.settings import validated_settings

METHOD = SEARCHED[0].method
DICE = {"a": {"x": 0.4, "y": 0.6}, "b": {"x": 0.7}}


def searched_scores(optimum):
    """All that a search does whose Dice falls with the distance of the learning rate from an optimum."""

    class Grid(DGSTGrid):
        def run_trial(self, one):
            return 1 - abs(math.log10(one.lr / optimum[one.method])) / 10

    scores = {}
    Grid(None, "cpu", 0, 0, LADDER, None, SHIFT).search(scores)
    return scores


def test_methods_differ_and_begin_inside_the_ladder():
    for searched in SEARCHED:
        assert searched.lr in LADDER[1:-1]
        assert hasattr(trainers, searched.method.trainer)
        assert len(searched.method.settings) == (2 if "SGD" in searched.method.name else 1)
        validated_settings(searched.method.settings, where="the test")
    assert len({searched.method.name for searched in SEARCHED}) == len(SEARCHED)


def test_next_rate_widens_where_the_best_is_at_the_edge():
    below, lr, above, higher = LADDER[3:7]
    assert next_lr(lr, {}) == lr
    assert next_lr(lr, {lr: 0.5}) == above
    assert next_lr(lr, {lr: 0.5, above: 0.9}) == higher
    assert next_lr(lr, {lr: 0.5, above: 0.2}) == below
    assert next_lr(lr, {below: 0.1, lr: 0.9, above: 0.2}) is None
    assert next_lr(lr, dict.fromkeys(LADDER, 0.5)) is None


def test_the_best_rate_of_every_method_and_length_has_worse_neighbours_and_is_trained_again():
    optimum = {searched.method: LADDER[1 + place] for place, searched in enumerate(SEARCHED)}
    scores = searched_scores(optimum)
    for method, lr in optimum.items():
        for steps in (SHORT, LONG):
            tried = by_lr(scores, method, steps)
            assert {LADDER[LADDER.index(lr) - 1], lr, LADDER[LADDER.index(lr) + 1]} <= tried.keys()
            assert list(tried) == sorted(tried)
        assert trial(method, lr, seed=1) in scores


def test_names_are_distinct_and_can_name_configurations():
    trials = [
        trial(searched.method, lr, steps=steps, seed=seed)
        for searched in SEARCHED
        for lr in LADDER
        for steps in (SHORT, LONG)
        for seed in (0, 1)
    ]
    assert len({one.name for one in trials}) == len(trials)
    for one in trials:
        check_name(one.name)
        assert one.fold == PILOT_FOLD


def test_results_hold_every_training():
    scores = {trial(METHOD, 0.1): 0.5, trial(METHOD, 0.3): 0.25, trial(METHOD, 0.1, steps=LONG): 0.75}
    assert csv_text(scores).splitlines() == [
        "method,lr,steps,seed,dice",
        f"{METHOD.name},0.1,{SHORT},0,0.5000",
        f"{METHOD.name},0.3,{SHORT},0,0.2500",
        f"{METHOD.name},0.1,{LONG},0,0.7500",
    ]
    text = "\n".join(result_lines(scores, 0.04))
    assert f"| {METHOD.name} |  0.500 |  0.250 |      |" in text  # 0.03 is missing
    assert f"| {METHOD.name} |  0.750 |" in text
    assert "it has 0.040" in text
    assert text.count("Not run.") == 1
    settled = {trial(METHOD, lr): dice for lr, dice in ((0.03, 0.1), (0.1, 0.5), (0.3, 0.2))}
    assert f"| {METHOD.name} |   0.100 |  0.500 |  0.200 |  0.1 |" in "\n".join(result_lines(settled, 0.04))


def test_a_training_gets_its_length_seed_and_settings(monkeypatch):
    seen = []
    monkeypatch.setattr(dgst_grid.FewShot, "train", lambda self, one, **asked: seen.append((self.epochs, one, asked)))
    monkeypatch.setattr(DGSTGrid, "evaluate_here", lambda *arguments: seen.append(arguments[1:]))
    monkeypatch.setattr(DGSTGrid, "evaluation", lambda *_: {"datasets": [{"dataset": SHIFT.target, "dice": DICE}]})
    monkeypatch.setattr(DGSTGrid, "model", lambda *_: "model")
    one = Trial(METHOD, 5, 1, 0.3, LONG)
    assert DGSTGrid(None, "cpu", 0, 50, LADDER, None, SHIFT).run_trial(one) == pytest.approx(0.6)
    assert seen == [
        (LONG // 50, one, {"seed": 1, "lr": 0.3}),
        (one.name, "model", PILOT_FOLD, ["--on", f"{int(SHIFT.target[7:10])}:val"]),
    ]


def test_missing_dataset_is_wrong_usage_that_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert dgst_grid.main(["--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert SHIFT.origin in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
