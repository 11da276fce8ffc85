"""``nnunet_ext split``: what it writes, keeps and prints."""

import json
from pathlib import Path

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_ext.cli import main
from support.raw_datasets import DATASET_JSON

FIVE = [{"train": ["c1", "c2"], "val": ["c3"]}] * 5


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The splits_final.json to be of a preprocessed dataset of 12 cases from 6 patients."""
    root = tmp_path / "pre processed ü"
    folder = root / "Dataset004_Small"
    (folder / "gt_segmentations").mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
    for number in range(12):
        (folder / "gt_segmentations" / f"c{number}_p{number // 2}.nii.gz").touch()
    monkeypatch.setenv("nnUNet_preprocessed", str(root))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    return folder / "splits_final.json"


def folds(file: Path) -> list[dict[str, list[str]]]:
    return json.loads(file.read_text())


def test_fold_is_written_and_shown_with_the_line_that_trains_it(file, capsys):
    assert main(["split", "-d", "4", "--shots", "2", "--val", "3"]) == 0
    (fold,) = folds(file)
    assert (len(fold["train"]), len(fold["val"])) == (2, 3)
    shown = capsys.readouterr().out
    assert f"training: 2 cases: {', '.join(fold['train'])}" in shown
    assert "validation: 3 cases\n  in neither part: 7 cases\n" in shown
    assert "nnUNetv2_train 4 3d_fullres 0" in shown


def test_more_than_ten_cases_are_only_counted(file, capsys):
    assert main(["split", "-d", "4", "--shots", "11"]) == 0
    shown = capsys.readouterr().out
    assert "training: 11 cases\n" in shown
    assert "neither" not in shown


def test_patients_are_counted_and_stay_together(file, capsys):
    assert main(["split", "-d", "4", "--shots", "2", "--group", "p[0-9]", "--val", "1", "--folds", "2"]) == 0
    shown = capsys.readouterr().out
    assert "training: 2 patients = 4 cases: " in shown
    assert "validation: 1 patient = 2 cases" in shown
    assert "in neither part: 3 patients = 6 cases" in shown
    assert len(folds(file)) == 2
    for fold in folds(file):
        assert {case[-2:] for case in fold["train"]}.isdisjoint(case[-2:] for case in fold["val"])


def parts_share_no_patient(fold: dict[str, list[str]]) -> bool:
    return {case[-2:] for case in fold["train"]}.isdisjoint(case[-2:] for case in fold["val"])


def test_a_cross_validation_has_folds_of_whole_patients(file, capsys):
    assert main(["split", "-d", "4", "--cross-validation", "--group", "p[0-9]"]) == 0
    shown = capsys.readouterr().out
    assert "Fold 4\n  training: 5 patients = 10 cases: " in shown
    assert "validation: 1 patient = 2 cases\n  nnUNetv2_train 4 3d_fullres 4\n" in shown
    drawn = folds(file)
    assert len(drawn) == 5
    cases = sorted(f"c{number}_p{number // 2}" for number in range(12))
    assert sorted(case for fold in drawn for case in fold["val"]) == cases
    assert all(parts_share_no_patient(fold) and sorted(fold["train"] + fold["val"]) == cases for fold in drawn)


def test_a_cross_validation_by_cases_is_that_of_nnunet(file):
    assert main(["split", "-d", "4", "--cross-validation"]) == 0
    assert folds(file) == generate_crossval_split(sorted(f"c{number}_p{number // 2}" for number in range(12)))


def test_a_cross_validation_has_as_many_folds_as_asked_and_is_drawn_again_by_its_seed(file, capsys):
    command = ["split", "-d", "4", "--cross-validation", "--folds", "3", "--group", "p[0-9]", "--seed"]
    assert main([*command, "2"]) == 0
    drawn = folds(file)
    assert [len(fold["val"]) for fold in drawn] == [4, 4, 4]
    assert main([*command, "2"]) == 0
    assert "Already there" in capsys.readouterr().out
    assert main([*command, "0"]) == 2
    assert "has other folds. Add --append to keep them, or --force" in capsys.readouterr().err
    assert folds(file) == drawn
    assert main([*command, "0", "--append"]) == 0
    assert "nnUNetv2_train 4 3d_fullres 5\n" in capsys.readouterr().out
    assert folds(file)[:3] == drawn
    assert main([*command, "0", "--force"]) == 0
    assert len(folds(file)) == 3
    assert folds(file) != drawn


def test_patients_of_pairs_are_known(file, tmp_path, monkeypatch, capsys):
    raw = tmp_path / "raw" / "Dataset004_Small"
    raw.mkdir(parents=True)
    cases = {f"c{number}_p{number // 2}": {"patient": f"p{number // 2}"} for number in range(12)}
    (raw / "pairs.json").write_text(json.dumps({"cases": cases}))
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    assert main(["split", "-d", "4", "--shots", "2"]) == 0
    assert "training: 2 patients = 4 cases: " in capsys.readouterr().out
    assert main(["split", "-d", "4", "--cross-validation", "--force"]) == 0
    assert all(parts_share_no_patient(fold) for fold in folds(file))


@pytest.mark.parametrize(("maker", "status"), [("pair", 2), ("another program", 0)])
def test_a_record_of_pairs_that_was_damaged_is_named_and_one_of_others_is_not_ours(
    file, tmp_path, monkeypatch, capsys, maker, status
):
    raw = tmp_path / "raw" / "Dataset004_Small"
    raw.mkdir(parents=True)
    (raw / "pairs.json").write_text(json.dumps({"made_by": maker, "cases": None}))
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    assert main(["split", "-d", "4", "--shots", "2"]) == status
    assert ("pairs.json must name the patient" in capsys.readouterr().err) == bool(status)


def test_the_example_names_other_plans(file, capsys):
    (file.parent / "nnUNetResEncUNetMPlans.json").write_text(json.dumps({"configurations": {"2d": {}}}))
    assert main(["split", "-d", "4", "--shots", "2"]) == 0
    assert "nnUNetv2_train 4 2d 0 -p nnUNetResEncUNetMPlans\n" in capsys.readouterr().out


def test_models_of_folds_that_are_replaced_are_told_of(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    (tmp_path / "results" / "Dataset004_Small" / "nnUNetTrainer__nnUNetPlans__2d" / "fold_1").mkdir(parents=True)
    file.write_text(json.dumps(FIVE))
    assert main(["split", "-d", "4", "--shots", "2", "--folds", "2", "--force"]) == 0
    assert "were trained on other folds 1. They may have trained on the validation" in capsys.readouterr().err
    assert main(["split", "-d", "4", "--shots", "2", "--folds", "2", "--force"]) == 0
    told = capsys.readouterr()
    assert ("other folds" in told.err, "Already there: " in told.out) == (False, True)


def test_a_path_is_no_dataset(file, capsys):
    assert main(["split", "-d", str(file.parent), "--shots", "2"]) == 2
    assert "is a path. Give the id or the name of a dataset" in capsys.readouterr().err
    assert not file.exists()


def test_the_same_again_is_already_there_and_other_folds_need_force(file, capsys):
    command = ["split", "-d", "4", "--shots", "2"]
    assert main(command) == 0
    before = file.read_bytes()
    assert main(command) == 0
    assert "Already there" in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 2
    assert "--force" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert main([*command, "--seed", "1", "--force"]) == 0
    assert file.read_bytes() != before


def test_appending_keeps_the_folds_and_adds_nothing_twice(file, capsys):
    five = [{"train": ["c1_p0", "c0_p0"], "val": [f"c{number}_p1"]} for number in (2, 3)] * 2
    file.write_text(json.dumps(five))
    command = ["split", "-d", "4", "--shots", "2", "--folds", "2", "--append"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "nnUNetv2_train 4 3d_fullres 4" in shown
    assert "nnUNetv2_train 4 3d_fullres 5" in shown
    written = folds(file)
    assert (written[:4], len(written)) == (five, 6)
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Already there" in shown
    assert "Fold 4, already there" in shown
    assert folds(file) == written
    assert main([*command, "--folds", "3"]) == 0
    assert folds(file)[:6] == written
    assert len(folds(file)) == 7


def test_planning_that_would_stop_is_announced(file, tmp_path, monkeypatch, capsys):
    raw = tmp_path / "raw" / "Dataset004_Small"
    raw.mkdir(parents=True)
    (raw / "splits_final.json").write_text('[{"train": ["c0_p0"], "val": ["c1_p0"]}]')
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    assert main(["split", "-d", "4", "--shots", "2"]) == 0
    assert f"{raw / 'splits_final.json'} has other folds" in capsys.readouterr().err


def test_dataset_that_is_not_preprocessed_gets_its_folder(file, tmp_path, monkeypatch):
    raw = tmp_path / "raw" / "Dataset007_Raw"
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps({**DATASET_JSON, "file_ending": ".png"}))
    for case in "ab":
        (raw / "imagesTr" / f"{case}_0000.png").touch()
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    assert main(["split", "-d", "7", "--shots", "1"]) == 0
    (fold,) = folds(file.parents[1] / "Dataset007_Raw" / "splits_final.json")
    assert sorted(fold["train"] + fold["val"]) == ["a", "b"]


def test_the_example_names_a_configuration_that_is_planned(file, capsys):
    (file.parent / "nnUNetPlans.json").write_text('{"configurations": {"2d": {}}}')
    assert main(["split", "-d", "4", "--shots", "1"]) == 0
    assert "nnUNetv2_train 4 2d 0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "existing", "message"),
    [
        (["--shots", "10", "--val", "3"], None, "need 13, but the dataset has 12"),
        (["--shots", "12"], None, "nnUNetv2_train … all"),
        (["--shots", "1", "--group", "q"], None, "in the names of 12 of 12 cases"),
        (["--shots", "1", "--append"], None, "no folds to append to"),
        (["--shots", "1", "--append", "--force"], FIVE, "give one of them"),
        (["--shots", "1", "--append"], FIVE, "not in the dataset: c1, c2, c3"),
        (["--shots", "1"], {"train": []}, "is no split"),
        (["--cross-validation", "--folds", "7", "--group", "p[0-9]"], None, "7 folds need 7 patients, but the dataset"),
        (["--cross-validation", "--folds", "13"], None, "13 folds need 13 cases, but the dataset has 12"),
        (["--cross-validation", "--folds", "1"], None, "at least 2 folds"),
        (["--cross-validation", "--val", "2"], None, "Leave --val out"),
        (["--cross-validation"], FIVE, "has other folds"),
    ],
)
def test_what_cannot_be_done_changes_nothing_and_says_why(file, capsys, arguments, existing, message):
    if existing is not None:
        file.write_text(json.dumps(existing))
    assert main(["split", "-d", "4", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert (folds(file) if file.is_file() else None) == existing


@pytest.mark.parametrize(
    "arguments",
    [
        ["--shots", "0"],
        ["--shots", "1", "--val", "0"],
        ["--shots", "1", "--folds", "0"],
        ["--shots", "1", "--folds", "100000"],
        ["--shots", "1", "--seed=-1"],
        ["--shots", "1", "--cross-validation"],
        [],
    ],
)
def test_numbers_out_of_range_and_both_kinds_or_none_are_wrong_usage(file, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(["split", "-d", "4", *arguments])
    assert stop.value.code == 2
    assert not file.exists()


def test_wrong_dataset_json_is_named_with_its_key(file, capsys):
    (file.parent / "dataset.json").write_text(json.dumps({**DATASET_JSON, "file_ending": 5}))
    assert main(["split", "-d", "4", "--shots", "2"]) == 2
    message = capsys.readouterr().err
    assert f"{file.parent / 'dataset.json'} is not as nnU-Net needs it" in message
    assert "file_ending: must be text; 5 was found" in message
    assert not file.exists()
