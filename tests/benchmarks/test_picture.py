"""The picture of a test case: which case it is, and that it shows what the methods predicted."""

import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from benchmarks.__main__ import main
from benchmarks.engine.picture import _box, median_case
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import COLUMNS, write_scores
from nnunet_ext.files import read_json, write_json
from nnunet_ext.report.overlays import LABEL_COLOURS
from support.tiny_experiment import CASES, write_slices

EXPERIMENT = "from support.tiny_experiment import EXPERIMENT"
OTHER_TESTS = """from dataclasses import replace
from benchmarks.engine.experiment import Test
from support.tiny_experiment import EXPERIMENT
EXPERIMENT = replace(EXPERIMENT, tests={})"""
RIGHT = OTHER_TESTS.format("(Test('squares', references='labelsTr_right'),)")
OTHERS = OTHER_TESTS.format("(*EXPERIMENT.tests, Test('others', cases='test'))")


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


def scored(out, name, dice, selection="val", test="squares", cases=CASES[:2], keep=1):
    """Store scores and predictions of a method; these are the labels times `keep`."""
    folder = out / "evaluations" / f"{name}__{test}"
    predictions = folder / f"Dataset990_Squares_{selection}"
    predictions.mkdir(parents=True)
    rows = [("m", "", "D", "", case, case, "square", "dice", of, 1.0) for case, of in zip(cases, dice)]
    write_scores(folder / "scores.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
    for case in cases:
        label = sitk.ReadImage(str(out / "nnUNet_raw" / "Dataset990_Squares" / "labelsTr" / f"{case}.nii.gz"))
        sitk.WriteImage(label * keep, str(predictions / f"{case}.nii.gz"))
    return f"evaluate_{name}__{test}"


def finish(out, names):
    step = {"command": "", "commit": "", "seconds": 0, "machine": ""}
    write_json(out / "steps.json", {"finished": dict.fromkeys(names, step), "failed": {}, "running": []})


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A run in which two methods have been scored on two cases; MixUp predicts nothing."""
    out = tmp_path / "out"
    monkeypatch.setenv("nnUNet_raw", str(out / "nnUNet_raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(out / "nnUNet_preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(out / "nnUNet_results"))
    write_slices(out / "nnUNet_raw" / "Dataset990_Squares", None)
    preprocessed = out / "nnUNet_preprocessed" / "Dataset990_Squares"
    preprocessed.mkdir(parents=True)
    write_json(preprocessed / "splits_final.json", [{"train": CASES[2:], "val": CASES[:2]}] * 2)
    stock = scored(out, "stock_6steps_s0", (0.5, 0.6))
    finish(out, [stock, scored(out, "mixup_6steps_s0", (0.6, 0.9), keep=0)])
    (tmp_path / "tiny.py").write_text(EXPERIMENT)
    return out


def ask(out, *methods, options=()):
    command = ["picture", str(out.parent / "tiny.py"), "--out", str(out), "--picture", str(out / "shown.png")]
    return main([*command, "--methods", *methods, *options])


def blue_share(panel):
    """The share of a panel in the colour of the first label."""
    blue = np.array([int(LABEL_COLOURS[0][place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return (panel[..., 2] - panel[..., 0] > 0.3 * (blue[2] - blue[0])).mean()


def coloured(out, panels):
    """Which of the panels show a label."""
    shown = imread(out / "shown.png")[..., :3]
    return [blue_share(panel) > 0.02 for panel in np.array_split(shown, panels, axis=1)]


def test_it_shows_image_each_prediction_and_truth(out, capsys):
    """Given labels that are the truth are shown once."""
    assert ask(out, "stock", "MixUp") == 0
    assert f"case {CASES[0]}" in capsys.readouterr().out
    assert coloured(out, 4) == [False, True, False, True]


def test_it_is_of_the_cases_whose_given_labels_are_not_the_truth(out, capsys):
    """The truth of the test is in a folder of its own; training is given nothing of the second case."""
    dataset = out / "nnUNet_raw" / "Dataset990_Squares"
    shutil.copytree(dataset / "labelsTr", dataset / "labelsTr_right")
    wrong = dataset / "labelsTr" / f"{CASES[1]}.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(wrong)) * 0, str(wrong))
    (out.parent / "tiny.py").write_text(RIGHT)
    assert ask(out, "stock", "MixUp") == 0
    assert f"case {CASES[1]}" in capsys.readouterr().out
    assert coloured(out, 5) == [False, False, True, False, True]


def test_it_is_of_the_test_that_is_asked_for(out, capsys):
    """Here of the cases in imagesTs, which training does not have."""
    dataset = out / "nnUNet_raw" / "Dataset990_Squares"
    names = [scored(out, "stock_6steps_s0", (0.5,), "test", "others", CASES[-1:])]
    for kind, name in (("images", f"{CASES[-1]}_0000.nii.gz"), ("labels", f"{CASES[-1]}.nii.gz")):
        (dataset / f"{kind}Ts").mkdir()
        (dataset / f"{kind}Tr" / name).rename(dataset / f"{kind}Ts" / name)
    finish(out, names)
    (out.parent / "tiny.py").write_text(OTHERS)
    assert ask(out, "stock", options=["--test", "others"]) == 0
    assert f"case {CASES[-1]}" in capsys.readouterr().out
    assert coloured(out, 3) == [False, True, True]
    assert ask(out, "stock", options=["--test", "nothing"]) == 2
    assert "has no test 'nothing'. Choose one of 'squares', 'others'." in capsys.readouterr().err


def test_a_prior_scan_is_shown_with_its_labels(out, capsys):
    """The prior is the image again, and its labels are a square twice as wide."""
    dataset = out / "nnUNet_raw" / "Dataset990_Squares"
    content = read_json(dataset / "dataset.json")
    roles = {"current": [0], "prior_image": [1], "prior_labels": [2]}
    names = {"0": "MRI", "1": "prior MRI", "2": "noNorm"}
    changed = {"channel_names": names, "nnunet_ext": {"longitudinal": roles}}
    write_json(dataset / "dataset.json", {**content, **changed})
    for case in CASES:
        image = dataset / "imagesTr" / f"{case}_0000.nii.gz"
        shutil.copy(image, dataset / "imagesTr" / f"{case}_0001.nii.gz")
        label = sitk.ReadImage(str(dataset / "labelsTr" / f"{case}.nii.gz"))
        wider = sitk.BinaryDilate(label, (4, 4, 0))
        sitk.WriteImage(sitk.Cast(wider, sitk.sitkFloat32), str(dataset / "imagesTr" / f"{case}_0002.nii.gz"))
    assert ask(out, "stock") == 0
    assert coloured(out, 4) == [True, False, True, True]
    prior, *_, truth = np.array_split(imread(out / "shown.png")[..., :3], 4, axis=1)
    assert blue_share(prior) > 1.5 * blue_share(truth)


def test_all_that_is_labelled_is_shown():
    shown = np.zeros((40, 60), dtype=bool)
    shown[10:20, 5:15] = True
    shown[12, 50] = True  # an island
    rows, columns = _box(shown)
    assert (rows.start, rows.stop) == (1, 29)  # a fifth of 46 columns around it
    assert (columns.start, columns.stop) == (0, 60)
    assert _box(np.zeros((4, 4), dtype=bool)) == (slice(None), slice(None))


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
