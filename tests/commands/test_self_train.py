"""``nnunet_ext self-train``: its rounds and when they stop, with stand-ins for its commands, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.claims import holder
from nnunet_ext.cli import main
from nnunet_ext.evaluation.metrics import DICE
from nnunet_ext.programs import end_group, group_exists
from support.labelling import SOURCE, case_arrays
from support.sweeps import eventually

UNLABELLED = "Dataset707_Unlabelled"
MODEL = "nnUNetTrainerMixUp__nnUNetPlans__3d_fullres"

# Stands in for every program, by its name: leaves behind what it would, and notes how it was called.
STAND_IN = """
import csv, json, os, shutil, sys, time
from pathlib import Path

here, verb, args = Path(__file__).parent, Path(__file__).name, sys.argv[1:]
raw, preprocessed, results = (Path(os.environ[f"nnUNet_{name}"]) for name in ("raw", "preprocessed", "results"))
options = dict(zip(args, args[1:]))
if verb == "nnunet_ext":
    verb = args[0]
with open(here / "calls.jsonl", "a") as file:
    file.write(json.dumps([verb, *args]) + "\\n")
plan = json.loads((here / "plan.json").read_text())
print(f"{verb} begins", flush=True)
if (here / f"hold {verb}").exists():
    (here / f"hold {verb}").write_text(str(os.getpid()))
    (here / f"hold {verb}").rename(here / "held")
    time.sleep(1000)
if plan.get("fail") == verb:
    sys.exit("CUDA out of memory")
if verb == "nnUNetv2_train":
    model = results / args[0] / f"{options['-tr']}__nnUNetPlans__{args[1]}"
    (model / f"fold_{args[2]}" / "validation").mkdir(parents=True)
    for name in ("checkpoint_final.pth", "validation/summary.json"):
        (model / f"fold_{args[2]}" / name).write_text("{}")
elif verb == "nnUNetv2_move_plans_between_datasets":
    (source,), (target,) = (list(preprocessed.glob(f"Dataset{options[key]}_*")) for key in ("-s", "-t"))
    shutil.copy(source / "nnUNetPlans.json", target)
elif verb == "pseudo-label":
    new, old, scans = raw / options["-o"], raw / options["--with"], raw / options["-d"]
    number = int(options["-o"].rpartition("Round")[2])
    shutil.copytree(old / "labelsTr", new / "labelsTr")
    description = json.loads((old / "dataset.json").read_text())
    listed = json.loads((scans / "dataset.json").read_text())["dataset"]
    for name in listed:
        shutil.copy(new / "labelsTr" / "case_0.nii.gz", new / "labelsTr" / f"{name}.nii.gz")
        listed[name] = {"images": [str(scans / listed[name]["images"][0])], "label": f"labelsTr/{name}.nii.gz"}
    for name in ("case_0", "case_1", "case_2"):
        listed[name] = {"images": [str(old / f"imagesTr/{name}_0000.nii.gz")], "label": f"labelsTr/{name}.nii.gz"}
    words, numbers = args[args.index("-f") + 1:], []
    while words and words[0].isdigit():
        numbers.append(int(words.pop(0)))
    model = {"folder": Path(args[1]).name, "folds": numbers, "mirroring": "--disable-tta" not in args}
    about = {"labelled_from": options["-d"], "with": options["--with"], "threshold": float(options["--threshold"])}
    about |= {"least_share": float(options["--least-share"]), "models": [model]}
    about["largest_component"] = options.get("--largest-component")
    (new / "dataset.json").write_text(json.dumps({**description, "dataset": listed, "nnunet_ext": about}))
    with open(new / "pseudo_labels.csv", "w") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "open_voxels", "labelled_voxels", "foreground_share", "left_out", "voxels_node"])
        labelled, added = plan.get("labelled", {}).get(str(number), [90, 30])
        rows.writerow(["scan_0", 100, labelled, 0.75, plan.get("left_out") == "all", added])
        rows.writerow(["scan_1", 100, labelled, "", bool(plan.get("left_out")), 0])
