import os
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from benchmarks import step_time
from benchmarks.engine.statistics import Estimate
from benchmarks.step_time import (
    STOCK,
    Contender,
    Requirement,
    Times,
    compare,
    interleaved,
    main,
    peak_of_events,
    prepare,
    resident_bytes,
    step_flops,
    step_memory,
    table_lines,
    verdict,
    verdicts,
)
from benchmarks.synthetic import NetworkPreset, build_trainer, random_batch
from nnunet_ext.trainers import nnUNetTrainerConfigurable, nnUNetTrainerDualEncoder, nnUNetTrainerMixUp

CPU = torch.device("cpu")
TINY = NetworkPreset((16, 16, 8), batch_size=2, base_features=4, max_features=16)
TINY_2D = NetworkPreset((16, 16), batch_size=2, base_features=4, max_features=16)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    root = tmp_path_factory.mktemp("nnunet")
    return lambda trainer_class, preset=TINY: build_trainer(trainer_class, preset, CPU, root)


def contender(name, *, flops=1, memory=1, trainer=None):
    return Contender(name, trainer, flops=flops, memory=memory, weights=10**9)


def times(*seconds):
    return Times(np.array(seconds), np.array(seconds))


def an_estimate(low, high):
    return Estimate((low + high) / 2, low, high)


# ---------------------------------------------------------------------- made-up numbers


def test_ratios_are_taken_within_a_round():
    # the machine is ten times slower in the second round: for both
    rows = compare(
        [contender("stock"), contender("other", flops=2, memory=3)],
        {"stock": times(1.0, 10.0, 1.0), "other": times(3.0, 30.0, 3.0)},
        np.random.default_rng(0),
    )
    other = rows[1]
    assert other.time_ratio.value == pytest.approx(3)
    assert (other.time_ratio.low, other.time_ratio.high) == pytest.approx((3, 3))
    assert other.flop_ratio == 2
    assert other.overhead.value == pytest.approx(1.5)
    assert other.memory_ratio == 3
    assert rows[0].overhead.value == 1


def test_table_has_a_line_for_each_trainer_with_its_overhead():
    rows = compare(
        [contender("stock"), contender("other", flops=2)],
        {"stock": times(1.0, 1.0), "other": times(2.5, 2.5)},
        np.random.default_rng(0),
    )
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table_lines(rows)]
    by_name = {line[0]: dict(zip(cells[0], line)) for line in cells[2:]}
    assert list(by_name) == ["stock", "other"]
    assert by_name["other"]["time ratio"] == "2.500"
    assert by_name["other"]["FLOP ratio"] == "2.000"
    assert by_name["other"]["overhead"] == "1.250"


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.99, 1.01, "met"), (1.01, 1.03, "open"), (1.03, 1.05, "missed")]
)
def test_verdict_follows_the_whole_interval(low, high, expected):
    assert verdict(an_estimate(low, high), 1.02) == expected


def test_verdicts_compare_a_trainer_with_its_own_reference():
    base, tuned, sparse = "nnUNetTrainerConfigurable", "nnUNetTrainerFineTune", "nnUNetTrainerDGST"
    seconds = {STOCK: times(1.0, 1.0), base: times(1.5, 1.5), tuned: times(2.0, 2.0), sparse: times(2.1, 2.1)}
    contenders = [contender(name) for name in seconds]
    (of_base, sentence), (of_sparse, other) = verdicts(contenders, seconds, np.random.default_rng(0))
    assert (of_base, of_sparse) == ("missed", "met")
    assert "+50.0%" in sentence
    assert "+5.0%" in other
    assert verdicts(contenders[:1], seconds, np.random.default_rng(0)) == []


@pytest.mark.parametrize(("extra", "expected"), [(1000, "met"), (1001, "missed")])
def test_memory_beyond_the_limit_is_a_miss(extra, expected):
    seconds = {name: times(1.0, 1.0) for name in ("nnUNetTrainerFineTune", "nnUNetTrainerDGST")}
    tuned, sparse = (contender(name) for name in seconds)
    sparse = replace(sparse, memory=tuned.memory + extra, weights=1000)
    [(found, _)] = verdicts([tuned, sparse], seconds, np.random.default_rng(0))
    assert found == expected


