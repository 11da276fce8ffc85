"""Scores of hand-made label maps are what counting gives; files that do not go together are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation import parallel
from nnunet_ext.evaluation.case_sets import Case, CaseSet
from nnunet_ext.evaluation.evaluation_files import remarks
from nnunet_ext.evaluation.metrics import AGGREGATED_DICE, ASSD, DICE, HD95, LESIONS_PRECISION, LESIONS_RECALL, NSD
from nnunet_ext.evaluation.scored_labels import match_labels
from nnunet_ext.evaluation.scoring import Options, score
from support.rows_of_voxels import MILLIMETRES, write_cases, write_row

TOLERANCES = {"shell": MILLIMETRES / 2, "core": MILLIMETRES, "fin": 0.0, "whole": 0.0}
EVERYTHING = Options(("surface", "nsd", "lesions"), tolerances=TOLERANCES)


def score_rows(folder, options=None, **instances):
    return score(*write_cases(folder, **instances), folder / "predictions", options)


def value(result, metric, case, label):
    return result.values(metric)[case][label]


def figure(result, metric, label):
    return result.estimates[label][metric.name].value


def lesions(result, case, label):
    """How many instances the reference has, are found, are predicted, are right; of all cases for None."""
    rows = result.scores[(result.scores["label"] == label) & ((result.scores["case"] == case) | (case is None))]
    parts = rows.groupby("metric")[["numerator", "denominator"]].sum()
    (found, reference), (right, predicted) = (parts.loc[one.name] for one in (LESIONS_RECALL, LESIONS_PRECISION))
    return reference, found, predicted, right


def test_values_that_are_no_labels_are_told_and_maps_of_nothing_else_are_refused(tmp_path):
    cases, labels = write_cases(tmp_path)
    assert not any("no label's" in line for line in remarks(score(cases, labels, tmp_path / "predictions")))
    for folder, name in (("labels", "a"), ("predictions", "b")):
        write_row(tmp_path / folder / f"{name}.nii.gz", [1, 1, 7, 0, 255, 0])
    lines = remarks(score(cases, labels, tmp_path / "predictions"))
    assert [line.partition("by dataset.json. ")[2] for line in lines if "no label's" in line] == [
        f"They count as background. {cases.cases['a'].label} has 7, 255"
    ]
    assert any("2 of 2 cases have values" in line for line in lines)
    for name in ("a", "b"):
        write_row(tmp_path / "predictions" / f"{name}.nii.gz", [255, 255, 0, 0, 0, 0])
    message = r"a\.nii\.gz has 255, and no file beside it has a label: .* are 0, 1, 2, 3, 4, 9\. Write"
    with pytest.raises(UserError, match=message):
        score(cases, labels, tmp_path / "predictions")


def test_dice_is_what_counting_gives(tmp_path):
    result = score_rows(tmp_path)
    # shell in a: 2 of 3 reference and 2 predicted voxels agree, the ignored voxel left out: 2·2/(3+2); b: 2·1/(1+2)
    assert value(result, DICE, "a", "shell") == pytest.approx(4 / 5)
    assert value(result, DICE, "b", "shell") == pytest.approx(2 / 3)
    assert value(result, DICE, "a", "core") == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("one_piece", "left"),
    [
        (None, [1, 1, 2, 0, 1, 1, 1, 0, 3]),
        ("foreground", [1, 1, 2, 0, 1, 1, 1, 0, 0]),  # the two of three voxels are equally large
        ("labels", [0, 0, 2, 0, 1, 1, 1, 0, 3]),
    ],
)
def test_only_the_largest_component_is_scored(tmp_path, one_piece, left):
    cases, labels = write_cases(tmp_path)
    for name in cases.cases:
        write_row(tmp_path / "labels" / f"{name}.nii.gz", [1, 1, 2, 0, 0, 1, 1, 0, 3])
        write_row(tmp_path / "predictions" / f"{name}.nii.gz", [1, 1, 2, 0, 1, 1, 1, 0, 3])
    before = (tmp_path / "predictions" / "a.nii.gz").read_bytes()
    result = score(cases, labels, tmp_path / "predictions", Options(largest_component=one_piece))
    reference, prediction = np.array([1, 1, 2, 0, 0, 1, 1, 0, 3]), np.array(left)
    for label, number in (("shell", 1), ("core", 2), ("fin", 3)):
        ours, theirs = prediction == number, reference == number
        assert value(result, DICE, "a", label) == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
    assert (tmp_path / "predictions" / "a.nii.gz").read_bytes() == before


def test_labels_that_only_the_model_has_are_part_of_the_body(tmp_path):
    cases, labels = write_cases(tmp_path)
    for name in cases.cases:
        write_row(tmp_path / "labels" / f"{name}.nii.gz", [1, 1, 0, 2, 0, 3])
        write_row(tmp_path / "predictions" / f"{name}.nii.gz", [1, 1, 4, 2, 0, 3])  # 4 is of the model alone
    result = score(cases, labels, tmp_path / "predictions", Options(largest_component="foreground"))
    assert [value(result, DICE, "a", label) for label in ("shell", "core", "fin")] == [1, 1, 0]


def test_components_of_what_reaches_a_threshold_are_refused():
    with pytest.raises(ValueError, match="components of nnU-Net's decision"):
        Options(largest_component="labels", threshold=0.3)


def test_undefined_dice_stays_out_of_means(tmp_path):
    result = score_rows(tmp_path)
    assert math.isnan(value(result, DICE, "b", "core"))
    assert figure(result, DICE, "core") == pytest.approx(2 / 3)
    assert result.count(DICE, "core") == 1
    assert result.means[DICE.name].value == pytest.approx(((4 / 5 + 2 / 3) / 2 + 2 / 3) / 2)


def test_aggregated_dice_is_over_all_cases_without_ignored_voxels(tmp_path):
    result = score_rows(tmp_path)
    assert figure(result, AGGREGATED_DICE, "shell") == pytest.approx((2 * 2 + 2 * 1) / ((3 + 2) + (1 + 2)))
    assert figure(result, AGGREGATED_DICE, "core") == pytest.approx(2 / 3)  # b adds nothing
    assert math.isnan(figure(result, AGGREGATED_DICE, "fin"))
    assert result.means[AGGREGATED_DICE.name].value == pytest.approx((6 / 8 + 2 / 3) / 2)


def test_cases_weigh_by_volume_in_aggregated_dice(tmp_path):
    cases, labels = write_cases(tmp_path)
    file = tmp_path / "predictions" / "b.nii.gz"
    prediction = sitk.ReadImage(str(file))
    prediction.SetSpacing((2 * MILLIMETRES, 3.0, 4.0))
    sitk.WriteImage(prediction, str(file))
    result = score(cases, labels, tmp_path / "predictions")
    assert figure(result, AGGREGATED_DICE, "shell") == pytest.approx((2 * 2 + 2 * 2 * 1) / ((3 + 2) + 2 * (1 + 2)))


@pytest.mark.parametrize("groups", [(), ("lesions",), ("surface",)])
def test_only_what_is_asked_for_is_computed(tmp_path, groups):
    result = score_rows(tmp_path, Options(groups))
    assert set(result.scores["metric"]) == {one.name for one in Options(groups).metrics if one.compute}


def test_distances_are_in_mm_and_ignored_voxels_have_no_part(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    # shell in a: 0 1 2 against 0 1, as the voxel predicted at 5 is ignored; the voxel at 2 is one voxel away
    a, b = (value(result, ASSD, case, "shell") for case in "ab")
    assert a == pytest.approx(MILLIMETRES / 5)
    assert value(result, HD95, "a", "shell") == pytest.approx(np.percentile([0, 0, MILLIMETRES], 95))
    assert b == pytest.approx(MILLIMETRES / 3)
    assert figure(result, ASSD, "shell") == pytest.approx((a + b) / 2)
    assert result.count(ASSD, "shell") == 2


def test_undefined_distances_stay_out_of_means(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    assert math.isnan(value(result, ASSD, "b", "core"))
    assert result.count(ASSD, "core") == 1
    assert figure(result, ASSD, "core") == value(result, ASSD, "a", "core")
    assert result.count(HD95, "fin") == 0
    assert math.isnan(figure(result, HD95, "fin"))


def test_nsd_has_the_tolerance_of_the_label_and_ignored_voxels_have_no_part(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    # shell in a: 0 1 2 against 0 1, as the voxel predicted at 5 is ignored; half a voxel is too little for the one at 2
    assert value(result, NSD, "a", "shell") == pytest.approx(4 / 5)
    assert value(result, NSD, "b", "shell") == pytest.approx(2 / 3)
    assert figure(result, NSD, "shell") == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert value(result, NSD, "a", "core") == figure(result, NSD, "core") == 1.0  # a whole voxel is not
    less = score_rows(tmp_path, Options(("nsd",), tolerances=TOLERANCES | {"core": 1.9}))
    assert value(less, NSD, "a", "core") == pytest.approx(2 / 3)


def test_nsd_is_undefined_where_dice_is_and_0_where_one_side_is_empty(tmp_path):
    cases, labels = write_cases(tmp_path)
    write_row(tmp_path / "predictions" / "a.nii.gz", [1, 1, 2, 2, 3, 3])  # the last one ignored
    write_row(tmp_path / "predictions" / "b.nii.gz", [0, 0, 0, 0, 0, 0])
    result = score(cases, labels, tmp_path / "predictions", EVERYTHING)
    dice, nsd = result.values(DICE), result.values(NSD)
    assert nsd["a"]["fin"] == dice["a"]["fin"] == 0.0
    assert nsd["b"]["shell"] == dice["b"]["shell"] == 0.0
    for case, by_label in dice.items():
        assert {label: math.isnan(one) for label, one in by_label.items()} == {
            label: math.isnan(one) for label, one in nsd[case].items()
        }
    assert math.isnan(nsd["b"]["fin"])
    assert figure(result, NSD, "fin") == 0.0


@pytest.mark.parametrize("instances", [None, {"a": [301, 301, 70, 4, 0, 0], "b": [1, 0, 0, 0, 0, 0]}])
def test_scores_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, instances):
    monkeypatch.setattr(parallel, "SECONDS_ALONE", 0)
    cases, labels = write_cases(tmp_path, instances=instances)
    one, two = (score(cases, labels, tmp_path / "predictions", EVERYTHING, workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one.scores, two.scores, check_exact=True)
    assert list(two.scores["case"].unique()) == ["a", "b"]


def test_errors_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(parallel, "SECONDS_ALONE", 0)
    cases, labels = write_cases(tmp_path)
    for case in cases.cases.values():
        write_row(case.label, [1, 1, 1])
    messages = []
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"labels/a\.nii\.gz has 1 x 1 x 3 voxels") as error:
            score(cases, labels, tmp_path / "predictions", workers=workers)
        messages.append(str(error.value))
    assert messages[0] == messages[1]


def write_random_cases(folder: Path, description: Mapping[str, Any], seed: int) -> CaseSet:
    """Four cases of random labels in blocks and one that is empty; the highest label is rare, and never ignored."""
    rng = np.random.default_rng(seed)
    ignore = description["labels"].get("ignore", 0)
    cases = {}
    for kind in ("references", "predictions"):
        (folder / kind).mkdir(parents=True)
    for number in range(5):
        name = f"case_{number}"
        maps = {kind: rng.integers(0, 4, (4, 6, 5)).repeat(2, axis=2) for kind in ("references", "predictions")}
        maps["predictions"] = np.where(rng.random(maps["predictions"].shape) < 0.6, *maps.values())
        if number == 4:
            maps = {kind: np.zeros_like(values) for kind, values in maps.items()}
        if number in (1, 2):
            maps["references"][maps["references"] == 3] = 0
        if number == 2:
            maps["predictions"][maps["predictions"] == 3] = 0
        maps["references"][rng.random(maps["references"].shape) < 0.2] = ignore
        for kind, values in maps.items():
            image = sitk.GetImageFromArray(values.astype(np.uint8))
            image.SetSpacing((0.7, 1.3, 5.0))
            sitk.WriteImage(image, str(folder / kind / f"{name}.nii.gz"))
        cases[name] = Case((), folder / "references" / f"{name}.nii.gz")
    return CaseSet("Dataset001_Random", "all", description, cases)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("labels", "order"),
    [
        ({"background": 0, "a": 1, "b": 2, "c": 3}, None),
        ({"background": 0, "a": 1, "b": 2, "c": 3, "ignore": 4}, None),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}, [1, 2, 3]),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": [3], "ignore": 4}, [1, 2, 3]),
    ],
)
def test_dice_is_that_of_the_summary_of_nnunet(tmp_path, labels, order, seed):
    description = {"labels": labels, "file_ending": ".nii.gz", "regions_class_order": order}
    cases = write_random_cases(tmp_path, description, seed)
    manager = LabelManager(labels, order)
    keys = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    folders = str(tmp_path / "references"), str(tmp_path / "predictions")
    summary = compute_metrics_on_folder(*folders, None, SimpleITKIO(), ".nii.gz", keys, manager.ignore_label, 1)

    result = score(cases, match_labels(description, description, name="D"), tmp_path / "predictions")
    names = [name for name in labels if name not in ("background", "ignore")]
    assert list(result.estimates) == names
    assert len(names) == len(keys) == 3
    undefined = 0
    for name, key in zip(names, keys):
        assert len(summary["metric_per_case"]) == len(result.values(DICE)) == 5
        for case in summary["metric_per_case"]:
            found = value(result, DICE, Path(case["prediction_file"]).name.removesuffix(".nii.gz"), name)
            expected = case["metrics"][key]["Dice"]
            assert found == expected or (math.isnan(found) and math.isnan(expected))
            undefined += math.isnan(found)
        # nnU-Net adds in another order, which can change the last digit
        assert figure(result, DICE, name) == pytest.approx(summary["mean"][key]["Dice"], rel=1e-14)
    assert undefined == 3 + 1  # the empty case, and one more without the highest label
    assert result.means[DICE.name].value == pytest.approx(summary["foreground_mean"]["Dice"], rel=1e-14)


def test_spacing_is_that_of_the_prediction(tmp_path):
    cases, labels = write_cases(tmp_path)
    expected = value(score(cases, labels, tmp_path / "predictions", EVERYTHING), ASSD, "a", "shell")
    label = sitk.ReadImage(str(cases.cases["a"].label))
    label.SetSpacing((1.0, 1.0, 1.0))  # lost when the labels were made
    sitk.WriteImage(label, str(cases.cases["a"].label))
    result = score(cases, labels, tmp_path / "predictions", EVERYTHING)
    assert value(result, ASSD, "a", "shell") == expected
    assert result.misplaced == {"a": "the spacings of prediction and reference differ: 4 × 3 × 2 and 1 × 1 × 1 mm"}
    assert any("1 of 2 predictions do not lie where their references do." in line for line in remarks(result))


def test_predictions_in_another_place_are_told_of(tmp_path):
    cases, labels = write_cases(tmp_path)
    assert score(cases, labels, tmp_path / "predictions", EVERYTHING).misplaced == {}
    file = tmp_path / "predictions" / "b.nii.gz"
    prediction = sitk.ReadImage(str(file))
    prediction.SetOrigin((0, 0, 7))
    sitk.WriteImage(prediction, str(file))
    found = score(cases, labels, tmp_path / "predictions", EVERYTHING).misplaced
    assert found == {"b": "the origins of prediction and reference differ: 0 0 7 and 0 0 0"}


def test_lesions_are_pooled_over_cases(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    assert lesions(result, "a", "shell") == lesions(result, "b", "shell") == (1, 1, 1, 1)
    assert lesions(result, None, "shell") == (2, 2, 2, 2)
    assert lesions(result, None, "fin") == (0, 0, 0, 0)
    assert lesions(score_rows(tmp_path, Options(("lesions",), overlap=0.6)), None, "shell") == (2, 2, 2, 1)


def test_instances_are_those_of_the_map(tmp_path):
    maps = {"a": [301, 301, 70, 4, 0, 0], "b": [1, 0, 0, 0, 0, 0]}
    result = score_rows(tmp_path, EVERYTHING, instances=maps)
    assert lesions(result, "a", "shell") == (2, 1, 1, 1)
    assert lesions(result, "a", "core") == (1, 1, 1, 1)


def test_instances_of_a_region_are_those_of_all_its_values(tmp_path):
    cases, labels = write_cases(tmp_path)
    whole = type(labels)({"whole": (1, 2)}, (), (), 9, ())
    result = score(cases, whole, tmp_path / "predictions", EVERYTHING)
    assert lesions(result, "a", "whole") == (1, 1, 1, 1)
    assert value(result, ASSD, "a", "whole") == value(result, HD95, "a", "whole") == 0.0


def test_labels_stored_as_float_are_taken(tmp_path):
    expected = score_rows(tmp_path, EVERYTHING)
    cases, labels = write_cases(tmp_path)
    write_row(cases.cases["a"].label, [1, 1, 1, 2, 0, 9], np.float32)
    result = score(cases, labels, tmp_path / "predictions", EVERYTHING)
    pd.testing.assert_frame_equal(result.scores, expected.scores, check_exact=True)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"a": [1, 1, 1, 2, 3, 0], "b": [1, 0, 0, 0, 0, 0]}, r"Instance 3 of .*a.nii.gz has voxels.*--labels"),
        ({"a": [1, 1, 0, 2, 0, 0], "b": [1, 0, 0, 0, 0, 0]}, r"1 of 3 voxels with the value 1 in .*a.nii.gz belong to"),
        ({"a": [1, 1, 1, 2, 0], "b": [1, 0, 0, 0, 0, 0]}, r"instances/a.nii.gz has the shape"),
    ],
)
def test_maps_of_instances_that_do_not_go_with_the_labels_are_refused(tmp_path, maps, message):
    with pytest.raises(UserError, match=message):
        score_rows(tmp_path, EVERYTHING, instances=maps)


def test_labels_that_the_map_leaves_out_have_components(tmp_path):
    maps = {"a": [5, 5, 6, 0, 0, 0], "b": [0, 0, 0, 0, 0, 0]}  # no core in a, nothing in b
    result = score_rows(tmp_path, EVERYTHING, instances=maps)
    assert lesions(result, "a", "shell")[0] == 2
    assert lesions(result, "a", "core")[0] == 1
    assert lesions(result, "b", "shell")[0] == 1


def test_a_region_of_which_the_map_leaves_a_value_out_has_components(tmp_path):
    cases, labels = write_cases(tmp_path, instances={"a": [5, 5, 6, 0, 0, 0], "b": [1, 0, 0, 0, 0, 0]})
    region = type(labels)({"whole": (1, 2)}, (), (), 9, ())
    assert lesions(score(cases, region, tmp_path / "predictions", EVERYTHING), "a", "whole")[0] == 1


def test_instances_that_are_ignored_do_not_matter(tmp_path):
    maps = {"a": [1, 1, 1, 2, 0, 8], "b": [1, 0, 0, 0, 0, 0]}
    assert lesions(score_rows(tmp_path, EVERYTHING, instances=maps), "a", "shell") == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [([1, 1, 1], "has 1 x 1 x 3 voxels"), ([0.5, 1, 1, 2, 0, 9], r"a\.nii\.gz holds values that are no labels: 0\.5")],
)
def test_references_of_another_image_or_without_labels_are_refused(tmp_path, values, message):
    cases, labels = write_cases(tmp_path)
    write_row(cases.cases["a"].label, values, np.float32)
    with pytest.raises(UserError, match=message):
        score(cases, labels, tmp_path / "predictions")