elif verb == "evaluate":
    out = Path(options["-o"])
    out.mkdir(parents=True, exist_ok=True)
    dice = plan["dice"][int(out.parent.name.partition("_")[2])]
    lines = [f"1,,D,,{case},{case},node,NAME,{dice + gain},1.0" for case, gain in (("case_1", 0), ("case_2", 0.1))]
    header = "run,seed,dataset,references,case,patient,label,metric,numerator,denominator"
    (out / "scores.csv").write_text("\\n".join([header, *lines]) + "\\n")
""".replace("NAME", DICE.name)


class Programs:
    """The stand-ins, what they are told, and how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        train = ("nnUNetv2_train", "nnUNetv2_preprocess", "nnUNetv2_move_plans_between_datasets")
        for name in (*train, "nnunet_ext"):
            (folder / name).write_text(f"#!/bin/sh\n'''exec' \"{sys.executable}\" -S \"$0\" \"$@\"\n' '''\n{STAND_IN}")
            (folder / name).chmod(0o755)

    def plan(self, *dice: float, **more: object) -> None:
        (self.folder / "plan.json").write_text(json.dumps({"dice": dice, **more}))

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls.jsonl").read_text().splitlines()]

    def verbs(self) -> list[str]:
        return [call[0] for call in self.calls()]


@pytest.fixture
def programs(tmp_path, monkeypatch):
    folder = tmp_path / "programs with spaces"
    folder.mkdir()
    found = Programs(folder)
    found.plan(0.5, 0.6, 0.55)
    monkeypatch.setattr("nnunet_ext.self_training.rounds.find_executable", lambda name: folder / name)
    return found


@pytest.fixture
def ready(place):
    """The labelled dataset is planned, and there are two cases without labels."""
    folder = place.preprocessed / SOURCE
    planned = {"3d_fullres": {"architecture": {}}, "second": {"architecture": {}, "previous_stage": "3d_fullres"}}
    plans = {"plans_name": "nnUNetPlans", "image_reader_writer": "SimpleITKIO", "configurations": planned}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    (folder / "dataset_fingerprint.json").write_text("{}")
    image, _ = case_arrays()
    for number in range(3):  # by their content, too, they are different cases
        place.write_case(f"case_{number}", image * np.float32(1 - 0.1 * number), case_arrays()[1])
    scans = place.root / "scans"
    scans.mkdir()
    for number in range(2):
        written = sitk.GetImageFromArray(image * np.float32(0.5 - 0.1 * number))
        sitk.WriteImage(written, str(scans / f"scan_{number}_0000.nii.gz"))
    assert main(["unlabelled", str(scans), "-o", UNLABELLED, "--channels", "MRI"]) == 0
    return place


def self_train(place, *arguments, unlabelled="707", trainer="nnUNetTrainerMixUp", configuration="3d_fullres", fold="1"):
    command = ["self-train", "-d", unlabelled, "--with", "705", "-c", configuration, "-tr", trainer, "-f", fold]
    return main([*command, "--id", "720", "-o", str(place.root / "run"), "--device", "cpu", *arguments])


def state(place):
    return json.loads((place.root / "run" / "self_training.json").read_text())


def of_round(number):
    return ["pseudo-label", "nnUNetv2_move_plans_between_datasets", "nnUNetv2_preprocess", "nnUNetv2_train", "evaluate"]


