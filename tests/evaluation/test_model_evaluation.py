"""What is a model, which labels it has in common with a dataset, and what decides its predictions."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.checkpoints.description import ModelDescription
from nnunet_ext.checkpoints.trained_model import TrainedModel
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.model_evaluation import check_can_predict, check_inputs, keep_prediction, request
from nnunet_ext.evaluation.scored_labels import label_channels, match_labels
from nnunet_ext.preprocessing.raw.raw_dataset import Case
from support.rows_of_voxels import write_cases


def labels(**values):
    return {"labels": {"background": 0, **values}}


def test_labels_are_matched_by_name_and_the_others_are_listed():
    found = match_labels(labels(a=1, b=2, ignore=3), labels(c=2, a=1, ignore=5), name="D")
    assert found.keys == {"a": (1,)}
    assert found.only_model == ("b",)
    assert found.only_dataset == ("c",)
    assert found.ignore == 5


def test_regions_are_matched_whatever_the_order_of_their_values():
    found = match_labels(labels(whole=[1, 2], core=[2]), labels(whole=[2, 1], core=2), name="D")
    assert found.keys == {"whole": (1, 2), "core": (2,)}
    assert found.ignore is None


def test_one_name_for_different_values_is_an_error():
    with pytest.raises(UserError, match=r"the value 1 \+ 2 in the model and 1 in D\. Define it by the model's values"):
        match_labels(labels(whole=[1, 2]), labels(whole=1), name="D")


def test_channels_are_the_values_of_labels_and_the_order_of_regions():
    assert label_channels(labels(b=2, a=1, ignore=3), ["a", "b"]) == {"a": 1, "b": 2}
    assert label_channels(labels(whole=[1, 2, 3], core=[2, 3], tip=3, ignore=4), ["tip", "whole"]) == {
        "tip": 2,
        "whole": 0,
    }


def test_no_common_label_is_an_error_with_both_lists():
    with pytest.raises(UserError, match="model has a, b; D has c"):
        match_labels(labels(a=1, b=2), labels(c=1), name="D")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channel_names": {"0": "CT", "1": "CT"}}, r"takes 1 channel \(MRI\), but D has 2 \(CT, CT\)"),
        ({"channel_names": {"0": "CT"}}, r"takes 1 channel \(MRI\), but D has 1 \(CT\)"),
        ({"file_ending": ".nii.gz"}, r"ending in .nrrd, but those of D end in .nii.gz"),
    ],
)
def test_images_of_another_kind_are_refused(change, message):
    model = {"channel_names": {"0": "MRI"}, "file_ending": ".nrrd"}
    check_inputs(model, dict(model), name="D")
    with pytest.raises(UserError, match=message):
        check_inputs(model, {**model, **change}, name="D")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, r"plans\.json has no image_reader_writer, which nnU-Net always writes"),
        ({"image_reader_writer": "x"}, r"Configuration '2d' in .*plans\.json has no spacing, use_mask_for_norm, which"),
        ({"image_reader_writer": "x", "architecture": {}}, "its architecture has no network_class_name, arch_kwargs"),
        ({"image_reader_writer": "x", "configurations": {}}, "has no configuration '2d'"),
    ],
)
def test_plans_that_nobody_can_predict_with_are_named(tmp_path, change, told):
    network = {"network_class_name": "x", "arch_kwargs": {}}
    configuration = {"patch_size": [8, 8], "normalization_schemes": ["x"], "preprocessor_name": "x"}
    configuration |= {"architecture": change.pop("architecture", network)}
    axes = dict.fromkeys(("transpose_forward", "transpose_backward"), [0, 1, 2])
    plans = {"plans_name": "p", "dataset_name": "D", **axes, "configurations": {"2d": configuration}, **change}
    with pytest.raises(UserError, match=told):
        check_can_predict(ModelDescription(plans, "2d", {}), file=tmp_path / "plans.json")


def test_a_model_that_was_trained_further_is_another_request(tmp_path):
    cases, _ = write_cases(tmp_path)
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "c.pth").write_text("one")
    model = TrainedModel(tmp_path, (0,), "c.pth", {}, {})
    before = request(model, [cases], mirroring=True)
    assert request(model, [cases], mirroring=True) == before
    assert json.loads(json.dumps(before)) == before
    (tmp_path / "fold_0" / "c.pth").write_text("more")
    assert request(model, [cases], mirroring=True) != before


def test_images_that_were_replaced_are_another_request(tmp_path):
    cases, _ = write_cases(tmp_path)
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "fold_0" / "c.pth").write_text("one")
    image = tmp_path / "image.nrrd"
    image.write_text("first")
    with_image = replace(cases, cases={"a": Case((image,), image)})
    model = TrainedModel(tmp_path, (0,), "c.pth", {}, {})
    before = request(model, [with_image], mirroring=True)
    assert request(model, [with_image], mirroring=True) == before
    image.write_text("another")
    assert request(model, [with_image], mirroring=True) != before


def write_label_map(file):
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 3, (4, 9, 9)).astype(np.uint8)), file)


def test_a_prediction_is_kept_with_what_belongs_to_it(tmp_path):
    for part in ("unfinished", "folder"):
        (tmp_path / part).mkdir()
    write_label_map(tmp_path / "unfinished" / "a.nii.gz")
    (tmp_path / "unfinished" / "a.json").write_text("{}")
    for other in ("ab.json", "a.2.nii.gz", "a.2.json"):
        (tmp_path / "unfinished" / other).write_text("of another case")
    keep_prediction(tmp_path / "unfinished", tmp_path / "folder", "a", ".nii.gz")
    assert sorted(file.name for file in (tmp_path / "folder").iterdir()) == ["a.json", "a.nii.gz"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_prediction_that_was_cut_off_is_not_kept(tmp_path, is_there):
    for part in ("unfinished", "folder"):
        (tmp_path / part).mkdir()
    file = tmp_path / "unfinished" / "a.nii.gz"
    write_label_map(file)
    file.write_bytes(file.read_bytes()[:-20])
    if not is_there:
        file.unlink()
    with pytest.raises(OSError, match=r"not be written to its end.*a\.nii\.gz"):
        keep_prediction(tmp_path / "unfinished", tmp_path / "folder", "a", ".nii.gz")
    assert not list((tmp_path / "folder").iterdir())
