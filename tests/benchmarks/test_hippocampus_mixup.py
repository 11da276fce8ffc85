import os

import pytest

from benchmarks import hippocampus_mixup
from benchmarks.hippocampus_mixup import (
    DATASET,
    main,
    open_run,
    paired,
    paired_differences,
    result_lines,
)
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores import Scores
from nnunet_ext.report.summary import Evaluation, Label

REQUEST = {"epochs": 1, "seed": 0, "device": "cpu"}


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """nnUNet_raw with a dataset that has nothing but its dataset.json."""
    dataset = tmp_path / "raw" / DATASET
    dataset.mkdir(parents=True)
    (dataset / "dataset.json").write_text("{}")
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    return dataset


def evaluation(*dice):
    cases = {f"case_{number}": value for number, value in enumerate(dice)}
    return Evaluation({Label("whole", (1,)): Scores(cases)}, Scores(cases), {}, {})


def test_differences_are_paired_by_case():
    assert paired({"a": 0.5, "b": 0.9}, {"b": 0.8, "a": 0.7}) == pytest.approx([0.2, -0.1])


def test_cases_without_a_score_are_left_out_of_the_pairs():
    assert paired({"a": 0.5, "b": float("nan")}, {"a": 0.7, "b": 0.8}) == pytest.approx([0.2])


def test_other_cases_are_refused():
    with pytest.raises(UserError, match="b, c"):
        paired({"a": 0.5, "b": 0.5}, {"a": 0.5, "c": 0.5})


def test_difference_is_that_of_the_means_with_an_interval_around_it():
    stock, other = evaluation(0.5, 0.6, 0.7), evaluation(0.6, 0.6, 0.9)
    found = paired_differences(stock, other)
    assert list(found) == ["whole", "mean"]
    assert found["mean"].value == pytest.approx(0.1)
    assert found["mean"].low <= 0.1 <= found["mean"].high
    assert found["mean"].count == 3


def test_folder_can_be_opened_again_for_the_same_request_only(tmp_path, raw):
    out = tmp_path / "out"
    open_run(out, REQUEST)
    open_run(out, REQUEST)
    assert (out / "nnUNet_raw" / DATASET / "dataset.json").is_file()
    with pytest.raises(UserError, match="Choose another"):
        open_run(out, {**REQUEST, "epochs": 2})


def test_folder_of_someone_else_is_refused(tmp_path, raw):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not an empty folder"):
        open_run(tmp_path / "out", REQUEST)
    assert os.listdir(tmp_path / "out") == ["thesis.tex"]


def test_missing_dataset_is_wrong_usage_that_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    assert main(["--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert DATASET in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_model_below_the_expected_dice_is_a_problem(monkeypatch, capsys):
    models = {"stock nnU-Net": {"dice": {"mean": 0.8}}, "MixUp": {"dice": {"mean": 0.7}}}
    monkeypatch.setattr(hippocampus_mixup, "run_benchmark", lambda args: {"models": models})
    assert main(["--out", "unused"]) == 1
    assert "0.75: MixUp" in capsys.readouterr().err


def test_result_says_what_was_not_run():
    stock, other = evaluation(0.5, 0.6), evaluation(0.6, 0.6)
    model = {"dice": {"whole": 0.5, "mean": 0.5}, "training_seconds": 90.0, "median_epoch_seconds": 4.5, "epochs": 20}
    content = {
        "dataset": DATASET,
        "training_cases": 160,
        "evaluated_cases": 2,
        "models": {"stock nnU-Net": model, "MixUp": model},
        "paired_difference": {name: part.as_dict() for name, part in paired_differences(stock, other).items()},
    }
    text = "\n".join(result_lines(content, REQUEST))
    assert "One fold, one seed" in text
    assert "were not run" in text
    assert "1.5 min" in text
    assert "+0.0500" in text