def test_it_stops_at_the_first_round_that_is_not_better_and_keeps_the_best(ready, programs, capsys):
    assert self_train(ready, "--rounds", "5") == 0
    assert programs.verbs() == ["nnUNetv2_train", "evaluate", *of_round(1), *of_round(2)]
    label_1, label_2 = [call for call in programs.calls() if call[0] == "pseudo-label"]
    assert label_1[2] == str(ready.results / SOURCE / MODEL)
    assert label_2[2] == str(ready.results / "Dataset720_PartialRound1" / MODEL), "the student teaches in turn"
    assert label_2[label_2.index("--with") + 1] == SOURCE
    zero, first, second = state(ready)["rounds"]
    assert zero["dice"]["value"] == pytest.approx(0.55)
    assert first["difference"]["value"] == pytest.approx(0.1)
    assert first["difference"]["interval"]["low"] == pytest.approx(0.1)
    assert second["difference"]["value"] == pytest.approx(-0.05)
    assert first["labelling"] == {"cases": 2, "left_out": 0, "share": 0.9, "agreement": 0.75, "added": {"node": 30}}
    said = capsys.readouterr().out
    assert "Round 2 has not improved the held-out cases by more than 0 Dice. The best is round 1." in said
    page = (ready.root / "run" / "report.html").read_text()
    assert "Round 2 has not improved" in page
    assert "Round 1 is the best one" in page
    assert f"nnUNetv2_predict_from_modelfolder -m &#39;{ready.results / 'Dataset720_PartialRound1' / MODEL}" in page
    assert "90.0% of the voxels in 2 cases" in page


def test_what_is_one_piece_is_passed_on_and_said(ready, programs):
    assert self_train(ready, "--rounds", "1", "--largest-component", "labels") == 0
    (label,) = [call for call in programs.calls() if call[0] == "pseudo-label"]
    assert label[label.index("--largest-component") + 1] == "labels"
    said = "where a body is one component of each label."
    assert said in (ready.root / "run" / "report.html").read_text()


def test_students_are_trained_on_pseudo_labels_and_never_on_held_out_cases(ready, programs):
    assert self_train(ready, "--rounds", "1") == 0
    folder = ready.preprocessed / "Dataset720_PartialRound1"
    first, second = json.loads((folder / "splits_final.json").read_text())
    assert second == {"train": ["case_0", "scan_0", "scan_1"], "val": ["case_1", "case_2"]}
    assert first["val"] == ["case_0"]
    assert "scan_0" in json.loads((folder / "dataset.json").read_text())["dataset"]
    train = [call for call in programs.calls() if call[0] == "nnUNetv2_train"]
    assert train[1][1:4] == ["Dataset720_PartialRound1", "3d_fullres", "1"]
    assert "-pretrained_weights" not in train[1]
    (evaluate, *_) = [call for call in programs.calls() if call[0] == "evaluate"]
    assert evaluate[evaluate.index("--on") + 1] == f"{SOURCE}:val"


def test_cases_that_were_left_out_are_counted_on_the_page(ready, programs):
    programs.plan(0.5, 0.4, left_out=True)
    assert self_train(ready) == 0
    assert "of the voxels in 1 case, 1 left out" in (ready.root / "run" / "report.html").read_text()


def test_a_gain_below_the_margin_is_none(ready, programs, capsys):
    assert self_train(ready, "--margin", "0.15") == 0
    assert "Round 1 has not improved the held-out cases by more than 0.15 Dice. The best is round 0." in (
        capsys.readouterr().out
    )


def test_more_rounds_can_be_asked_for_later(ready, programs, capsys):
    assert self_train(ready, "--rounds", "1") == 0
    assert "Round 1 was the last one that was asked for" in capsys.readouterr().out
    assert self_train(ready, "--rounds", "2") == 0
    assert programs.verbs() == ["nnUNetv2_train", "evaluate", *of_round(1), *of_round(2)], "nothing was done twice"


def test_students_start_from_their_teachers_if_asked(ready, programs):
    assert self_train(ready, "--rounds", "1", "--continue-from-teacher") == 0
    (_, train) = [call for call in programs.calls() if call[0] == "nnUNetv2_train"]
    weights = ready.results / SOURCE / MODEL / "fold_1" / "checkpoint_final.pth"
    assert train[-2:] == ["-pretrained_weights", str(weights)]


@pytest.mark.parametrize(
    ("labelled", "reason"), [([90, 0], "no voxel became foreground"), ([0, 0], "every voxel is uncertain")]
)
def test_a_teacher_that_labels_nothing_ends_it(ready, programs, capsys, labelled, reason):
    programs.plan(0.5, 0.6, labelled={"2": labelled})
    assert self_train(ready) == 0
    assert f"The teacher of round 2 labelled nothing to learn from: {reason}. The best is round 1." in (
        capsys.readouterr().out
    )
    assert programs.verbs().count("nnUNetv2_train") == 2
    assert reason in (ready.root / "run" / "report.html").read_text()


