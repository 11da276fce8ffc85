"""Which cases are shown, and that their pictures stay small."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from nnunet_ext.errors import UserError
from nnunet_ext.report.cases import CaseFiles, Label
from nnunet_ext.report.overlays import DPI, HEIGHT, WIDTH, best_slice, choose_cases, data_url, draw_case, draw_overlay
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


def test_prediction_of_another_size_is_said(tmp_path):
    raw = write_raw(tmp_path, ["case"])
    write_volume(tmp_path / "case.nii.gz", np.zeros((3, 4, 5), dtype=np.uint8))
    files = CaseFiles(tmp_path / "case.nii.gz", raw / "labelsTr/case.nii.gz", raw / "imagesTr/case_0000.nii.gz")
    with pytest.raises(UserError, match="3 x 4 x 5 voxels and its image 12 x 16 x 18"):
        draw_case(files, LABELS, DATASET_JSON)
