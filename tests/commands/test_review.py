"""``nnunet_ext review``: what it ranks, flags, shows, predicts again and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_ext.cli import main
from nnunet_ext.evaluation.disagreement_tables import unit_of_size
from support.labelling import ORIGIN, SHAPE, SPACING, Workplace

MM3 = float(np.prod(SPACING))


def review(place: Workplace, *options: str, name: str = "705") -> int:
    return main(["review", str(place.model), "-d", name, "-o", str(place.root / "review"), *options])


def table(place: Workplace, name: str) -> pd.DataFrame:
    return pd.read_csv(place.root / "review" / name, keep_default_na=False, na_values=[""])


def page(place: Workplace) -> str:
    return (place.root / "review" / "review.html").read_text()


def with_arrays(place: Workplace, name: str, bright: float, labelled: slice) -> None:
    """A case in which a node of six voxels is bright, and some of its columns are labelled."""
    image, label = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    image[1:3, 2, 0:3] = bright
    label[1:3, 2, labelled] = 1
    place.write_case(name, image, label)


@pytest.fixture
def cases(place, predictor):
    """What fold 0 (of factor 1) and fold 1 (of 0.7) say is the brightness: two voxels missing, none, all missing."""
    with_arrays(place, "case_0", 0.9, slice(0, 2))
    with_arrays(place, "case_1", 0.9, slice(0, 3))
    with_arrays(place, "case_2", 1.0, slice(0, 0))
    return place


def test_a_picture_has_pixels_without_a_size():
    assert unit_of_size(NaturalImage2DIO(), (1, 5, 5)) == "pixels"
    assert [unit_of_size(SimpleITKIO(), shape) for shape in ((1, 5, 5), (2, 5, 5))] == ["mm²", "mm³"]


def test_regions_are_ranked_by_size_and_confidence_of_folds_that_have_not_trained_on_the_case(cases, capsys):
    assert review(cases) == 0
    regions = table(cases, "regions.csv")
    # case_0 is for validation in fold 0, case_2 in fold 1
    assert regions["case"].to_list() == ["case_2", "case_0"]
    assert regions["rank"].to_list() == [1, 2]
    assert regions["voxels"].to_list() == [6, 2]
    confidence = [2 * 0.7 - 1, 2 * 0.9 - 1]
    assert regions["confidence"].to_list() == pytest.approx(confidence, abs=1e-5)
    assert regions["score"].to_list() == pytest.approx([6 * MM3 * confidence[0], 2 * MM3 * confidence[1]], rel=1e-5)
    assert set(regions["label"]) == {"background"}
    assert set(regions["predicted"]) == {"node"}
    assert set(regions["unit"]) == {"mm³"}
    last = regions.iloc[1]
    assert (last.i, last.j) == (2, 2)
    assert last.k in (1, 2)
    x, y, z = (origin + step * index for origin, step, index in zip(ORIGIN, SPACING, (last.i, last.j, last.k)))
    assert (last.right, last.anterior, last.superior) == pytest.approx((-x, -y, z), abs=1e-4)
    assert "case_2" in capsys.readouterr().out
    predicted = sitk.ReadImage(str(cases.root / "review" / "predictions" / "case_2.nii.gz"))
    assert sitk.GetArrayFromImage(predicted).sum() == 6
    assert predicted.GetSpacing() == pytest.approx(SPACING)


def test_cases_are_ranked_and_flagged(cases):
    assert review(cases) == 0
    found = table(cases, "cases.csv").set_index("case")
    assert list(found.index) == ["case_2", "case_0", "case_1"]
    assert found["disagreement"].to_list() == pytest.approx([2 * 0.7 - 1, 2 / 6 * (2 * 0.9 - 1), 0], abs=1e-5)
    assert found["dice"].to_list() == pytest.approx([0, 0.8, 1])
    # a node that the label of case_2 does not have is a region, and no label that does not meet its prediction
    assert found["flagged"].isna().all()


def test_a_case_whose_label_does_not_meet_its_prediction_is_flagged(cases):
    with_arrays(cases, "case_1", 0.9, slice(0, 3))
    label = np.zeros(SHAPE, np.uint8)
    label[1:3, 0, 0:3] = 1
    image = np.zeros(SHAPE, np.float32)
    image[1:3, 2, 0:3] = 0.9
    cases.write_case("case_0", image, label)
    assert review(cases) == 0
    found = table(cases, "cases.csv").set_index("case")
    assert found["flagged"].dropna().to_dict() == {"case_0": "no overlap: node"}
    assert "no overlap: node" in page(cases)


def test_places_are_those_of_the_image_where_the_label_lies_elsewhere(cases):
    assert review(cases) == 0
    right = table(cases, "regions.csv")
    file = str(cases.source / "labelsTr" / "case_0.nii.gz")
    label = sitk.ReadImage(file)
    label.SetOrigin([100.0 + place for place in ORIGIN])
    sitk.WriteImage(label, file)
    assert review(cases, "--force") == 0
    pd.testing.assert_frame_equal(table(cases, "regions.csv"), right)


def test_a_case_far_above_the_others_is_flagged(place, predictor):
    for number in range(8):
        with_arrays(place, f"case_{number}", 0.9, slice(0, 1 if number == 5 else 3))
    names = [f"case_{number}" for number in range(8)]
    place.write_splits([([], names)])
    assert review(place, "-f", "0") == 0
    flagged = table(place, "cases.csv").dropna(subset="flagged")
    assert flagged[["case", "flagged"]].to_numpy().tolist() == [["case_5", "disagrees more than others"]]


def test_the_page_has_a_picture_of_each_of_the_top_regions_and_says_where(cases):
    assert review(cases, "--top", "1") == 0
    html = page(cases)
    assert len(re.findall('<img src="data:image/png;base64,', html)) == 1
    assert "each predicted by those of the folds 0, 1 of " in html
    assert "RAS " in html
    assert "Labelled background, predicted node" in html
    assert len(table(cases, "regions.csv")) == 2
    assert "<script" not in html
    assert "http" not in html


def test_only_what_changed_is_predicted_again(cases, predictor):
    assert review(cases) == 0
    assert sorted(predictor.calls) == ["case_0", "case_1", "case_2"]
    assert review(cases, "--top", "5") == 0
    assert len(predictor.calls) == 3
    label = cases.source / "labelsTr" / "case_2.nii.gz"
    before = label.stat().st_mtime_ns
    with_arrays(cases, "case_2", 0.9, slice(0, 3))
    os.utime(label, ns=(before + 10**9, before + 10**9))
    assert review(cases) == 0
    assert predictor.calls[3:] == ["case_2"]
    assert table(cases, "regions.csv")["case"].to_list() == ["case_0"]


def test_an_interrupted_review_goes_on(cases, predictor):
    predictor.stop_at = "case_1"
    assert review(cases) == 130
    predictor.stop_at = None
    assert review(cases) == 0
    assert predictor.calls == ["case_0", "case_1", "case_2"]


def test_an_interrupted_review_with_force_leaves_the_one_of_before(cases, predictor):
    assert review(cases) == 0
    before = page(cases)
    (cases.model / "fold_0" / "checkpoint_final.pth").write_text("trained further")
    predictor.stop_at = "case_1"
    assert review(cases, "--force") == 130
    assert page(cases) == before
    predictor.stop_at = None
    assert review(cases, "--force") == 0
    assert predictor.calls[3:] == ["case_0", "case_1", "case_2"]
    assert len(table(cases, "cases.csv")) == 3


def test_another_model_needs_force(cases, capsys):
    assert review(cases) == 0
    (cases.model / "fold_0" / "checkpoint_final.pth").write_text("trained further")
    assert review(cases) == 2
    assert "holds a review that differs in: states of the checkpoints" in capsys.readouterr().err
    assert review(cases, "--force") == 0


def test_cases_that_every_given_fold_has_trained_on_are_left_out(cases, capsys):
    assert review(cases, "-f", "0") == 0
    assert "predicted by fold 0 of " in page(cases)
    assert table(cases, "cases.csv")["case"].to_list() == ["case_0"]
    assert "2 cases left out, on which every given fold has trained" in capsys.readouterr().out
    assert "2 cases left out" in page(cases)


def test_a_model_of_another_dataset_predicts_every_case(cases):
    elsewhere = cases.results / "Dataset800_Other" / cases.model.name
    elsewhere.parent.mkdir()
    cases.model.rename(elsewhere)
    assert main(["review", str(elsewhere), "-d", "705", "-f", "0", "-o", str(cases.root / "review")]) == 0
    assert sorted(table(cases, "cases.csv")["case"]) == ["case_0", "case_1", "case_2"]


def test_a_model_says_itself_what_it_was_trained_on(cases, tmp_path):
    """By its plans: an exported one, or a colleague's, lies elsewhere."""
    plans = json.loads((cases.model / "plans.json").read_text())
    (cases.model / "plans.json").write_text(json.dumps({**plans, "dataset_name": cases.source.name}))
    moved = shutil.copytree(cases.model, tmp_path / "heart")
    assert main(["review", str(moved), "-d", "705", "-o", str(cases.root / "review")]) == 0
    assert "that have not trained on it" in page(cases)
    (moved / "plans.json").write_text(json.dumps({**plans, "dataset_name": "Dataset001_Other"}))
    assert main(["review", str(moved), "-d", "705", "-o", str(cases.root / "review"), "--force"]) == 0
    assert "of heart, which was trained on Dataset001_Other" in page(cases)


