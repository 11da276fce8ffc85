"""What padding costs: the trainers that exist for that benchmark are real, the programs that train are stand-ins."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import padding_trainers
from benchmarks.dbdmp_padding import METHODS as DBDMP_METHODS
from benchmarks.dbdmp_padding import planned_runs as planned_dbdmp_runs
from benchmarks.padding import COARSE, LENGTHS, PADDINGS, STAGES, TRAINERS, main, parts_of, planned_runs
from nnunet_ext import trainers
from nnunet_ext.commands.configure import check_name
from nnunet_ext.files import read_json, write_json
from support.acdc_programs import Programs, by_label, install, write_origin
from support.changed_trainers import at_every_resolution, changed_trainer
from support.tiny_data import IGNORE


def raw_batch(trainer):
    """Half padding, a quarter annotated."""
    patch = trainer.configuration_manager.patch_size
    target = torch.full((2, 1, *patch), float(IGNORE))
    target[..., :4] = 1
    target[..., 8:] = -1
    return {"data": torch.randn(2, 1, *patch), "target": at_every_resolution(trainer, target), "keys": ["a", "b"]}


@pytest.mark.parametrize("name", ["TDNet", "DMPLS", "PartialCE"])
def test_trainers_as_they_were_believe_that_padding_is_background(name, workspace, results):
    known = {}
    for end in ("", "Padding"):
        cls = getattr(padding_trainers if end else trainers, f"nnUNetTrainer{name}{end}")
        trainer = changed_trainer(cls, kind="ignore")
        trainer.initialize()
        batch = trainer.prepare_batch(raw_batch(trainer), training=True)
        scribbles = trainer.scribbles(batch)[0]
        known[end] = [(scribbles.is_known & (batch["target"][0] == value)).float().mean().item() for value in (0, 1)]
    assert known == {"": [0.0, 0.25], "Padding": [0.5, 0.25]}


def test_stock_without_padding_has_nnunets_loss_where_padding_is_ignored(workspace, results):
    trainer = changed_trainer(padding_trainers.nnUNetTrainerWithoutPadding, kind="ignore")
    trainer.initialize()
    raw = raw_batch(trainer)
    batch = trainer.prepare_batch(raw, training=True)
    outputs = [torch.randn(2, 3, *one.shape[2:]) for one in raw["target"]]
    found = trainer.loss_terms(outputs, batch)["segmentation"]
    expected = trainer.loss(outputs, [torch.where(one == -1, IGNORE, one) for one in raw["target"]])
    assert found == expected
    assert found != trainer.loss(outputs, [torch.where(one == -1, 0, one) for one in raw["target"]])


def test_dbdmp_with_supervised_padding_leaves_it_out_of_the_pseudo_labels_alone(workspace, results):
    trainer = changed_trainer(padding_trainers.nnUNetTrainerDBDMPSupervisedPadding)
    inside = torch.tensor([True, False]).reshape(1, 1, 1, 2)
    annotation = trainer.known(torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2), inside)
    assert annotation.counts.all()
    assert torch.equal(annotation.inside, inside)


def test_every_trainer_runs_with_both_paddings_lengths_and_seeds():
    runs = planned_runs(3)
    assert len({run.name for run in runs}) == len(runs) == len(TRAINERS) * len(PADDINGS) * len(LENGTHS) * 3
    assert [parts_of(run)[0] for run in runs] == [160] * 24 + [1000] * 24
    for run in runs:
        check_name(run.name)
        steps, padding = parts_of(run)
        settings = run.method.settings
        assert settings["num_epochs"] * settings["num_iterations_per_epoch"] == steps
        found = hasattr(trainers, run.method.trainer)
        assert found == ((padding == "left out") != (run.method.family == "stock, ignore label"))
        assert found or hasattr(padding_trainers, run.method.trainer)
    assert {run.method.trainer for run in planned_dbdmp_runs()} == {method.trainer for method in DBDMP_METHODS}
    assert len({run.name for run in planned_dbdmp_runs()}) == 6


class PaddingPrograms(Programs):
    """Dice of .6 with padding left out and of .5 with padding as background; both .1 better after 1,000 steps."""

    def runner(self):
        plain, programs = super().runner(), self

        class Runner(plain):
            def run(self, name, command):
                if command[0] != "nnUNetv2_preprocess":
                    return super().run(name, command)
                programs.note(name, command)
                return None

        return Runner

    def carry_out(self, command, *, environment, log=None):
        result = super().carry_out(command, environment=environment, log=log)
        if command[1] == "plan":
            (folder,) = Path(environment["nnUNet_preprocessed"]).glob("Dataset*")
            plans = read_json(folder / "nnUNetPlans.json")
            per_stage = dict.fromkeys(("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"), [1] * 6)
            kwargs = {**per_stage, "n_stages": 6, "n_conv_per_stage_decoder": [1] * 5}
            plans["configurations"]["2d_quick"]["architecture"] = {"arch_kwargs": kwargs}
            write_json(folder / "nnUNetPlans.json", plans)
        return result

    def dice(self, model, dataset):
        return 0.5 + 0.1 * ("left_out" in model) + 0.1 * ("_1000_" in model)

    def scores(self, model, dataset, cases):
        return {
            **super().scores(model, dataset, cases),
            "assd": by_label(cases, 2.0),
            "hd95": by_label(cases, 10.0),
        }


def test_results_compare_both_paddings(tmp_path, monkeypatch, capsys):
    write_origin(tmp_path / "raw" / "Dataset027_ACDCScribble")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    programs = PaddingPrograms()
    install(programs, monkeypatch)
    arguments = ["--out", str(tmp_path / "out"), "--device", "cpu", "--patients", "4", "--test-patients", "2"]
    assert main([*arguments, "--seeds", "2"]) == 0
    out = tmp_path / "out"
    (preprocessed,) = (out / "nnUNet_preprocessed").iterdir()
    coarse = read_json(preprocessed / "nnUNetPlans.json")["configurations"]["2d_quick"]
    assert {key: coarse[key] for key in COARSE} == COARSE
    kwargs = coarse["architecture"]["arch_kwargs"]
    assert len(kwargs["strides"]) == kwargs["n_stages"] == STAGES
    assert len(kwargs["n_conv_per_stage_decoder"]) == STAGES - 1
    with (out / "padding.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32 * 4 * 3  # runs, cases of two patients, labels
    of_tdnet = [row for row in rows if (row["method"], row["steps"], row["padding"]) == ("TDNet", "160", "left out")]
    assert np.mean([float(row["dice"]) for row in of_tdnet]) == pytest.approx(0.6)
    text = (out / "padding.md").read_text(encoding="utf-8")
    (line,) = [one for one in text.splitlines() if one.startswith("| TDNet") and " 1000 " in one]
    assert "0.600" in line
    assert "0.700" in line
    assert "+0.100 [+0.100, +0.100]" in line
    assert str(tmp_path) not in text
    programs.ran.clear()
    assert main([*arguments, "--seeds", "2"]) == 0
    assert programs.ran == []
