"""Which folds of a model have not seen a case, and predictions that are no numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.probabilities import folds_that_have_not_seen, predict_case, predict_probabilities

FILE = Path("splits_final.json")
SPLITS = [{"train": ["b", "c"], "val": ["a"]}, {"train": ["a", "c"], "val": ["b"]}, {"train": ["a"], "val": ["b"]}]


def test_each_case_gets_the_folds_that_did_not_train_on_it_also_one_of_no_fold():
    found = folds_that_have_not_seen(["a", "b", "d"], SPLITS, [0, 1, 2], file=FILE)
    assert found == {"a": [0], "b": [1, 2], "d": [0, 1, 2]}
    assert folds_that_have_not_seen(["b", "c"], SPLITS, [2, 0], file=FILE)["c"] == [2]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ([0, 1], r"folds 0 1 has trained on 1 of 3 cases, e\.g\. on c\. Give the folds"),
        ([0, 3], "has the folds 0 to 2, so that it is not known what fold 3"),
        (["all"], "not known what fold all"),
    ],
)
def test_a_case_that_every_fold_has_seen_and_an_unknown_fold_are_refused(folds, message):
    with pytest.raises(UserError, match=message):
        folds_that_have_not_seen(["a", "b", "c"], SPLITS, folds, file=FILE)


def test_the_given_weights_predict_quietly_and_numbers_that_are_none_are_refused(capsys):
    used = []

    def predict(images, targets, *, save_probabilities):
        print("noise")
        used.append((images, list(predictor.list_of_parameters)))
        return [(None, np.full((2, 1, 1, 1), predictor.list_of_parameters[0], np.float32))]

    predictor = SimpleNamespace(list_of_parameters=[0.0, 0.25, np.nan], predict_from_files_sequential=predict)
    assert predict_probabilities(predictor, [Path("a_0000"), Path("a_0001")], [0.25, 0.0]).max() == 0.25
    assert used == [([["a_0000", "a_0001"]], [0.25, 0.0])]
    assert capsys.readouterr().out == ""
    with pytest.raises(UserError, match="prediction for a_0000 holds values that are no numbers"):
        predict_probabilities(predictor, [Path("a_0000")], [np.nan])


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