def test_a_teacher_whose_cases_are_all_left_out_ends_it(ready, programs, capsys):
    programs.plan(0.5, left_out="all")
    assert self_train(ready, "--least-share", "0.9") == 1
    shown = capsys.readouterr().out
    assert "The teacher of round 1 labelled nothing to learn from: --least-share left out all of its 2 cases." in shown
    assert self_train(ready, "--least-share", "0.9") == 1
    assert programs.verbs().count("pseudo-label") == 1


def test_a_first_teacher_that_labels_nothing_is_a_problem(ready, programs, capsys):
    programs.plan(0.5, labelled={"1": [0, 0]})
    assert self_train(ready) == 1
    assert "The best is round 0" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["nnUNetv2_train", "evaluate", *of_round(1)[:3]])
def test_ctrl_c_ends_the_command_and_the_run_goes_on_when_repeated(ready, programs, verb):
    (programs.folder / f"hold {verb}").touch()

    def press() -> None:
        eventually((programs.folder / "held").is_file, "the command runs")
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    assert self_train(ready, "--rounds", "1") == 130
    thread.join()
    group = int((programs.folder / "held").read_text())
    assert not group_exists(group)
    assert self_train(ready, "--rounds", "1") == 0
    verbs = programs.verbs()
    assert verbs.count(verb) == (3 if verb in ("nnUNetv2_train", "evaluate") else 2)
    assert [one["number"] for one in state(ready)["rounds"]] == [0, 1]


def test_a_labelling_that_was_interrupted_may_begin_anew_where_it_cannot_go_on(ready, programs):
    """As after an upgrade of this package, which counts among the rules of its labels."""
    programs.plan(0.5, 0.6, fail="pseudo-label")
    assert self_train(ready, "--rounds", "1") == 1
    programs.plan(0.5, 0.6)
    assert self_train(ready, "--rounds", "1") == 0
    first, second = [call for call in programs.calls() if call[0] == "pseudo-label"]
    assert "--force" not in first, "it would replace what somebody else has made"
    assert second == [*first, "--force"]
    assert "--force" not in state(ready)["done"]["round 1: label"]


@pytest.mark.parametrize("verb", ["nnUNetv2_train", "pseudo-label"])
def test_the_command_of_a_run_that_was_killed_is_ended_by_the_next_one(ready, programs, verb):
    (programs.folder / f"hold {verb}").touch()
    process = os.fork()
    if process == 0:
        os._exit(self_train(ready, "--rounds", "1"))
    eventually((programs.folder / "held").is_file, "the command runs")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    group = int((programs.folder / "held").read_text())
    assert group_exists(group), "it goes on by itself"
    assert self_train(ready, "--rounds", "1") == 0
    eventually(lambda: not group_exists(group), "it has ended")
    assert holder(ready.root / "run" / "command.claim") is None
    assert [one["number"] for one in state(ready)["rounds"]] == [0, 1]


def test_labels_that_another_self_training_made_meanwhile_are_refused(ready, programs, capsys):
    """Both had begun the round, and the other one was faster."""
    (programs.folder / "hold pseudo-label").touch()
    process = os.fork()
    if process == 0:
        os._exit(self_train(ready, "--rounds", "1", "--threshold", "0.9"))
    eventually((programs.folder / "held").is_file, "the command runs")
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    end_group(int((programs.folder / "held").read_text()))
    kept = (ready.root / "run").rename(ready.root / "kept")
    assert self_train(ready, "--rounds", "1") == 0
    (ready.root / "run").rename(ready.root / "other")
    kept.rename(ready.root / "run")
    assert self_train(ready, "--rounds", "1", "--threshold", "0.9") == 2
    assert "was not made by this self-training: threshold is 0.8" in capsys.readouterr().err


