"""``nnunet_ext advise`` on datasets of every kind: what it says first, whether its commands parse, what it promises."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_ext.advice import FEW, VERDICTS, Facts
from nnunet_ext.checkpoints.networks import find_trainer
from nnunet_ext.cli import build_parser, main
from nnunet_ext.diagnosis import advising, step_times
from nnunet_ext.diagnosis.advising import Network, advice_for, schedule_for, steps
from nnunet_ext.diagnosis.step_times import StepTime, probed
from nnunet_ext.plans.settings import configured_settings
from nnunet_ext.registry import TECHNIQUES, TRAINERS
from support.command_blocks import ENTRY_POINTS
from support.pages import anchors
from support.raw_datasets import read_array, write_array, write_raw

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (8, 24, 24)
TWO = {"background": 0, "liver": 1, "spleen": 2}
OPEN = {**TWO, "ignore": 3}


def dense(number: int = 0) -> np.ndarray:
    """A box of each label."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:6, 3:9, 3 + number % 5 : 9] = 1
    labels[2:6, 12:20, 12:20] = 2
    return labels


def scribbled(number: int = 0) -> np.ndarray:
    """A stroke of each label in some slices, and nothing elsewhere."""
    labels = np.full(SHAPE, 3, np.uint8)
    labels[1:7, 0, 2:20] = 0
    labels[3:5, 5, 4:8] = 1
    labels[3:5, 15, 13:18] = 2
    return labels


def some_slices() -> np.ndarray:
    labels = dense()
    labels[::2] = 3
    return labels


