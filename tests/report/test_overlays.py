"""Which cases are shown, and that their pictures stay small."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image
from skimage import io as io_of_pictures

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.raw_dataset import Case, read_images, reader_for
from nnunet_ext.report.cases import CaseFiles, Label
from nnunet_ext.report.overlays import (
    DPI,
    HEIGHT,
    WIDTH,
    along_the_patient,
    best_slice,
    choose_cases,
    data_url,
    draw_case,
    draw_overlay,
)
from support.made_results import DATASET_JSON, write_raw, write_volume

LABELS = {Label("liver", (1,)): "#56b4e9"}


def test_worst_median_and_best_case_are_chosen_by_mean_dice():
    runs = [{"a": 0.9, "b": 0.5, "c": 0.1, "d": math.nan}, {"a": 0.8, "c": 0.9}]
    assert choose_cases(runs) == [("Worst", "b"), ("Median", "c"), ("Best", "a")]


def test_a_single_case_is_shown_once():
    assert choose_cases([{"alone": 0.3}]) == [("Worst", "alone")]
    assert choose_cases([{"alone": math.nan}]) == []


def test_best_slice_prefers_more_labels_to_more_voxels():
    labels = np.zeros((4, 5, 5), dtype=int)
    labels[1] = 1
    labels[2, 0, 0], labels[2, 1, 1] = 1, 2
    assert best_slice(labels, 0) == 2
    assert best_slice(np.zeros_like(labels), 0) == 2


@pytest.mark.parametrize("shape", [(1, 40, 2000), (400, 30, 30), (1, 2000, 20)])
def test_pictures_of_any_shape_are_bounded(shape):
    labels = np.zeros(shape, dtype=int)
    labels[:, 5:10, 5:10] = 1
    url = data_url(draw_overlay(labels.astype(float), labels, labels, [1.0, 1.0, 1.0], LABELS))
    width, height = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size
    assert width <= WIDTH * DPI + 1
    assert height <= HEIGHT * DPI + 1


READERS = ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient", "SimpleITKIOWithReorient"]


@pytest.mark.parametrize("reader", READERS)
def test_a_volume_is_seen_head_up_from_the_same_sides_however_its_file_is_turned(tmp_path, reader):
    """With a spacing of its own along each axis, and the ring at the same place of the patient."""
    rng = np.random.default_rng(0)
    labels = np.zeros((9, 10, 11), np.uint8)
    labels[2:5, 1:4, 6:10], labels[2, 2, 2] = 1, 1
    image = rng.integers(0, 255, labels.shape).astype(np.uint8)
    names = ("image", "labels", "found")
    drawn = set()
    for orientation in ("LPS", "RAS", "LIA", "PIR", "ASL"):
        files = [tmp_path / f"{name}_{orientation}.nii.gz" for name in names]
        for file, array in zip(files, (image, labels, np.roll(labels, 1, 1))):
            volume = sitk.GetImageFromArray(array)
            volume.SetSpacing((1.0, 1.5, 3.0))
            sitk.WriteImage(sitk.DICOMOrient(volume, orientation), str(file))
        description = {**DATASET_JSON, "overwrite_image_reader_writer": reader}
        shape = read_images(reader_for(description, files[0]), Case((files[0],), files[1]))[0].shape[1:]
        drawn.add(draw_case(CaseFiles(files[2], files[1], files[0]), LABELS, description))
        assert sorted(shape) == [9, 10, 11]
    assert len(drawn) == 1


def test_the_ring_stays_at_its_voxel_when_a_volume_is_turned():
    image = np.random.default_rng(0).random((5, 6, 7))
    labels = (image > 0.5).astype(int)
    axes = [(1, True), (2, False), (0, True)]  # to the head, the back and the left
    turned = [along_the_patient(one, axes) for one in (image, labels)]
    assert turned[0][2, 1, 0] == image[4, 3, 1]
    asked = draw_overlay(image, labels, labels, [3.0, 1.0, 2.0], LABELS, (4, 3, 1), axes)
    assert asked == draw_overlay(*turned, turned[1], [1.0, 2.0, 3.0], LABELS, (2, 1, 0))


def test_pictures_in_colour_are_drawn_in_colour(tmp_path):
    """Green on black: the red channel alone would be black."""
    picture = np.zeros((20, 20, 3), np.uint8)
    picture[5:15, 5:15, 1] = 200
    for name, array in (("image", picture), ("labels", np.zeros((20, 20), np.uint8))):
        io_of_pictures.imsave(tmp_path / f"{name}.png", array, check_contrast=False)
    labels = tmp_path / "labels.png"
    colours = {"0": "R", "1": "G", "2": "B"}
    description = {"channel_names": colours, "labels": {"background": 0, "liver": 1}, "file_ending": ".png"}
    url = draw_case(CaseFiles(labels, labels, tmp_path / "image.png"), LABELS, description)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
    middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2]
    assert middle[1] > 200
    assert max(middle[0], middle[2]) < 10


def test_prediction_of_another_size_is_said(tmp_path):
    raw = write_raw(tmp_path, ["case"])
    write_volume(tmp_path / "case.nii.gz", np.zeros((3, 4, 5), dtype=np.uint8))
    files = CaseFiles(tmp_path / "case.nii.gz", raw / "labelsTr/case.nii.gz", raw / "imagesTr/case_0000.nii.gz")
    with pytest.raises(UserError, match="3 x 4 x 5 voxels and its image 12 x 16 x 18"):
        draw_case(files, LABELS, DATASET_JSON)