def test_a_command_that_fails_is_named_with_its_last_output(ready, programs, capsys):
    programs.plan(0.5, 0.6, 0.5, fail="nnUNetv2_preprocess")
    assert self_train(ready) == 1
    said = capsys.readouterr().err
    assert "nnUNetv2_preprocess -d 720" in said
    assert "CUDA out of memory" in said
    assert "Repeat nnunet_ext self-train to go on." in said
    programs.plan(0.5, 0.6, 0.5)
    assert self_train(ready) == 0


def test_another_request_needs_another_folder(ready, programs, capsys):
    assert self_train(ready) == 0
    assert self_train(ready, "--threshold", "0.9") == 2
    assert "holds another self-training:\n  - threshold: 0.8, asked for: 0.9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda found: [], "is not as nnunet_ext self-train writes it"),
        (lambda found: {**found, "request": {}}, "is not as nnunet_ext self-train writes it"),
        (lambda found: {**found, "rounds": [{**found["rounds"][0], "number": "none"}]}, "rounds.0.number"),
        (lambda found: {**found, "rounds": found["rounds"][1:]}, "has the rounds 1, 2"),
        (lambda found: {**found, "rounds": [{**found["rounds"][0], "dice": None}]}, "round 0 has no score"),
    ],
)
def test_a_damaged_state_is_named(ready, programs, capsys, damage, message):
    assert self_train(ready) == 0
    file = ready.root / "run" / "self_training.json"
    file.write_text(json.dumps(damage(state(ready))))
    assert self_train(ready) == 2
    said = capsys.readouterr().err
    assert str(file) in said
    assert message in said


def test_a_damaged_table_of_pseudo_labels_is_named(ready, programs, capsys):
    programs.plan(0.5, 0.6, fail="nnUNetv2_preprocess")
    assert self_train(ready) == 1
    (ready.raw / "Dataset720_PartialRound1" / "pseudo_labels.csv").write_text("case\nscan_0\n")
    assert self_train(ready) == 2
    assert "pseudo_labels.csv is not as nnunet_ext pseudo-label writes it" in capsys.readouterr().err


def test_a_given_teacher_is_scored_in_round_0_and_not_trained(ready, programs, capsys):
    ready.write_splits([(["case_1", "case_2"], ["case_0"]), (["case_0"], ["case_1", "case_2"])])
    assert self_train(ready, "--teacher", str(ready.model), "--rounds", "1") == 0
    assert programs.verbs() == ["evaluate", *of_round(1)]
    assert programs.calls()[0][2] == str(ready.model)
    assert state(ready)["remarks"] == []


def test_that_the_cases_of_a_teacher_are_not_known_is_said(ready, programs, capsys):
    teacher = ready.results / "Dataset099_Elsewhere" / ready.model.name
    shutil.copytree(ready.model, teacher)
    assert self_train(ready, "--teacher", str(teacher), "--rounds", "1") == 0
    for said in (capsys.readouterr().out, (ready.root / "run" / "report.html").read_text()):
        assert "is not known: Dataset099_Elsewhere" in said


def test_a_teacher_that_has_trained_on_held_out_cases_is_refused(ready, programs, capsys):
    arguments = ["--teacher", str(ready.model), "--teacher-folds", "0", "1", "--held-out", "705:all"]
    assert self_train(ready, *arguments) == 2
    assert "cases of that name are in the training cases of Dataset705_Partial" in capsys.readouterr().err


def test_a_held_out_case_that_is_trained_on_under_another_name_is_refused(ready, programs, capsys):
    held = ready.raw / "Dataset708_HeldOut"
    shutil.copytree(ready.source, held)
    for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
        (held / part / f"case_0{ending}").rename(held / part / f"patient{ending}")
        for number in (1, 2):
            (held / part / f"case_{number}{ending}").unlink()
    assert self_train(ready, "--held-out", "708:all") == 2
    assert "is the image of patient in Dataset708_HeldOut_all. Scores on cases" in capsys.readouterr().err


