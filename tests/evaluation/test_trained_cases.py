"""A model is not scored on validation cases of another dataset that it has trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_ext.checkpoints.trained_model import TrainedModel
from nnunet_ext.cli import main
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.case_sets import select_cases
from nnunet_ext.evaluation.trained_cases import check_not_trained_on

SOURCE, MERGED = "Dataset004_Source", "Dataset050_Merged"
DESCRIPTION = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz"}


class Datasets:
    """A dataset whose fold 0 validates on b and c, and a merged one that lists its images under other names."""

    def __init__(self, root: Path) -> None:
        self.raw, self.preprocessed = root / "nnUNet_raw", root / "nnUNet_preprocessed"
        self.model = root / MERGED / "nnUNetTrainer__nnUNetPlans__2d"
        for part in ("imagesTr", "labelsTr"):
            (self.raw / SOURCE / part).mkdir(parents=True)
        for case in "abc":
            self.image(case).write_text(f"scan {case}")
            (self.raw / SOURCE / "labelsTr" / f"{case}.nii.gz").touch()
        self.write(SOURCE, DESCRIPTION, [{"train": ["a"], "val": ["b", "c"]}])
        self.merge({f"D004_{case}": self.image(case) for case in "abc"}, trained=["D004_a", "D004_b"])

    def image(self, case: str) -> Path:
        return self.raw / SOURCE / "imagesTr" / f"{case}_0000.nii.gz"

    def merge(self, images: dict[str, Path], *, trained: list[str]) -> None:
        listed = {case: {"images": [str(file)], "label": f"labelsTr/{case}.nii.gz"} for case, file in images.items()}
        validated = [case for case in images if case not in trained]
        self.write(MERGED, {**DESCRIPTION, "dataset": listed}, [{"train": trained, "val": validated}])

    def write(self, name: str, description: dict[str, Any], folds: list[dict[str, list[str]]]) -> None:
        for folder in (self.raw / name, self.preprocessed / name):
            folder.mkdir(parents=True, exist_ok=True)
        (self.raw / name / "dataset.json").write_text(json.dumps(description))
        (self.preprocessed / name / "splits_final.json").write_text(json.dumps(folds))

    def check(self, on: str, selection: str = "val", *, trained_on: str = MERGED) -> list[str]:
        model = TrainedModel(self.model, (0,), "checkpoint_final.pth", {"dataset_name": trained_on}, DESCRIPTION)
        return check_not_trained_on(model, select_cases(on, selection, folds=[0], partial=True))


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Datasets:
    found = Datasets(tmp_path)
    monkeypatch.setenv("nnUNet_raw", str(found.raw))
    monkeypatch.setenv("nnUNet_preprocessed", str(found.preprocessed))
    return found


@pytest.mark.parametrize("is_copied", [False, True])
def test_a_case_that_a_merged_dataset_trains_on_under_another_name_is_refused(datasets, is_copied):
    if is_copied:
        images = {f"D004_{case}": datasets.raw / f"{case}.nii.gz" for case in "abc"}
        for case, file in zip("abc", images.values()):
            file.write_bytes(datasets.image(case).read_bytes())
        datasets.merge(images, trained=["D004_b"])
    with pytest.raises(UserError, match=r"trained on 1 of the 2 cases of Dataset004_Source:val: b \(there D004_b\)\. "):
        datasets.check("4")


def test_the_command_refuses_it_before_it_predicts(datasets, tmp_path, capsys):
    (datasets.model / "fold_0").mkdir(parents=True)
    (datasets.model / "fold_0" / "checkpoint_final.pth").touch()
    (datasets.model / "dataset.json").write_text(json.dumps(DESCRIPTION))
    (datasets.model / "plans.json").write_text(json.dumps({"dataset_name": MERGED, "configurations": {}}))
    assert main(["evaluate", str(datasets.model), "--on", "4:val", "-o", str(tmp_path / "OUT")]) == 2
    assert "has trained on 1 of the 2 cases of Dataset004_Source:val" in capsys.readouterr().err
    assert not (tmp_path / "OUT").exists()


def test_cases_that_it_has_not_seen_are_scored_without_a_word(datasets):
    datasets.merge({f"D004_{case}": datasets.image(case) for case in "abc"}, trained=["D004_a"])
    assert datasets.check("4") == []
    assert datasets.check("50") == []  # its own folds
    assert datasets.check("4", "all") == []  # nobody takes these for unseen


@pytest.mark.parametrize("missing", ["splits", "dataset"])
def test_that_it_is_not_known_is_said(datasets, missing):
    if missing == "splits":
        (datasets.preprocessed / MERGED / "splits_final.json").unlink()
    told = datasets.check("4", trained_on=MERGED if missing == "splits" else "Dataset099_Elsewhere")
    (remark,) = told
    assert remark.startswith("Whether the model has trained on cases of Dataset004_Source:val is not known: Dataset0")


def test_equal_names_count_where_the_image_is_missing_and_are_told_where_it_is_another_one(datasets):
    other = datasets.raw / "other.nii.gz"
    datasets.merge({"b": other}, trained=["b"])
    with pytest.raises(UserError, match="trained on 1 of the 2 cases of Dataset004_Source:val: b. "):
        datasets.check("4")
    other.write_text("another scan")
    (remark,) = datasets.check("4")
    assert "Of Dataset004_Source:val, b: the model has trained on cases of that name" in remark