def test_peak_is_the_highest_running_sum():
    sizes = [10, 20, -10, 5, -25]
    events = [{"name": "[memory]", "args": {"Ev Idx": index, "Bytes": size}} for index, size in enumerate(sizes)]
    assert peak_of_events([{"name": "other"}, *reversed(events)]) == 30
    assert peak_of_events([]) == 0


def test_every_trainer_has_its_turn_in_every_round(monkeypatch):
    monkeypatch.setattr(step_time, "random_batch", lambda trainer: {})
    log = []
    contenders = [
        contender(name, trainer=SimpleNamespace(device=CPU, train_step=lambda batch, name=name: log.append(name)))
        for name in "abc"
    ]
    measured = interleaved(contenders, rounds=20, steps=2, rng=np.random.default_rng(0))
    turns = [tuple(log[start : start + 6 : 2]) for start in range(0, len(log), 6)]
    assert log[::2] == log[1::2]
    assert len(turns) == 20
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns)
    assert len(set(turns)) > 1
    assert all(len(measured[name].wall) == 20 for name in "abc")


# ---------------------------------------------------------------------- a tiny network


@pytest.mark.parametrize("preset", [TINY, TINY_2D], ids=["3d", "2d"])
def test_configurable_does_the_operations_of_stock(build, preset):
    stock, ours = build(nnUNetTrainer, preset), build(nnUNetTrainerConfigurable, preset)
    assert step_flops(stock, random_batch(stock)) == step_flops(ours, random_batch(ours)) > 0


def test_additional_mixup_does_twice_the_operations(build):
    """Exactly twice but for the low-resolution heads, through which the mixed loss sends no gradient."""
    base, mixup = build(nnUNetTrainerConfigurable), build(nnUNetTrainerMixUp)
    ratio = step_flops(mixup, random_batch(mixup)) / step_flops(base, random_batch(base))
    assert ratio == pytest.approx(2, rel=0.01)
    assert ratio <= 2


def test_counted_operations_of_the_first_convolution_agree_with_the_formula(build):
    trainer = build(nnUNetTrainer)
    first = next(module for module in trainer.network.modules() if isinstance(module, torch.nn.Conv3d))
    counter = step_time.FlopCounterMode(display=False)
    with counter, torch.no_grad():
        first(random_batch(trainer)["data"])
    assert counter.get_total_flops() == 2 * TINY.batch_size * 16 * 16 * 8 * 4 * 1 * 27


def test_trainers_start_from_the_same_weights_and_batch(build):
    stock, ours = build(nnUNetTrainer), build(nnUNetTrainerConfigurable)
    for one, other in zip(stock.network.parameters(), ours.network.parameters()):
        assert torch.equal(one, other)
    assert torch.equal(random_batch(stock)["data"], random_batch(ours)["data"])
    assert stock.train_step(random_batch(stock))["loss"] == ours.train_step(random_batch(ours))["loss"]


def test_timed_steps_leave_the_weights(build):
    trainer = build(nnUNetTrainer)
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    trainer.train_step(random_batch(trainer))
    for old, new in zip(before, trainer.network.parameters()):
        assert torch.equal(old, new)


def test_building_leaves_environment_and_generator(build, monkeypatch):
    monkeypatch.setenv("nnUNet_results", "/somewhere")
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    state = torch.get_rng_state()
    build(nnUNetTrainer)
    assert torch.equal(state, torch.get_rng_state())
    assert os.environ["nnUNet_results"] == "/somewhere"
    assert "nnUNet_preprocessed" not in os.environ


def test_targets_have_the_shapes_of_the_heads(build):
    trainer = build(nnUNetTrainer)
    batch = random_batch(trainer)
    outputs = trainer.network(batch["data"])
    assert [target.shape[2:] for target in batch["target"]] == [output.shape[2:] for output in outputs]