def held_out(place, **labels):
    """A dataset to hold out, whose cases are others."""
    held = place.raw / "Dataset708_HeldOut"
    shutil.copytree(place.source, held)
    for number in range(3):
        for part, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
            file = held / part / f"case_{number}{ending}"
            array = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            sitk.WriteImage(sitk.GetImageFromArray(array / 3 if part == "imagesTr" else array), str(file))
            file.rename(held / part / f"patient_{number}{ending}")
    content = {**place.description, "labels": {"background": 0, **labels}}
    (held / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("by", ["--patients", "pairs.json"])
@pytest.mark.parametrize(
    ("dataset", "case", "where"),
    [
        (UNLABELLED, "scan_0", UNLABELLED),
        (SOURCE, "case_0", f"the training cases of {SOURCE}"),
        ("Dataset708_HeldOut", "patient_0", "the training cases of Dataset708_HeldOut"),  # a teacher's
    ],
)
def test_another_case_of_a_held_out_patient_is_refused(ready, programs, capsys, dataset, case, where, by):
    arguments = []
    if dataset == "Dataset708_HeldOut":
        held_out(ready, node=1)
        (ready.preprocessed / dataset).mkdir()
        splits = [{"train": [], "val": []}, {"train": ["patient_0"], "val": []}]
        (ready.preprocessed / dataset / "splits_final.json").write_text(json.dumps(splits))
        shutil.copytree(ready.model, ready.results / dataset / MODEL)
        arguments = ["--teacher", str(ready.results / dataset / MODEL)]
    people = {SOURCE: {"case_1": "p1", "case_2": 2}}
    people[dataset] = {**people.get(dataset, {}), case: "p1"}
    file = ready.root / "patients.json"
    for name, patients in people.items() if by == "pairs.json" else ():
        record = {"made_by": "pair", "cases": {one: {"patient": patient} for one, patient in patients.items()}}
        (ready.raw / name / by).write_text(json.dumps(record))
    if by == "--patients":
        file.write_text(json.dumps({one: patient for patients in people.values() for one, patient in patients.items()}))
        arguments += ["--patients", str(file), "--bootstrap", "0"]
    assert self_train(ready, *arguments) == 2
    told = f"{case} in {where}: their patients are held out, such as p1 with case_1 in {SOURCE}_val. Scores on patients"
    assert told in capsys.readouterr().err
    assert not (ready.root / "run").exists()


def test_patients_of_one_name_can_be_told_apart(ready, programs):
    for dataset, case in ((SOURCE, "case_1"), (UNLABELLED, "scan_0")):
        (ready.raw / dataset / "pairs.json").write_text(json.dumps({"cases": {case: {"patient": "p1"}}}))
    file = ready.root / "patients.json"
    file.write_text(json.dumps({"case_1": "p1 of the first", "case_2": "p2", "scan_0": "p1 of the second"}))
    assert self_train(ready, "--patients", str(file), "--bootstrap", "0", "--rounds", "1") == 0
    assert "--patients" not in programs.calls()[-1]  # which is for intervals


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"other": 1, "node": 2}, "Label 'node' has the value 1 in the model and 2 in Dataset708_HeldOut_all."),
        ({"other": 1}, "have no label in common"),
    ],
)
def test_held_out_cases_with_other_labels_are_refused_before_anything_is_trained(
    ready, programs, capsys, labels, message
):
    held_out(ready, **labels)
    assert self_train(ready, "--held-out", "708:all") == 2
    assert message in capsys.readouterr().err
    assert not (programs.folder / "calls.jsonl").exists()


def test_held_out_cases_without_one_of_the_labels_are_told_of(ready, programs):
    labels = {"background": 0, "node": 1, "organ": 2}
    ready.describe(labels=labels, model={"labels": labels})
    held_out(ready, node=1)
    assert self_train(ready, "--held-out", "708:all") == 0
    assert state(ready)["remarks"] == ["The held-out cases have no label organ, so that the other labels alone decide."]


def test_held_out_cases_are_labelled_in_full(ready, programs, capsys):
    labels = {"background": 0, "node": 1, "ignore": 2}
    ready.describe(labels=labels)
    image, label = case_arrays()
    label[1] = 2
    ready.write_case("case_1", image * np.float32(0.9), label)
    assert self_train(ready) == 2
    assert "case_1.nii.gz of the held-out case case_1 has voxels with the ignore label" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["name", "content"])
