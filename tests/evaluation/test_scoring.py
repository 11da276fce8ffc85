"""Scores of hand-made label maps are what counting gives; files that do not go together are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.lesions import LesionCounts
from nnunet_ext.evaluation.scoring import Metrics, score
from nnunet_ext.evaluation.surface import SurfaceDistances
from support.rows_of_voxels import MILLIMETRES, write_cases, write_row

EVERYTHING = Metrics(surface=True, lesions=True)


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
    assert score_rows(tmp_path, Metrics(lesions=True)).surface == {}


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


def test_spacing_is_that_of_the_prediction(tmp_path):
    cases, labels = write_cases(tmp_path)
    expected = score(cases, labels, tmp_path / "predictions", EVERYTHING).surface["shell"]["a"]
    label = sitk.ReadImage(str(cases.cases["a"].label))
    label.SetSpacing((1.0, 1.0, 1.0))  # lost when the labels were made
    sitk.WriteImage(label, str(cases.cases["a"].label))
    assert score(cases, labels, tmp_path / "predictions", EVERYTHING).surface["shell"]["a"] == expected


def test_lesions_are_pooled_over_cases(tmp_path):
    result = score_rows(tmp_path, EVERYTHING)
    assert result.lesions["shell"] == {"a": LesionCounts(1, 1, 1, 1), "b": LesionCounts(1, 1, 1, 1)}
    assert result.pooled_lesions("shell") == LesionCounts(2, 2, 2, 2)
    assert result.pooled_lesions("fin") == LesionCounts()
    strict = score_rows(tmp_path, Metrics(lesions=True, overlap=0.6))
    assert strict.pooled_lesions("shell") == LesionCounts(2, 2, 2, 1)


def test_instances_are_those_of_the_map(tmp_path):
    maps = {"a": [301, 301, 70, 4, 0, 0], "b": [1, 0, 0, 0, 0, 0]}
    result = score_rows(tmp_path, EVERYTHING, instances=maps)
    assert result.lesions["shell"]["a"] == LesionCounts(reference=2, found=1, predicted=1, right=1)
    assert result.lesions["core"]["a"] == LesionCounts(1, 1, 1, 1)


def test_instances_of_a_region_are_those_of_all_its_values(tmp_path):
    cases, labels = write_cases(tmp_path)
    whole = type(labels)({"whole": (1, 2)}, (), (), 9)
    result = score(cases, whole, tmp_path / "predictions", EVERYTHING)
    assert result.lesions["whole"]["a"] == LesionCounts(1, 1, 1, 1)
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
    assert score_rows(tmp_path, EVERYTHING, instances=maps).lesions["shell"]["a"] == LesionCounts(1, 1, 1, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [([1, 1, 1], "has 1 x 1 x 3 voxels"), ([0.5, 1, 1, 2, 0, 9], r"a\.nii\.gz holds values that are no labels: 0\.5")],
)
def test_references_of_another_image_or_without_labels_are_refused(tmp_path, values, message):
    cases, labels = write_cases(tmp_path)
    write_row(cases.cases["a"].label, values, np.float32)
    with pytest.raises(UserError, match=message):
        score(cases, labels, tmp_path / "predictions")
