"""Predictions by given weights, and those that are no numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.probabilities import Predictor, predict_case, predict_probabilities


def test_the_given_weights_predict_quietly(tmp_path, capsys):
    used = []

    def predict(images, targets, *, save_probabilities):
        print("noise")
        used.append((images, list(predictor.list_of_parameters)))
        return [(None, np.full((2, 1, 1, 1), predictor.list_of_parameters[0], np.float32))]

    predictor = SimpleNamespace(list_of_parameters=[0.0, 0.25], predict_from_files_sequential=predict)
    images = [tmp_path / "a_0000", tmp_path / "a_0001"]
    for image in images:
        image.touch()
    assert predict_probabilities(predictor, images, [0.25, 0.0]).max() == 0.25
    assert used == [([list(map(str, images))], [0.25, 0.0])]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_has_diverged_is_refused_in_place_of_a_prediction_of_background(monkeypatch, value):
    logits = torch.zeros(2, 1, 4, 4)
    logits[1, 0, 2, 2] = value
    predictor = Predictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.list_of_parameters, predictor.network = [{}], torch.nn.Identity()
    monkeypatch.setattr(predictor, "predict_sliding_window_return_logits", lambda data: logits)
    with pytest.raises(UserError, match="no numbers .* Its training has probably diverged"):
        predictor.predict_logits_from_preprocessed_data(torch.zeros(1, 1, 4, 4))


def test_an_image_that_was_cut_off_is_never_predicted(tmp_path):
    """SimpleITK fills what is missing with zeros and says nothing."""
    image = tmp_path / "case_0000.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).random((4, 9, 9))), image)
    image.write_bytes(image.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"case_0000\.nii\.gz is damaged"):
        predict_case(SimpleNamespace(), [image])


def test_an_image_with_values_that_are_no_numbers_is_named_and_not_the_model(tmp_path):
    """In place of a prediction of background, in every command that predicts."""

    def predict(images, targets, *, save_probabilities):
        predictor.predict_logits_from_preprocessed_data(torch.from_numpy(sitk.GetArrayFromImage(whole))[None])

    predictor = Predictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.predict_from_files_sequential = predict
    predictor.plans_manager = SimpleNamespace(image_reader_writer_class=SimpleITKIO, transpose_forward=[0, 1, 2])
    predictor.configuration_manager = SimpleNamespace(spacing=[1.0] * 3, normalization_schemes=["ZScoreNormalization"])
    image, values = tmp_path / "case_0000.mha", np.ones((4, 4, 4), np.float32)
    values[1, 2, 3] = np.nan
    whole = sitk.GetImageFromArray(values)
    sitk.WriteImage(whole, image)
    with pytest.raises(UserError, match=r"case_0000\.mha: some voxels are not finite"):
        predict_case(predictor, [image])


def test_an_image_that_nnunet_cannot_read_is_named_and_other_errors_stay(tmp_path):
    def predict(images, targets, *, save_probabilities):
        raise RuntimeError("of nnU-Net")

    manager = SimpleNamespace(image_reader_writer_class=SimpleITKIO, transpose_forward=[1, 0, 2])
    configuration = SimpleNamespace(spacing=[1.0, 1.0], normalization_schemes=["ZScoreNormalization"])  # of slices
    predictor = SimpleNamespace(
        predict_from_files_sequential=predict, plans_manager=manager, configuration_manager=configuration
    )
    image = tmp_path / "case_0000.mha"
    image.write_bytes(b"noise")
    with pytest.raises(UserError, match=r"case_0000\.mha cannot be read"):
        predict_case(predictor, [image])
    sitk.WriteImage(sitk.Image([4, 4, 4], sitk.sitkUInt8), str(image))
    with pytest.raises(RuntimeError, match="of nnU-Net"):
        predict_case(predictor, [image])
    with pytest.raises(UserError, match=r"case_0000\.mha, .*case_0001\.mha: found 2 channels, and the model takes 1"):
        predict_case(predictor, [image, Path(shutil.copy(image, tmp_path / "case_0001.mha"))])
    small = sitk.Image([4, 4, 4], sitk.sitkUInt8)
    small.SetSpacing((0.1, 0.001, 0.001))
    sitk.WriteImage(small, str(image))
    with pytest.raises(UserError, match=r"case_0000\.mha has 4 × 4 × 4 voxels of .* At the model's 0\.001 × 1 × 1 mm"):
        predict_case(predictor, [image])