def test_a_labelled_case_among_the_unlabelled_ones_is_refused(ready, programs, capsys, by):
    listing = ready.raw / UNLABELLED / "dataset.json"
    scan = ready.root / "scans" / "scan_1_0000.nii.gz"
    if by == "name":
        listing.write_text(listing.read_text().replace('"scan_1"', '"case_2"'))
        (ready.raw / UNLABELLED / "labelsTr" / "scan_1.nii.gz").rename(
            ready.raw / UNLABELLED / "labelsTr" / "case_2.nii.gz"
        )
    else:
        shutil.copyfile(ready.source / "imagesTr" / "case_2_0000.nii.gz", scan)
    assert self_train(ready) == 2
    said = {"name": "case_2: cases of that name are in", "content": "is the image of case_2 in Dataset705_Partial"}
    assert said[by] in capsys.readouterr().err
    assert not (ready.root / "run").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"0": "CT"}}, "The model takes 1 channel (CT)"),
        ({"labels": {"background": 0, "liver": 1}}, "have no label in common"),
    ],
)
def test_a_teacher_of_other_channels_or_labels_is_refused(ready, programs, capsys, change, message):
    ready.describe(model=change)
    assert self_train(ready, "--teacher", str(ready.model)) == 2
    assert message in capsys.readouterr().err
    assert not (ready.root / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unlabelled": "705"}, "Every voxel of Dataset705_Partial has a label"),
        ({"trainer": "nnUNetTrainerModelsGenesis"}, "nnUNetTrainerModelsGenesis is a pre-training"),
        ({"trainer": "nnUNetTrainerNobody"}, "nnUNetTrainerNobody"),
        ({"configuration": "4d"}, "has no configuration '4d'"),
        ({"configuration": "second"}, "second stage of a cascade"),
        ({"fold": "7"}, "has no fold 7"),
        ({"fold": "all"}, "it has trained on every case"),
        ({"options": ["--teacher-folds", "0", "1"]}, "--teacher-folds are those of --teacher"),
        ({"options": ["--patients", "typo.json"]}, "typo.json does not exist"),
        ({"options": ["--patients", "typo.json", "--bootstrap", "0"]}, "typo.json does not exist"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(ready, programs, capsys, arguments, message):
    others = {name: value for name, value in arguments.items() if name != "options"}
    assert self_train(ready, *arguments.get("options", ()), **others) == 2
    assert message in capsys.readouterr().err
    assert not (ready.root / "run").exists()


def test_no_unlabelled_case_is_said(ready, programs, capsys):
    listing = ready.raw / UNLABELLED / "dataset.json"
    listing.write_text(json.dumps({**json.loads(listing.read_text()), "dataset": {}}))
    assert self_train(ready) == 2
    assert "Dataset707_Unlabelled has no cases in imagesTr" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"scan_0": []}, "has no list for the case scan_1"),
        ({"scan_0": [], "scan_1": [], "scan": []}, "cases that Dataset707_Unlabelled does not have: scan."),
        ({"scan_0": [], "scan_1": []}, "scan_0.nii.gz has node, which the case was not annotated for"),
    ],
)
def test_wrong_lists_of_annotated_labels_are_said_before_anything_is_trained(ready, programs, capsys, lists, message):
    listing = ready.raw / UNLABELLED / "dataset.json"
    description = json.loads(listing.read_text()) | {"labels": {"background": 0, "node": 1}}
    listing.write_text(json.dumps(description | {"nnunet_ext": {"annotated_labels": lists}}))
    assert self_train(ready) == 2
    assert message in capsys.readouterr().err
    assert not (ready.root / "run").exists()


@pytest.mark.parametrize("root", ["raw", "preprocessed", "results"])
def test_a_taken_id_is_said(ready, programs, capsys, root):
    (getattr(ready, root) / "Dataset722_Other").mkdir()
    assert self_train(ready) == 2
    assert "The id 722 is taken by" in capsys.readouterr().err
    assert not (ready.root / "run").exists()
