"""The picture of a test case: which case it is, and that it shows what the methods predicted."""

import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from benchmarks.__main__ import main
from benchmarks.engine.picture import median_case
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import COLUMNS, write_scores
from nnunet_ext.files import write_json
from nnunet_ext.report.overlays import LABEL_COLOURS
from support.tiny_experiment import CASES, write_slices

EXPERIMENT = "from support.tiny_experiment import EXPERIMENT"


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ([0.5, 0.5, 0.5], [0.9, 0.6, 0.7], "c"),
        ([0.1, 0.9, 0.5], [0.1, 0.9, 0.5], "c"),  # one method: the median Dice
        ([0.5, np.nan, 0.5], [0.9, 0.6, 0.7], "c"),  # of an even number the lower one
    ],
)
def test_the_case_is_the_one_of_the_median_gain(first, last, expected):
    assert median_case([pd.Series(values, index=list("abc")) for values in (first, last)]) == expected


def test_no_case_without_a_gain():
    with pytest.raises(UserError, match="No case has a Dice"):
        median_case([pd.Series([np.nan], index=["a"])] * 2)


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A run in which two methods have been scored on two cases; MixUp predicts nothing."""
    out, finished = tmp_path / "out", {}
    monkeypatch.setenv("nnUNet_raw", str(out / "nnUNet_raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(out / "nnUNet_preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(out / "nnUNet_results"))
    write_slices(out / "nnUNet_raw" / "Dataset990_Squares", None)
    for name, dice in (("stock_6steps_s0", (0.5, 0.6)), ("mixup_6steps_s0", (0.6, 0.9))):
        folder = out / "evaluations" / f"{name}__squares"
        predictions = folder / "Dataset990_Squares_val"
        predictions.mkdir(parents=True)
        rows = [("m", "", "D", "", case, case, "square", "dice", of, 1.0) for case, of in zip(CASES, dice)]
        write_scores(folder / "scores.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
        for case in CASES[:2]:
            label = sitk.ReadImage(str(out / "nnUNet_raw" / "Dataset990_Squares" / "labelsTr" / f"{case}.nii.gz"))
            sitk.WriteImage(label * int(name[0] == "s"), str(predictions / f"{case}.nii.gz"))
        finished[f"evaluate_{name}__squares"] = {"command": "", "commit": "", "seconds": 0, "machine": ""}
    write_json(out / "steps.json", {"finished": finished, "failed": {}, "running": []})
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    return out


def ask(out, *methods):
    command = ["picture", str(out.parent / "tiny.py"), "--out", str(out), "--picture", str(out / "shown.png")]
    return main([*command, "--methods", *methods])


def test_it_shows_image_given_labels_each_prediction_and_truth(out, capsys):
    assert ask(out, "stock", "MixUp") == 0
    assert f"case {CASES[0]}" in capsys.readouterr().out
    shown = imread(out / "shown.png")[..., :3]
    blue = np.array([int(LABEL_COLOURS[0][place : place + 2], 16) / 255 for place in (1, 3, 5)])
    panels = np.array_split(shown, 5, axis=1)
    coloured = [(panel[..., 2] - panel[..., 0] > 0.3 * (blue[2] - blue[0])).mean() > 0.02 for panel in panels]
    assert coloured == [False, True, True, False, True]


@pytest.mark.parametrize(
    ("method", "message"),
    [("nothing", "no method 'nothing'. Choose one of 'stock', 'MixUp', 'taught'"), ("taught", "No training of")],
)
def test_what_cannot_be_shown_is_named(out, capsys, method, message):
    assert ask(out, "stock", method) == 2
    assert message in capsys.readouterr().err
    assert not (out / "shown.png").exists()


def test_a_folder_without_a_run_is_named(tmp_path, capsys):
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    assert ask(tmp_path / "out", "stock") == 2
    assert "has no run of tiny" in capsys.readouterr().err


def test_predictions_that_are_on_another_machine_are_missed(out, capsys):
    shutil.rmtree(out / "evaluations" / "mixup_6steps_s0__squares" / "Dataset990_Squares_val")
    assert ask(out, "stock", "MixUp") == 2
    assert "mixup_6steps_s0 was scored on another machine" in capsys.readouterr().err
