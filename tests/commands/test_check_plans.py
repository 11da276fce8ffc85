"""``nnunet_ext check -c``: what would stop or mislead a training is found before it starts."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
import torch

from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.networks import build_network
from nnunet_ext.cli import main
from nnunet_ext.diagnosis.planned_training import check_planned_training
from nnunet_ext.findings import Finding
from nnunet_ext.preprocessing.raw.raw_dataset import read_raw_dataset
from support.tiny_data import CASES, KINDS, dataset_name, tiny_configuration
from support.trainers_under_test import EVERY_TRAINER, data_kind, trainer_class

SCRIBBLES = ("nnUNetTrainerTDNet", "nnUNetTrainerDMPLS", "nnUNetTrainerPartialCE")


@pytest.fixture
def preprocessed(workspace, tmp_path: Path) -> Path:
    """A folder like that of nnUNet_preprocessed, to spoil: its own plans, and no more of the cases than their names."""
    return preprocessed_like(workspace, tmp_path, "labels")


def preprocessed_like(workspace, tmp_path: Path, kind: str) -> Path:
    name = dataset_name(kind)
    folder = tmp_path / name
    folder.mkdir()
    for file in ("dataset.json", "nnUNetPlans.json"):
        shutil.copy(workspace.preprocessed / name / file, folder)
    for configuration in ("2d", "3d_fullres"):
        cases = folder / f"nnUNetPlans_{configuration}"
        cases.mkdir()
        for number in range(CASES):
            (cases / f"case_{number}.pkl").touch()
    return folder


def found(
    trainer: str, folder: Path, configuration: str = "3d_tiny", *, plans: str = "nnUNetPlans"
) -> dict[str, Finding]:
    raw = read_raw_dataset(folder.name)
    findings = list(
        check_planned_training(trainer_class(trainer), raw, folder, plans_name=plans, configuration=configuration)
    )
    assert len({finding.title for finding in findings}) == len(findings)
    return {finding.title: finding for finding in findings}


def add(folder: Path, name: str, **changes: object) -> None:
    file = folder / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    full = plans["configurations"]["3d_fullres"]
    plans["configurations"][name] = {**tiny_configuration("3d_fullres", full["architecture"]), **changes}
    file.write_text(json.dumps(plans))


def the_problem(findings: dict[str, Finding]) -> Finding:
    (problem,) = [finding for finding in findings.values() if finding.severity == "problem"]
    return problem


@pytest.mark.parametrize("trainer", EVERY_TRAINER)
def test_what_every_trainer_can_train_has_no_problem(workspace, trainer: str) -> None:
    kind = data_kind(trainer, "ignore" if trainer in SCRIBBLES else "labels")
    findings = found(trainer, workspace.preprocessed / dataset_name(kind))
    assert [finding for finding in findings.values() if finding.severity == "problem"] == []
    assert {"plans", "settings", "preprocessed"} <= findings.keys()
    assert findings["preprocessed"].detail == f"all {CASES} cases are in nnUNetPlans_3d_fullres."


def test_the_command_shows_the_plans_on_the_same_page(workspace, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["check", "-d", str(KINDS["labels"]["id"]), "-tr", "nnUNetTrainerMixUp", "-c"]
    assert main([*command, "3d_tiny"]) == 0
    page = capsys.readouterr().out
    assert "geometry" in page
    assert "2 patches" in page
    assert page.endswith("No problem found.\n")
    assert main([*command, "3d_tiny_batch_of_one"]) == 1
    page = capsys.readouterr().out
    assert "no partner to mix with" in page
    assert page.endswith("1 problem found.\n")


def test_what_was_found_in_data_that_are_not_planned_is_shown(workspace, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    command = ["check", "-d", str(KINDS["labels"]["id"]), "-tr", "nnUNetTrainerMixUp"]
    assert main([*command, "-c", "3d_tiny"]) == 1
    page = capsys.readouterr().out
    assert "geometry" in page
    assert f"nnUNetv2_plan_and_preprocess -d {KINDS['labels']['id']}" in " ".join(page.split())
    assert main([*command, "-p", "otherPlans"]) == 2
    assert "Add -c CONFIGURATION" in capsys.readouterr().err


def test_configuration_that_is_not_there(preprocessed: Path) -> None:
    problem = the_problem(found("nnUNetTrainerMixUp", preprocessed, "3d_typo"))
    assert problem.title == "plans"
    assert "'3d_typo'" in problem.detail
    assert "3d_fullres" in problem.detail
    problem = the_problem(found("nnUNetTrainerMixUp", preprocessed, plans="otherPlans"))
    assert "otherPlans.json" in problem.detail
    assert problem.fix == f"nnUNetv2_plan_and_preprocess -d {KINDS['labels']['id']}"


def test_configuration_that_planning_has_removed_comes_with_its_command(preprocessed: Path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(preprocessed.parent))
    before = (preprocessed / "nnUNetPlans.json").read_text()
    configure = ["configure", "-d", preprocessed.name, "-c", "3d_tiny", "--name", "short"]
    assert main([*configure, "num_epochs=5"]) == 0
    assert found("nnUNetTrainerMixUp", preprocessed, "short")["settings"].detail.startswith("5 epochs")
    (preprocessed / "nnUNetPlans.json").write_text(before)
    problem = the_problem(found("nnUNetTrainerMixUp", preprocessed, "short"))
    assert "has gone" in problem.detail
    assert main(shlex.split(problem.fix)[1:]) == 0
    assert found("nnUNetTrainerMixUp", preprocessed, "short")["plans"].severity == "ok"


def test_plans_of_another_number_of_channels_are_a_problem(preprocessed: Path) -> None:
    two = ["ZScoreNormalization", "CTNormalization"]
    add(preprocessed, "copied", normalization_schemes=two, use_mask_for_norm=[False, False])
    problem = the_problem(found("nnUNetTrainerMixUp", preprocessed, "copied"))
    assert problem.title == "normalisation"
    assert "2 normalisations for 1 channel (" in problem.detail
    assert problem.fix.startswith(f"nnunet_ext plan --like SOURCE.pth -d {KINDS['labels']['id']} --new-plans ")


def test_settings_are_listed_and_wrong_ones_named(preprocessed: Path) -> None:
    detail = found("nnUNetTrainerMixUp", preprocessed)["settings"].detail
    assert detail == ("1 epoch; num_iterations_per_epoch 2, num_val_iterations_per_epoch 1, save_every 1, seed 7.")
    add(preprocessed, "wrong", nnunet_ext={"mixup": {"alhpa": 1.0}})
    problem = the_problem(found("nnUNetTrainerMixUp", preprocessed, "wrong"))
    assert problem.title == "settings"
    assert "mixup.alhpa: no such setting" in problem.detail


def test_ramp_that_never_ends_is_a_warning(preprocessed: Path) -> None:
    add(preprocessed, "short", nnunet_ext={"num_epochs": 98})
    assert found("nnUNetTrainerDBDMP", preprocessed, "short")["settings"].severity == "warning"
    add(preprocessed, "without", nnunet_ext={"num_epochs": 98, "dbdmp": {"pseudo_label_weight": 0}})
    assert found("nnUNetTrainerDBDMP", preprocessed, "without")["settings"].severity == "ok", "nothing rises"
    assert found("nnUNetTrainerMixUp", preprocessed, "short")["settings"].severity == "ok"
    add(preprocessed, "long", nnunet_ext={"num_epochs": 99})  # the ramp ends with the training
    assert found("nnUNetTrainerDBDMP", preprocessed, "long")["settings"].severity == "ok"
    add(preprocessed, "unset", nnunet_ext={})
    assert found("nnUNetTrainerDBDMP", preprocessed, "unset")["settings"].detail == "300 epochs; momentum 0.9."
    assert found("nnUNetTrainerMixUp", preprocessed, "unset")["settings"].detail == "1000 epochs."


def test_what_a_trainer_cannot_do_is_a_problem(workspace) -> None:
    problem = the_problem(found("nnUNetTrainerTDNet", workspace.preprocessed / dataset_name("regions")))
    assert problem.title == "settings"
    assert "cannot do 'regions'" in problem.detail


def test_cases_that_are_not_preprocessed_are_named(preprocessed: Path) -> None:
    (preprocessed / "nnUNetPlans_3d_fullres" / "case_3.pkl").unlink()
    problem = the_problem(found("nnUNetTrainerMixUp", preprocessed))
    assert problem.title == "preprocessed"
    assert f"1 of {CASES} cases are not in" in problem.detail
    assert problem.detail.endswith(": case_3.")
    assert problem.fix == f"nnUNetv2_preprocess -d {KINDS['labels']['id']} -plans_name nnUNetPlans -c 3d_tiny"


def test_predictions_of_the_first_stage_are_looked_for(preprocessed: Path, results: Path) -> None:
    add(preprocessed, "second", previous_stage="3d_fullres")
    problem = found("nnUNetTrainerConfigurable", preprocessed, "second")["previous stage"]
    assert problem.severity == "problem"
    assert f"{CASES} of {CASES} cases are not in" in problem.detail
    number = KINDS["labels"]["id"]
    assert problem.fix == f"nnUNetv2_train {number} 3d_fullres 0 -tr nnUNetTrainerConfigurable -p nnUNetPlans"
    model = results / preprocessed.name / "nnUNetTrainerConfigurable__nnUNetPlans__3d_fullres"
    (model / "predicted_next_stage" / "second").mkdir(parents=True)
    for number in range(CASES):
        (model / "predicted_next_stage" / "second" / f"case_{number}.b2nd").touch()
    assert found("nnUNetTrainerConfigurable", preprocessed, "second")["previous stage"].severity == "ok"


@pytest.mark.parametrize(
    ("trainer", "weight", "severity"),
    [
        ("nnUNetTrainerPartialLabels", 0.0, "ok"),
        ("nnUNetTrainerMixedSupervision", 0.0, "ok"),
        ("nnUNetTrainerMixedSupervision", 0.5, "problem"),
        ("nnUNetTrainerConfigurable", None, "problem"),
    ],
)
def test_the_first_stage_need_not_predict_what_the_second_leaves_out(
    workspace, tmp_path: Path, results: Path, trainer: str, weight: float | None, severity: str
) -> None:
    """Here the unlabelled case_3: a merged dataset has such cases in the validation part of no fold."""
    preprocessed = preprocessed_like(workspace, tmp_path, "partial")
    own = {} if weight is None else {"partial_labels": {"entropy_weight": weight}}
    add(preprocessed, "second", previous_stage="3d_fullres", nnunet_ext=own)
    predicted = results / preprocessed.name / f"{trainer}__nnUNetPlans__3d_fullres" / "predicted_next_stage" / "second"
    predicted.mkdir(parents=True)
    for number in (0, 1, 2, 4):
        (predicted / f"case_{number}.b2nd").touch()
    finding = found(trainer, preprocessed, "second")["previous stage"]
    assert finding.severity == severity
    if weight:
        assert finding.detail.startswith("case_3: annotated for nothing and not predicted by 3d_fullres")
        assert " 3d_fullres all " in finding.fix
    elif severity == "problem":
        assert "1 of 5 cases are not in" in finding.detail
        assert "Train every fold of 3d_fullres first." in finding.detail
    else:
        (predicted / "case_0.b2nd").unlink()
        detail = found(trainer, preprocessed, "second")["previous stage"].detail
        assert "1 of 4 cases are not in" in detail
        assert "Train every fold of 3d_fullres first." in detail


def test_dataset_that_changed_after_planning_is_a_problem(preprocessed: Path) -> None:
    file = preprocessed / "dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "description": "only words"}))
    assert found("nnUNetTrainerMixUp", preprocessed)["preprocessed"].severity == "ok"
    file.write_text(json.dumps({**content, "labels": {"background": 0, "shell": 1}}))
    problem = the_problem(found("nnUNetTrainerMixUp", preprocessed))
    assert problem.detail.startswith("labels in the dataset.json of")
    assert problem.fix.endswith("--clean")


def test_start_of_a_fine_tuning_is_looked_into(preprocessed: Path, tmp_path: Path, monkeypatch) -> None:
    trainer = "nnUNetTrainerDGST"
    add(preprocessed, "unset", nnunet_ext={})
    finding = found(trainer, preprocessed, "unset")["source"]
    assert finding.severity == "warning"
    assert "-pretrained_weights" in finding.detail

    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    dataset_json = json.loads((preprocessed / "dataset.json").read_text())
    model = ModelDescription(plans, "3d_tiny", dataset_json)
    network = build_network(trainer_class("nnUNetTrainerMixUp"), model, deep_supervision=True)
    arguments = {"plans": plans, "configuration": "3d_tiny", "dataset_json": dataset_json}
    torch.save({"network_weights": network.state_dict(), "init_args": arguments}, tmp_path / "start.pth")
    monkeypatch.setenv("STARTS", str(tmp_path))
    add(preprocessed, "tuned", nnunet_ext={"fine_tuning": {"source": "$STARTS/start.pth"}})
    findings = found(trainer, preprocessed, "tuned")
    assert findings["source"].severity == "ok"
    tensors = len(list(network.parameters()))
    assert f"{tmp_path / 'start.pth'} fits. Tensors, each counted once: {tensors} copied" in findings["source"].detail
    assert "selected entries" in findings["network"].detail

    add(preprocessed, "wider", nnunet_ext={"fine_tuning": {"source": str(tmp_path / "start.pth")}})
    full = json.loads((preprocessed / "nnUNetPlans.json").read_text())
    wider = full["configurations"]["wider"]["architecture"]["arch_kwargs"]
    wider["features_per_stage"] = [2 * features for features in wider["features_per_stage"]]
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(full))
    problem = the_problem(found(trainer, preprocessed, "wider"))
    assert problem.title == "source"
    assert "features_per_stage" in problem.detail

    add(preprocessed, "lost", nnunet_ext={"fine_tuning": {"source": str(tmp_path / "lost.pth")}})
    assert "lost.pth" in the_problem(found(trainer, preprocessed, "lost")).detail


def test_missing_library_of_the_adapters_is_a_problem(preprocessed: Path, monkeypatch) -> None:
    monkeypatch.setattr("nnunet_ext.diagnosis.planned_training.find_spec", lambda name: None)
    problem = the_problem(found("nnUNetTrainerLoRA", preprocessed))
    assert (problem.title, problem.fix) == ("peft", "pip install -U peft")
    assert "peft" not in found("nnUNetTrainerDGST", preprocessed)