def test_memory_of_a_step_holds_weights_momentum_and_gradients(build):
    trainer = build(nnUNetTrainer)
    batch = random_batch(trainer)
    trainer.train_step(batch)
    weights = sum(parameter.numel() * 4 for parameter in trainer.network.parameters())
    # the head of the lowest resolution has weight 0 in nnU-Net's loss: no gradient, no momentum
    moved = sum(parameter.numel() * 4 for parameter in trainer.network.parameters() if parameter.grad is not None)
    assert 0 < moved < weights
    assert resident_bytes(trainer) == weights + moved
    assert step_memory(trainer, batch) >= weights + 2 * moved
    assert step_memory(trainer, batch) == step_memory(trainer, batch)


def test_a_trainer_that_cannot_train_on_the_plan_is_named_with_its_reason(tmp_path, monkeypatch):
    class Refusing(nnUNetTrainerConfigurable):
        unsupported = {"3d": "for a test"}  # noqa: RUF012

    monkeypatch.setattr(step_time, "trainer_classes", lambda names: [("stock", nnUNetTrainer), ("refusing", Refusing)])
    build = partial(build_trainer, preset=TINY, device=CPU, root=tmp_path)
    contenders, refused = prepare([], build, compiled=False)
    assert [one.name for one in contenders] == ["stock"]
    assert "for a test" in refused["refusing"]


# ---------------------------------------------------------------------- the command


def test_command_writes_what_it_prints(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(step_time, "PRESETS", {"small-2d": TINY_2D})
    base = "nnUNetTrainerConfigurable"
    monkeypatch.setattr(step_time, "REQUIREMENTS", (Requirement(base, STOCK, 1000.0),))
    out = tmp_path / "result"
    status = main(["--device", "cpu", "--rounds", "2", "--preset", "small-2d", "--trainers", base, "--out", str(out)])
    printed = capsys.readouterr().out
    assert status == 0
    assert out.with_suffix(".md").read_text() == printed
    assert base in printed
    assert "Met" in printed
    assert "nnUNetTrainerMixUp" not in printed


def test_settings_of_a_trainer_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(step_time, "PRESETS", {"small-2d": TINY_2D})
    monkeypatch.setattr(step_time, "REQUIREMENTS", ())
    common = ["--device", "cpu", "--rounds", "2", "--preset", "small-2d", "--trainers", "nnUNetTrainerTDNet"]
    flops = []
    for chosen in ([], ["--set", "tdnet.dilations=[1,1]"]):
        out = tmp_path / f"result{len(flops)}"
        assert main([*common, *chosen, "--out", str(out)]) == 0
        assert all(words in out.with_suffix(".md").read_text() for words in chosen)
        flops.append(float(pd.read_csv(out.with_suffix(".csv"))["FLOP ratio"].iloc[-1]))
    three, two = flops
    assert three - 1 == pytest.approx(2 * (two - 1), rel=0.01)  # a decoder each beyond the first


def test_unknown_setting_is_named(capsys):
    assert main(["--device", "cpu", "--set", "tdnet.dilation=[1,1]"]) == 2
    assert "tdnet.dilation" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--rounds", "1"], ["--steps", "0"]])
def test_too_few_rounds_are_wrong_usage(arguments, capsys):
    assert main(["--device", "cpu", *arguments]) == 2
    assert "at least" in capsys.readouterr().err


def test_dual_encoder_is_timed_on_the_same_current_scan_with_a_prior_beside(build):
    alone, dual = build(nnUNetTrainerConfigurable), build(nnUNetTrainerDualEncoder)
    batch, longer = random_batch(alone), random_batch(dual)
    assert longer["data"].shape == (2, 4, 16, 16, 8)
    assert torch.equal(longer["data"][:, :1], batch["data"])
    assert torch.equal(longer["target"][0], batch["target"][0])
    assert step_flops(dual, longer) > 1.3 * step_flops(alone, batch)