def write(raw: Path, kind: str) -> None:
    """Dataset 5 of a kind."""
    folder = raw / "Dataset005_Some"
    if kind.startswith("dense"):
        write_raw(folder, {f"c{i}": dense(i) for i in range(FEW + 1 if kind == "dense many" else 4)}, names=TWO)
    elif kind == "scribbles":
        write_raw(folder, {f"c{i}": scribbled(i) for i in range(4)}, names=OPEN)
    elif kind == "slices":
        write_raw(folder, {f"c{i}": some_slices() for i in range(4)}, names=OPEN)
    elif kind == "partial":
        lists = {"c2": ["liver"], "c3": ["spleen"]}
        write_raw(
            folder,
            {f"c{i}": dense(i) * (dense(i) != {2: 2, 3: 1}.get(i, 9)) for i in range(4)},
            names=TWO,
            nnunet_ext={"annotated_labels": lists, "default": ["liver", "spleen"]},
        )
    elif kind == "partial alone":
        lists = {f"c{i}": [name] for i, name in enumerate(("liver", "liver", "spleen", "spleen", "spleen"))}
        write_raw(
            folder,
            {case: dense(i) * (dense(i) == TWO[lists[case][0]]) for i, case in enumerate(lists)},
            names=TWO,
            nnunet_ext={"annotated_labels": lists},
        )
    elif kind == "scribbles, some unlabelled":
        lists = {f"c{i}": ["liver", "spleen"] if i < 3 else [] for i in range(5)}
        write_raw(
            folder,
            {f"c{i}": scribbled(i) if i < 3 else np.zeros(SHAPE, np.uint8) for i in range(5)},
            names=OPEN,
            nnunet_ext={"annotated_labels": lists, "scribbled": ["c0", "c1", "c2"]},
        )
    elif kind in ("pairs", "pairs, some alone"):
        roles = {"current": [0], "prior_image": [1], "prior_labels": [2, 3]}
        channels = ("MRI", "MRI", "noNorm", "noNorm")
        cases = {f"c{i}": dense(i) for i in range(4)}
        write_raw(folder, cases, names=TWO, channels=channels, nnunet_ext={"longitudinal": roles})
        for case, labels in cases.items():
            for value, channel in ((1, 2), (2, 3)):
                write_array((labels == value).astype(np.uint8), folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
        for channel in (1, 2, 3) if kind == "pairs, some alone" else ():
            write_array(np.zeros(SHAPE, np.uint8), folder / "imagesTr" / f"c0_{channel:04d}.nii.gz")
        (folder / "pairs.json").write_text(
            json.dumps({"cases": {case: {"patient": number // 2} for number, case in enumerate(cases)}})
        )
    elif kind == "mixed":
        lists = {"c2": ["liver", "spleen"], "c3": []}
        write_raw(
            folder,
            {"c0": dense(), "c1": dense(1), "c2": scribbled(), "c3": np.zeros(SHAPE, np.uint8)},
            names=OPEN,
            nnunet_ext={"annotated_labels": lists, "default": ["liver", "spleen"], "scribbled": ["c2"]},
        )


EXPECTED = {
    "dense many": ["nnUNetTrainer"],
    "dense few": ["nnUNetTrainer", "nnUNetTrainerFineTune", "nnUNetTrainerMixUp", "nnUNetTrainerDGST"],
    "scribbles": ["nnUNetTrainer", "nnUNetTrainerTDNet"],
    "slices": ["nnUNetTrainer"],
    "partial": ["nnUNetTrainer", "nnUNetTrainerPartialLabels"],
    "partial alone": ["nnUNetTrainer", "nnUNetTrainerPartialLabels"],
    "scribbles, some unlabelled": ["nnUNetTrainer", "nnUNetTrainerModelsGenesis", "nnUNetTrainerMixedSupervision"],
    "pairs": ["nnUNetTrainer", "nnUNetTrainerDualEncoder"],
    "pairs, some alone": ["nnUNetTrainerDualEncoder", "nnUNetTrainerDualEncoder"],
    "mixed": ["nnUNetTrainer", "nnUNetTrainerModelsGenesis", "nnUNetTrainerMixedSupervision"],
}


@pytest.fixture(autouse=True)
def step_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of a known speed, without a GPU."""
    monkeypatch.setattr("nnunet_ext.machine.choose_device", lambda wanted: "cpu")
    monkeypatch.setattr(step_times, "probed", lambda dims, device, *, features: StepTime(1e-6 * features, "measured"))


@pytest.fixture
def advise(raw: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(kind: str, *options: str) -> dict[str, Any]:
        write(raw, kind)
        assert main(["advise", "-d", "5", "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    return run


class Parsed(Exception):
    """The arguments are right; the command is not carried out."""


def assert_parses(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, *arguments = shlex.split(command)
    if name == "nnunet_ext":
        build_parser().parse_args(arguments)
        return
    parse = argparse.ArgumentParser.parse_known_args  # nnU-Net's commands call it, or what calls it

    def only_parse(parser: argparse.ArgumentParser, *_: Any) -> None:
        _, unknown = parse(parser, arguments)
        if unknown:
            parser.error(f"unknown: {unknown}")
        raise Parsed

    with monkeypatch.context() as patch, pytest.raises(Parsed):
        patch.setattr(argparse.ArgumentParser, "parse_known_args", only_parse)
        ENTRY_POINTS[name].load()()


@pytest.mark.parametrize("options", [(), ("--hours", "100"), ("--hours", "1"), ("--gpu", "6")], ids=" ".join)
@pytest.mark.parametrize("kind", EXPECTED)
def test_the_baseline_comes_first_and_every_command_parses(
    kind: str, options: tuple[str, ...], advise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = advise(kind, *options)
    assert [step["trainer"] for step in told["steps"]] == EXPECTED[kind]
    assert told["steps"][0]["is_baseline"]
    for step in told["steps"]:
        assert step["hours"] > 0
        for command in step["commands"]:
            assert_parses(command, monkeypatch)


def test_a_gpu_that_is_too_small_for_any_plans_is_told_so(advise: Any) -> None:
    assert "more than there is" in advise("dense few", "--gpu", "0.1")["times"]
    assert "more than there is" not in advise("dense few", "--gpu", "24")["times"]


def test_a_wrong_command_would_not_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit):
        assert_parses("nnUNetv2_train 5 3d_fullres 0 --no-such-option", monkeypatch)


def test_a_fine_tuning_needs_the_memory_that_its_source_was_planned_for(raw: Path, capsys: Any) -> None:
    write(raw, "dense few")
    assert main(["advise", "-d", "5", "--gpu", "24"]) == 0
    _, stock, tuned, mixup, dgst = re.split(r"^\d\. ", capsys.readouterr().out, flags=re.MULTILINE)
    assert "about 8 GB of GPU memory" in stock
    assert "about 8 GB of GPU memory" in mixup
    for own in (tuned, dgst):
        assert "the GPU memory that the source was planned for" in " ".join(own.split())
        assert " GB of GPU memory" not in own


def test_what_is_seen_of_the_cases_is_told(advise: Any) -> None:
    facts = advise("mixed")["facts"]
    assert {kind: facts[kind] for kind in ("cases", "dense", "scribbled", "unlabelled", "partial")} == {
        **{"cases": 4, "dense": 2, "scribbled": 1, "unlabelled": 1, "partial": 0},
    }
    assert facts["shape"] == list(SHAPE)
    assert (facts["labels"], facts["priors"], facts["patients"]) == (2, None, None)


def test_pairs_are_counted_with_their_patients(advise: Any) -> None:
    facts = advise("pairs, some alone")["facts"]
    assert (facts["priors"], facts["has_prior_labels"], facts["patients"]) == (3, True, 2)


def test_only_the_user_knows_that_instances_are_missing(advise: Any, raw: Path) -> None:
    told = advise("dense few", "--missing-instances")
    assert [step["trainer"] for step in told["steps"]] == ["nnUNetTrainer", "nnUNetTrainerDBDMP"]
    (raw / "Dataset005_Some" / "instances.json").write_text("{}")  # of `simulate instances`
    assert [step["trainer"] for step in advise("dense few")["steps"]] == ["nnUNetTrainer", "nnUNetTrainerDBDMP"]


def test_only_the_user_knows_that_labels_are_wrong(advise: Any, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = advise("dense many", "--wrong-labels", "--hours", "1000")
    assert [step["trainer"] for step in told["steps"]] == ["nnUNetTrainer", "nnUNetTrainerADELE"]
    review = told["steps"][0]["commands"][-1]
    assert review == (
        'nnunet_ext review "$nnUNet_results/Dataset005_Some/nnUNetTrainer__nnUNetPlans__3d_fullres" -d 5 -o review'
    )
    for step in told["steps"]:
        for command in step["commands"]:
            assert_parses(command, monkeypatch)
    shortened = advise("dense few", "--wrong-labels", "--hours", "1")["steps"]  # whose model has another trainer's name
    assert "nnUNetTrainerConfigurable__nnUNetPlans__3d_fullres_" in shortened[0]["commands"][-1]
    assert shortened[-1]["trainer"] == "nnUNetTrainerADELE"
    stock, adele = schedule(Facts(dense=100, wrong_labels=True, has_regions=True), seconds=0.1)[1]
    assert not any("review" in command for command in stock.commands)  # it refuses regions
    assert adele.trainer == "nnUNetTrainerADELE"
    (raw / "Dataset005_Some" / "noise.json").write_text("{}")  # of `simulate noise`
    assert advise("dense few", "--hours", "1")["steps"] == shortened


def test_the_page_names_reason_time_evidence_and_results(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(raw, "scribbles")
    assert main(["advise", "-d", "5"]) == 0
    page = capsys.readouterr().out
    assert "4 cases (4 scribbled); which cases are of one patient is not known" in page
    assert re.search(r"1\. nnUNetTrainer \(baseline\)\n.*2\. nnUNetTrainerTDNet\n", page, re.DOTALL)
    assert "Evidence (not shown): " in page
    assert "   See docs/techniques/scribbles.md#results\n" in page
    assert "   $ nnunet_ext check -d 5 --trainer nnUNetTrainerTDNet\n" in page
    assert page.endswith(
        "\n\nThis advice is for one dataset. For images without labels elsewhere see docs/techniques/pretraining.md.\n"
        "\nPages that begin with docs/ are in the repository of this package.\n"
    )
    assert "for one fold, measured; network and patch (8 x 24 x 24) that nnU-Net usually plans" in " ".join(
        page.split()
    )


UNLABELLED = "Dataset005_Some"


def write_unlabelled(raw: Path, tmp_path: Path, shape: tuple[int, ...], ending: str = ".nii.gz") -> None:
    """Dataset 5, made by `nnunet_ext unlabelled`, of more cases than are few."""
    for number in range(FEW + 1):
        write_array(np.full(shape, 7 + number, np.uint8), tmp_path / "scans" / f"c{number}_0000{ending}")
    assert main(["unlabelled", str(tmp_path / "scans"), "-o", UNLABELLED, "--channels", "MRI"]) == 0


@pytest.mark.parametrize("options", [(), ("--missing-instances",), ("--wrong-labels",), ("--hours", "1", "--gpu", "6")])
def test_placeholders_are_no_dense_labels(
    options: tuple[str, ...], raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_unlabelled(raw, tmp_path, SHAPE)
    capsys.readouterr()
    assert main(["advise", "-d", "5", *options]) == 0
    page = capsys.readouterr().out
    described = f"{UNLABELLED}: {FEW + 1} cases ({FEW + 1} without annotation); which cases are of one patient is not "
    assert " ".join(page.split()).startswith(
        f"{described}known; placeholders in place of labels; median size 8 x 24 x 24 voxels. It has no labels: "
    )
    assert "   $ nnunet_ext merge TARGET 5 -o Dataset998_Merged\n   $ nnunet_ext advise -d 998\n" in page
    assert "   See docs/techniques/pretraining.md\n" in page
    for said in ("dense", "baseline", "Evidence", "No technique", "elsewhere", "missing", "wrong"):
        assert said not in page


@pytest.mark.parametrize(
    ("shape", "ending", "configuration"), [(SHAPE, ".nii.gz", "3d_fullres"), ((16, 16), ".png", "2d")]
)
def test_what_images_without_labels_are_for_has_commands_that_parse(
    shape: tuple[int, ...],
    ending: str,
    configuration: str,
    raw: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_unlabelled(raw, tmp_path, shape, ending)
    by_unlabelled = capsys.readouterr().out
    assert main(["advise", "-d", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["steps"] == []
    assert (told["facts"]["placeholders"], told["facts"]["unlabelled"], told["facts"]["labels"]) == (True, FEW + 1, 0)
    pretraining, merging, self_training = told["uses"]
    *first, configure, train = pretraining["commands"]
    assert f"nnUNetv2_train 5 {configuration} all -p nnUNetPlansFromTARGET" in first[-1]
    assert all(command.removesuffix(" -device cpu") in by_unlabelled for command in first[1:])
    assert all(command.endswith(" -device cpu") for command in (first[-1], train))  # of this machine
    # the model of the plain configuration is self-training's first teacher
    assert configure.endswith(f" --name {configuration}_pretrained")
    assert f" {configuration}_pretrained 0 " in train
    for use in (pretraining, merging, self_training):
        assert (ROOT / use["page"]).is_file()
        for command in use["commands"]:
            assert_parses(command.replace("TARGET", "4"), monkeypatch)


def test_images_elsewhere_are_not_spoken_of_where_some_are_here(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(raw, "mixed")
    assert main(["advise", "-d", "5", "--no-times"]) == 0
    assert "elsewhere" not in capsys.readouterr().out


def test_many_lesions_raise_the_question_whether_some_are_missing(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[::3, ::6, ::6] = 1
    write_raw(raw / "Dataset005_Some", {"a": labels, "b": labels})
    assert main(["advise", "-d", "5", "--no-times"]) == 0
    page = capsys.readouterr().out
    assert "add --missing-instances" in page
    assert "for one fold" not in page


def test_problems_of_the_files_come_first_and_make_the_status_1(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(raw, "dense few")
    file = raw / "Dataset005_Some" / "labelsTr" / "c1.nii.gz"
    write_array(read_array(file) * 5, file)
    assert main(["advise", "-d", "5", "--no-times"]) == 1
    page = capsys.readouterr().out
    assert "Fix this first:\nproblem  label values" in page
    for file in (raw / "Dataset005_Some" / "labelsTr").iterdir():
        file.unlink()
    assert main(["advise", "-d", "5", "--no-times"]) == 2
    assert "No case of" in capsys.readouterr().err


def test_cases_without_foreground_are_a_problem(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(raw / "Dataset005_Some", {f"c{i}": dense() * 0 for i in range(4)}, names=TWO)
    assert main(["advise", "-d", "5"]) == 1
    assert "no case has any: there is nothing to learn" in " ".join(capsys.readouterr().out.split())


# ---------------------------------------------------------------------- time and memory, by hand


def schedule(facts: Facts, seconds: float, **options: Any) -> tuple[Any, list[Any]]:
    """Of a network whose step takes so many seconds."""
    chosen = {"hours": None, "gpu_gb": None, "on_cpu": False, **options}
    advice = advice_for(facts, TECHNIQUES)
    network = Network((100, 100, 100), 2)
    planned = schedule_for(advice, network=network, probe=lambda *_: StepTime(seconds / 2e6, "known"), **chosen)
    return planned, steps(advice, planned, name="Dataset005_Some")


def test_hours_are_those_of_a_thousand_epochs() -> None:
    planned, (stock,) = schedule(Facts(dense=100), seconds=0.1)
    by_hand = 1000 * (250 + 50 / 3) * 0.1 / 3600
    assert planned.hours == stock.hours == pytest.approx(by_hand)
    assert stock.commands == [
        "nnUNetv2_plan_and_preprocess -d 5 -c 3d_fullres",
        "nnUNetv2_train 5 3d_fullres 0",
    ]


def test_hours_are_those_of_the_commands() -> None:
    scribbles = Facts(scribbled=100)
    planned, (stock, tdnet, *_) = schedule(scribbles, seconds=0.1)
    assert stock.hours == planned.hours == planned.whole_hours
    assert tdnet.trainer == "nnUNetTrainerTDNet"
    assert tdnet.hours == pytest.approx(stock.hours * 2.82 * 240 / 1000)  # its own schedule
    assert "nnUNetTrainerTDNet 240 epochs, nnU-Net 1000" in planned.note
    shortened, (stock, tdnet, *_) = schedule(scribbles, seconds=0.1, hours=5)
    assert tdnet.hours == pytest.approx(stock.hours * 2.82) == pytest.approx(5, rel=0.01)
    assert "240" not in shortened.note


def test_a_fine_tuning_has_the_network_of_its_source_whatever_the_preset() -> None:
    few = Facts(dense=10)
    planned, found = schedule(few, seconds=0.1)
    tuned = {step.trainer: step.hours for step in found}
    assert tuned["nnUNetTrainerFineTune"] == pytest.approx(planned.whole_hours * 50 / 1000)
    assert "DGST" not in planned.note
    quick, found = schedule(few, seconds=30, on_cpu=True)
    assert quick.epochs == 20
    assert quick.whole_hours == pytest.approx(300 * planned.whole_hours)
    tuned = {step.trainer: step.hours for step in found}
    assert tuned["nnUNetTrainerFineTune"] == pytest.approx(quick.whole_hours * 20 / 1000)
    assert tuned["nnUNetTrainer"] == quick.hours
    assert "nnUNetTrainerFineTune and nnUNetTrainerDGST, with the network of the source" in quick.note


def test_too_few_hours_shorten_all_trainings_alike() -> None:
    facts = Facts(dense=10, missing_instances=True)
    planned, (stock, other) = schedule(facts, seconds=0.1, hours=6.4)
    assert planned.epochs == int(1000 * 6.4 / (7.407 * 1.73))
    third = planned.epochs // 3
    line = f"num_epochs={planned.epochs} dbdmp.ramp_epochs={third}"
    assert stock.commands[1].endswith(f"--name 3d_fullres_short {line}")
    assert stock.commands[2] == "nnUNetv2_train 5 3d_fullres_short 0 -tr nnUNetTrainerConfigurable"
    assert other.commands[-1] == "nnUNetv2_train 5 3d_fullres_short 0 -tr nnUNetTrainerDBDMP"
    assert other.hours == pytest.approx(6.4, rel=0.01)


def test_on_a_slow_machine_the_preset_compares_methods() -> None:
    planned, (stock,) = schedule(Facts(dense=100), seconds=30, on_cpu=True)
    assert planned.configuration == "3d_fullres_quick"
    assert planned.hours == pytest.approx(20 * (50 + 10 / 3) * 30 * 2 * 96_000 / 2e6 / 3600)
    assert stock.commands[1:] == [
        "nnunet_ext plan -d 5 --preset quick -c 3d_fullres",
        "nnUNetv2_train 5 3d_fullres_quick 0 -tr nnUNetTrainerConfigurable -device cpu",
    ]


def test_the_preset_has_a_ramp_that_ends_in_its_epochs(
    advise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed commands are run on plans like those of nnU-Net."""
    folder = tmp_path / "preprocessed" / "Dataset005_Some"
    folder.mkdir(parents=True)
    monkeypatch.setenv("nnUNet_preprocessed", str(folder.parent))
    kwargs = {"features_per_stage": [32, 64, 128], "n_conv_per_stage": [2, 2, 2], "n_conv_per_stage_decoder": [2, 2]}
    architecture = {"network_class_name": "x", "arch_kwargs": {"n_stages": 3, **kwargs}, "_kw_requires_import": []}
    full = {"patch_size": [40, 56, 40], "spacing": [1.0] * 3, "batch_size": 9, "architecture": architecture}
    file = folder / "nnUNetPlans.json"
    file.write_text(json.dumps({"plans_name": "nnUNetPlans", "configurations": {"3d_fullres": full}}))
    stock, dbdmp = advise("dense few", "--missing-instances", "--hours", "0.1")["steps"]
    for command in stock["commands"]:
        program, *arguments = shlex.split(command)
        if program == "nnunet_ext" and arguments[0] != "split":
            assert main(arguments) == 0
    for trainer, step in (("nnUNetTrainerConfigurable", stock), ("nnUNetTrainerDBDMP", dbdmp)):
        _, _, configuration, _, _, chosen, *_ = step["commands"][-1].split()
        assert chosen == trainer
        settings = configured_settings(json.loads(file.read_text()), configuration)
        assert settings["num_epochs"] == 20
        assert settings["dbdmp"]["ramp_epochs"] == 6


def test_it_is_told_if_even_the_preset_takes_longer_than_there_is() -> None:
    enough, _ = schedule(Facts(dense=100), seconds=30, hours=1)
    assert enough.configuration == "3d_fullres_quick"
    assert "longer than you have" not in enough.note
    planned, _ = schedule(Facts(dense=100), seconds=30, hours=0.5)
    assert planned.note.endswith("It takes up to 51 minutes, which is longer than you have.")


@pytest.mark.parametrize(
    ("hours", "words"),
    [(0.001, "1 minute"), (0.5, "30 minutes"), (1.2, "1 hour"), (47.4, "47 hours"), (24 * 3.4, "3 days")],
)
def test_times_are_told_in_words(hours: float, words: str) -> None:
    assert advising.in_words(hours) == words


def test_a_small_gpu_gets_plans_that_fit_the_largest_training() -> None:
    planned, (stock, tdnet) = schedule(Facts(scribbled=10), seconds=0.1, gpu_gb=12)
    assert planned.target_gb == 5.6  # 12 / 2.13
    assert tdnet.memory_gb == pytest.approx(5.6 * 2.13)
    assert stock.commands[0].endswith("-gpu_memory_target 5.6 -overwrite_plans_name nnUNetPlans_5.6GB")
    assert stock.commands[-1] == "nnUNetv2_train 5 3d_fullres 0 -p nnUNetPlans_5.6GB"
    large, _ = schedule(Facts(scribbled=10), seconds=0.1, gpu_gb=24)
    assert (large.target_gb, large.plans) == (8, "nnUNetPlans")


def test_a_fold_is_drawn_where_nnunet_cannot_draw_its_five(advise: Any) -> None:
    told = advise("scribbles")
    prepared = [line for step in told["steps"] for line in step["commands"] if " split " in line]
    assert prepared == ["nnunet_ext split -d 5 --shots 3"]


def test_folds_are_drawn_of_the_cases_that_a_dataset_will_have(advise: Any) -> None:
    """Two of the four cases are dense, and go into a dataset of their own."""
    told = advise("mixed")
    prepared = [line for step in told["steps"] for line in step["commands"] if " split " in line]
    assert prepared == ["nnunet_ext split -d 999 --shots 1", "nnunet_ext split -d 5 --shots 3"]


def test_a_dataset_of_scribbled_cases_alone_has_only_their_folds(advise: Any) -> None:
    """Three of the five cases are scribbled."""
    told = advise("scribbles, some unlabelled")
    prepared = [line for step in told["steps"] for line in step["commands"] if " split " in line]
    assert prepared == ["nnunet_ext split -d 999 --shots 2"]


def test_a_model_for_each_set_of_labels_has_datasets_whose_cases_are_not_counted(advise: Any) -> None:
    told = advise("partial alone")
    assert "a stock model for each set of labels" in told["steps"][0]["why"]
    assert told["steps"][0]["commands"][-1].startswith("nnUNetv2_train 999 ")
    assert told["steps"][1]["commands"][-1].startswith("nnUNetv2_train 5 ")
    assert not [line for step in told["steps"] for line in step["commands"] if " split " in line]


def test_folds_of_a_dataset_are_kept(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(raw, "scribbles")
    (raw / "Dataset005_Some" / "splits_final.json").write_text("[]")
    assert main(["advise", "-d", "5"]) == 0
    assert " split " not in capsys.readouterr().out


def test_one_case_is_not_promised_a_training() -> None:
    planned, _ = schedule(Facts(dense=1), seconds=0.1)
    alone = advising.with_folds(planned, {"": 1})
    assert alone.preparation == planned.preparation
    assert "A single case cannot be divided" in alone.note
    assert advising.with_folds(planned, {"": 5}) == planned


def test_two_dimensional_data_are_trained_in_2d() -> None:
    network = advising.usual_network(Facts(dense=100, shape=(1, 300, 700)))
    assert (network.patch, network.batch) == ((300, 512), 12)
    advice = advice_for(Facts(dense=100), TECHNIQUES)
    options: dict[str, Any] = {"probe": None, "hours": None, "gpu_gb": None, "on_cpu": False}
    planned = schedule_for(advice, network=network, **options)
    assert (planned.configuration, planned.hours) == ("2d", None)


def test_plans_that_are_there_say_patch_and_batch(workspace: Any) -> None:
    network = advising.planned_network("Dataset901_Labels", Facts())
    assert network is not None
    assert network.is_planned
    assert advising.planned_network("Dataset999_None", Facts()) is None


def test_the_probe_measures_a_step() -> None:
    measured = probed(2, "cpu", features=2)
    assert measured.seconds_per_voxel > 0
    assert "on this machine (cpu" in measured.basis


def test_a_gpu_is_probed_with_a_large_patch_and_with_a_small_one_where_that_does_not_fit(monkeypatch) -> None:
    sizes = []

    def seconds(size: Any, device: str, features: int) -> float:
        sizes.append(size)
        if size == step_times.PROBED_ON_CUDA[3]:
            raise torch.OutOfMemoryError
        return 1.0

    monkeypatch.setattr(step_times, "_seconds_of_a_step", seconds)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert probed(3, "cuda").seconds_per_voxel == pytest.approx(1 / (32 * 64 * 64))
    assert probed(2, "cuda").seconds_per_voxel == pytest.approx(1 / (4 * 512 * 512))
    assert sizes == [(1, 128, 128, 128), (1, 32, 64, 64), (4, 512, 512)]


# ---------------------------------------------------------------------- what the techniques declare

ADVICE = [advice for technique in TECHNIQUES for advice in technique.advice]


@pytest.mark.parametrize("advice", ADVICE, ids=lambda advice: advice.trainer)
def test_advice_names_a_trainer_and_a_page_that_is_there(advice: Any) -> None:
    assert advice.trainer in {"nnUNetTrainer", *(entry.name for entry in TRAINERS)}
    assert advice.verdict in VERDICTS
    page, _, anchor = advice.results.partition("#")
    assert (ROOT / page).is_file()
    assert not anchor or anchor in anchors(ROOT / page)
    if advice.trainer != "nnUNetTrainer":
        own = find_trainer(advice.trainer).default_settings.get("num_epochs")
        assert advice.epochs == own
    assert ("ot measured" in advice.evidence) >= (advice.verdict == "not measured" and not advice.is_baseline)


@pytest.mark.parametrize("dense", [1, FEW, FEW + 1, 1000])
def test_dense_cases_alone_always_have_a_baseline(dense: int) -> None:
    facts = Facts(dense=dense)
    others = ({"priors": dense}, {"missing_instances": True}, {"partial": 3}, {"wrong_labels": True})
    others += ({"wrong_labels": True, "has_regions": True},)
    for one in (facts, *(replace(facts, **other) for other in others)):
        assert [advice.is_baseline for advice in advice_for(one, TECHNIQUES)].count(True) == 1


KINDS = ("dense", "scribbled", "sliced", "partial", "unlabelled")


@pytest.mark.parametrize(
    "options", [{}, {"missing_instances": True}, {"has_regions": True}, {"has_prior_labels": True}]
)
@pytest.mark.parametrize("cases", [5, FEW + 1])
def test_whatever_is_annotated_has_a_baseline_which_comes_first(cases: int, options: dict[str, Any]) -> None:
    for present in itertools.product((0, cases), repeat=len(KINDS)):
        facts = Facts(**dict(zip(KINDS, present)), **options)
        for priors in (facts.cases, 1) if facts.has_prior_labels else (None,):
            advice = advice_for(replace(facts, priors=priors), TECHNIQUES)
            if any(present[:-1]):
                assert advice[0].is_baseline, (facts, priors)
            if facts.partial and not facts.sliced:
                # no second baseline that takes missing labels for background
                assert sum(one.is_baseline and not one.dataset for one in advice) <= facts.missing_instances


def test_where_all_have_priors_stock_is_first_and_misaligned_ones_are_worth_a_second_encoder() -> None:
    stock, second = advice_for(Facts(dense=30, priors=30, has_prior_labels=True), TECHNIQUES)
    assert (stock.trainer, stock.is_baseline) == ("nnUNetTrainer", True)
    assert second.trainer == "nnUNetTrainerDualEncoder"
    assert "may be misaligned" in second.why
    assert "by one seed, which does not decide" in second.evidence
    # stock has no prior dropout: what was measured with it is not said of stock
    for figure in ("+0.027", "0.857", "with prior dropout", "no other method"):
        assert figure not in stock.evidence
    assert advice_for(Facts(dense=30, priors=30), TECHNIQUES)[1:] == []  # without labels of the priors