def test_nothing_to_review_gives_empty_tables(place, predictor):
    for number in range(3):
        with_arrays(place, f"case_{number}", 0.9, slice(0, 3))
    assert review(place) == 0
    assert len(table(place, "regions.csv")) == 0
    assert len(table(place, "cases.csv")) == 3


def test_names_with_markup_are_shown_as_they_are(cases):
    name, label = "<b>&amp;x", "<i>node</i>"
    with_arrays(cases, name, 0.9, slice(0, 1))
    cases.write_splits([(["case_0"], ["case_1", "case_2", name]), ([name, "case_1", "case_2"], ["case_0"])])
    cases.describe(model={"labels": {"background": 0, label: 1}}, labels={"background": 0, label: 1})
    assert review(cases) == 0
    html = page(cases)
    assert "<b>" not in html
    assert "<i>node" not in html
    assert "&lt;b&gt;&amp;amp;x" in html
    assert "&lt;i&gt;node&lt;/i&gt;" in html


def only_fold_all(model: Path) -> None:
    """Let a model have been trained on all cases alone."""
    (model / "fold_0").rename(model / "fold_all")
    shutil.rmtree(model / "fold_1")


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda place: None, ["-f", "all"], "has no fold all"),
        (lambda place: None, ["-f", "7"], "has no fold 7"),
        (
            lambda place: place.write_splits([(["case_0", "case_1", "case_2"], []), ([], [])]),
            ["-f", "0"],
            "have trained on every case",
        ),
        (lambda place: [file.unlink() for file in place.model.glob("fold_*/*.pth")], [], "no fold of it was trained"),
        (lambda place: only_fold_all(place.model), [], "for another dataset, give -f all"),
        (
            lambda place: place.model.rename(place.root / "moved"),
            [],
            "does not exist. Expected: a folder",
        ),
        (lambda place: place.describe(model={"labels": {"background": 0, "liver": 1}}), [], "no label in common"),
        (
            lambda place: place.describe(labels={"background": 0, "all": [1, 2], "node": 2}),
            [],
            "has regions",
        ),
    ],
)
def test_what_does_not_fit_is_refused(cases, capsys, change, options, message):
    change(cases)
    assert review(cases, *options) == 2
    assert message in capsys.readouterr().err
    assert not (cases.root / "review").exists()


def test_a_folder_in_the_model_or_the_dataset_is_refused(cases, capsys):
    assert main(["review", str(cases.model), "-d", "705", "-o", str(cases.source / "review")]) == 2
    assert main(["review", str(cases.model), "-d", "705", "-o", str(cases.model / "review")]) == 2
    assert not (cases.source / "review").exists()


def test_a_record_that_was_changed_by_hand_is_named(cases, capsys):
    assert review(cases) == 0
    file = Path(cases.root / "review" / "review.json")
    content = json.loads(file.read_text())
    content["case_0"]["result"]["number"] = "many"
    file.write_text(json.dumps(content))
    assert review(cases) == 2
    assert "review.json" in capsys.readouterr().err
