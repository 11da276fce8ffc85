"""Scores of hand-made label maps are what counting gives; files that do not go together are refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation import parallel
from nnunet_ext.evaluation.case_sets import Case, CaseSet
from nnunet_ext.evaluation.lesions import DetectionCounts
from nnunet_ext.evaluation.model_evaluation import match_labels
from nnunet_ext.evaluation.scoring import Metrics, score
from nnunet_ext.evaluation.surface import SurfaceDistances
from support.rows_of_voxels import MILLIMETRES, write_cases, write_row

TOLERANCES = {"shell": MILLIMETRES / 2, "core": MILLIMETRES, "fin": 0.0, "whole": 0.0}
EVERYTHING = Metrics(surface=True, lesions=True, tolerances=TOLERANCES)


def score_rows(folder, metrics=None, **instances):
    return score(*write_cases(folder, **instances), folder / "predictions", metrics)


def test_dice_is_what_counting_gives(tmp_path):
    result = score_rows(tmp_path)
    # shell in a: 2 of 3 reference and 2 predicted voxels agree, the ignored voxel left out: 2·2/(3+2); b: 2·1/(1+2)
    assert result.dice["shell"].dice == pytest.approx({"a": 4 / 5, "b": 2 / 3})
    assert result.dice["core"].dice["a"] == pytest.approx(2 / 3)


def test_undefined_dice_stays_out_of_means(tmp_path):
    result = score_rows(tmp_path)
    assert math.isnan(result.dice["core"].dice["b"])
    assert result.dice["core"].mean == pytest.approx(2 / 3)
    assert result.foreground_mean == pytest.approx(((4 / 5 + 2 / 3) / 2 + 2 / 3) / 2)


def test_aggregated_dice_is_over_all_cases_without_ignored_voxels(tmp_path):
    result = score_rows(tmp_path)
    assert result.aggregated_dice("shell") == pytest.approx((2 * 2 + 2 * 1) / ((3 + 2) + (1 + 2)))
    assert result.aggregated_dice("core") == pytest.approx(2 / 3)  # b adds nothing
    assert math.isnan(result.aggregated_dice("fin"))
    assert result.foreground_aggregated_dice == pytest.approx((6 / 8 + 2 / 3) / 2)


def test_cases_weigh_by_volume_in_aggregated_dice(tmp_path):
    cases, labels = write_cases(tmp_path)
    file = tmp_path / "predictions" / "b.nii.gz"
    prediction = sitk.ReadImage(str(file))
    prediction.SetSpacing((2 * MILLIMETRES, 3.0, 4.0))
    sitk.WriteImage(prediction, str(file))
    result = score(cases, labels, tmp_path / "predictions")
    assert result.aggregated_dice("shell") == pytest.approx((2 * 2 + 2 * 2 * 1) / ((3 + 2) + 2 * (1 + 2)))


def test_only_what_is_asked_for_is_computed(tmp_path):
    result = score_rows(tmp_path)
    assert result.surface == {}
    assert result.lesions == {}
    assert result.nsd == {}
    assert score_rows(tmp_path, Metrics(lesions=True)).surface == {}
    assert score_rows(tmp_path, Metrics(tolerances=TOLERANCES)).surface == {}


def test_distances_are_in_mm_and_ignored_voxels_have_no_part(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    # shell in a: 0 1 2 against 0 1, as the voxel predicted at 5 is ignored; the voxel at 2 is one voxel away
    a = result.surface["shell"]["a"]
    assert a.assd == pytest.approx(MILLIMETRES / 5)
    assert a.hd95 == pytest.approx(np.percentile([0, 0, MILLIMETRES], 95))
    b = result.surface["shell"]["b"]
    assert b.assd == pytest.approx(MILLIMETRES / 3)
    means = result.mean_distances("shell")
    assert means == SurfaceDistances(pytest.approx((a.assd + b.assd) / 2), pytest.approx((a.hd95 + b.hd95) / 2))
    assert result.cases_with_distance("shell") == 2


def test_undefined_distances_stay_out_of_means(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    assert math.isnan(result.surface["core"]["b"].assd)
    assert result.cases_with_distance("core") == 1
    assert result.mean_distances("core") == result.surface["core"]["a"]
    assert result.cases_with_distance("fin") == 0
    assert math.isnan(result.mean_distances("fin").hd95)


def test_nsd_has_the_tolerance_of_the_label_and_ignored_voxels_have_no_part(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    # shell in a: 0 1 2 against 0 1, as the voxel predicted at 5 is ignored; half a voxel is too little for the one at 2
    assert result.nsd["shell"] == pytest.approx({"a": 4 / 5, "b": 2 / 3})
    assert result.mean_nsd("shell") == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert result.nsd["core"]["a"] == result.mean_nsd("core") == 1.0  # a whole voxel is not
    assert score_rows(tmp_path, Metrics(tolerances=TOLERANCES | {"core": 1.9})).nsd["core"]["a"] == pytest.approx(2 / 3)


def test_nsd_is_undefined_where_dice_is_and_0_where_one_side_is_empty(tmp_path):
    cases, labels = write_cases(tmp_path)
    write_row(tmp_path / "predictions" / "a.nii.gz", [1, 1, 2, 2, 3, 3])  # the last one ignored
    write_row(tmp_path / "predictions" / "b.nii.gz", [0, 0, 0, 0, 0, 0])
    result = score(cases, labels, tmp_path / "predictions", EVERYTHING)
    assert result.nsd["fin"]["a"] == result.dice["fin"].dice["a"] == 0.0
    assert result.nsd["shell"]["b"] == result.dice["shell"].dice["b"] == 0.0
    for label, scores in result.dice.items():
        assert {case: math.isnan(one) for case, one in scores.dice.items()} == {
            case: math.isnan(one) for case, one in result.nsd[label].items()
        }
    assert math.isnan(result.nsd["fin"]["b"])
    assert result.mean_nsd("fin") == 0.0


@pytest.mark.parametrize("instances", [None, {"a": [301, 301, 70, 4, 0, 0], "b": [1, 0, 0, 0, 0, 0]}])
def test_scores_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch, instances):
    monkeypatch.setattr(parallel, "SECONDS_ALONE", 0)
    cases, labels = write_cases(tmp_path, instances=instances)
    one, two = (score(cases, labels, tmp_path / "predictions", EVERYTHING, workers=workers) for workers in (1, 2))
    assert repr(two) == repr(one)  # NaN is not equal to itself
    assert list(two.overlaps["shell"]) == ["a", "b"]


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
    assert list(result.dice) == names
    assert len(names) == len(keys) == 3
    undefined = 0
    for name, key in zip(names, keys):
        scores = result.dice[name]
        assert len(summary["metric_per_case"]) == len(scores.dice) == 5
        for case in summary["metric_per_case"]:
            found = scores.dice[Path(case["prediction_file"]).name.removesuffix(".nii.gz")]
            expected = case["metrics"][key]["Dice"]
            assert found == expected or (math.isnan(found) and math.isnan(expected))
            undefined += math.isnan(found)
        # nnU-Net adds in another order, which can change the last digit
        assert scores.mean == pytest.approx(summary["mean"][key]["Dice"], rel=1e-14)
    assert undefined == 3 + 1  # the empty case, and one more without the highest label
    assert result.foreground_mean == pytest.approx(summary["foreground_mean"]["Dice"], rel=1e-14)


def test_spacing_is_that_of_the_prediction(tmp_path):
    cases, labels = write_cases(tmp_path)
    expected = score(cases, labels, tmp_path / "predictions", EVERYTHING).surface["shell"]["a"]
    label = sitk.ReadImage(str(cases.cases["a"].label))
    label.SetSpacing((1.0, 1.0, 1.0))  # lost when the labels were made
    sitk.WriteImage(label, str(cases.cases["a"].label))
    assert score(cases, labels, tmp_path / "predictions", EVERYTHING).surface["shell"]["a"] == expected


def test_lesions_are_pooled_over_cases(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    assert result.lesions["shell"] == {"a": DetectionCounts(1, 1, 1, 1), "b": DetectionCounts(1, 1, 1, 1)}
    assert result.pooled_lesions("shell") == DetectionCounts(2, 2, 2, 2)
    assert result.pooled_lesions("fin") == DetectionCounts()
    strict = score_rows(tmp_path, Metrics(lesions=True, overlap=0.6))
    assert strict.pooled_lesions("shell") == DetectionCounts(2, 2, 2, 1)


def test_instances_are_those_of_the_map(tmp_path):
    maps = {"a": [301, 301, 70, 4, 0, 0], "b": [1, 0, 0, 0, 0, 0]}
    result = score_rows(tmp_path, EVERYTHING, instances=maps)
    assert result.lesions["shell"]["a"] == DetectionCounts(reference=2, found=1, predicted=1, right=1)
    assert result.lesions["core"]["a"] == DetectionCounts(1, 1, 1, 1)


def test_instances_of_a_region_are_those_of_all_its_values(tmp_path):
    cases, labels = write_cases(tmp_path)
    whole = type(labels)({"whole": (1, 2)}, (), (), 9)
    result = score(cases, whole, tmp_path / "predictions", EVERYTHING)
    assert result.lesions["whole"]["a"] == DetectionCounts(1, 1, 1, 1)
    assert result.surface["whole"]["a"] == SurfaceDistances(0.0, 0.0)


def test_labels_stored_as_float_are_taken(tmp_path):
    expected = score_rows(tmp_path, EVERYTHING)
    cases, labels = write_cases(tmp_path)
    write_row(cases.cases["a"].label, [1, 1, 1, 2, 0, 9], np.float32)
    result = score(cases, labels, tmp_path / "predictions", EVERYTHING)
    assert result.lesions == expected.lesions
    assert result.surface["shell"] == expected.surface["shell"]
    assert result.dice["shell"] == expected.dice["shell"]


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
    assert result.lesions["shell"]["a"].reference == 2
    assert result.lesions["core"]["a"].reference == 1
    assert result.lesions["shell"]["b"].reference == 1


def test_a_region_of_which_the_map_leaves_a_value_out_has_components(tmp_path):
    cases, labels = write_cases(tmp_path, instances={"a": [5, 5, 6, 0, 0, 0], "b": [1, 0, 0, 0, 0, 0]})
    region = type(labels)({"whole": (1, 2)}, (), (), 9)
    assert score(cases, region, tmp_path / "predictions", EVERYTHING).lesions["whole"]["a"].reference == 1


def test_instances_that_are_ignored_do_not_matter(tmp_path):
    maps = {"a": [1, 1, 1, 2, 0, 8], "b": [1, 0, 0, 0, 0, 0]}
    assert score_rows(tmp_path, EVERYTHING, instances=maps).lesions["shell"]["a"] == DetectionCounts(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [([1, 1, 1], "has 1 x 1 x 3 voxels"), ([0.5, 1, 1, 2, 0, 9], r"a\.nii\.gz holds values that are no labels: 0\.5")],
)
def test_references_of_another_image_or_without_labels_are_refused(tmp_path, values, message):
    cases, labels = write_cases(tmp_path)
    write_row(cases.cases["a"].label, values, np.float32)
    with pytest.raises(UserError, match=message):
        score(cases, labels, tmp_path / "predictions")
