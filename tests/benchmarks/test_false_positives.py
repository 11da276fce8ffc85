"""Where false foreground lies, on a case that is counted by hand."""

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks.false_positives import border_distance, false_positives, main


def case():
    reference = np.zeros((1, 60, 60), np.uint8)
    reference[0, 28:32, 28:32] = 1  # 16 voxels
    predicted = np.zeros_like(reference)
    predicted[0, 28:32, 28:36] = 1  # 16 false ones beside it
    predicted[0, 0:2, 0:4] = 2  # 8 far away at the edge
    predicted[0, 28:32, 55] = 0
    predicted[0, 29, 52:54] = 1  # 2 voxels 21 mm away, 6 and 7 from the edge
    return predicted, reference


def test_false_foreground_by_hand():
    assert false_positives(*case(), (10.0, 1.0, 1.0)) == pytest.approx((26 / 16, 10 / 16, 10 / 16))


def test_distance_to_the_edge_is_in_mm():
    np.testing.assert_array_equal(border_distance((3, 4), (2.0, 3.0)), [[0, 0, 0, 0], [0, 2, 2, 0], [0, 0, 0, 0]])


def test_table_and_missing_reference(tmp_path, capsys):
    predicted, reference = case()
    for folder, array in (("predictions", predicted), ("references", reference)):
        (tmp_path / folder).mkdir()
        sitk.WriteImage(sitk.GetImageFromArray(array), tmp_path / folder / "a.nii.gz")
    assert main([str(tmp_path / "references"), f"one={tmp_path / 'predictions'}"]) == 0
    assert "one |            1.625 |" in capsys.readouterr().out
    (tmp_path / "references" / "a.nii.gz").unlink()
    assert main([str(tmp_path / "references"), f"one={tmp_path / 'predictions'}"]) == 2
    assert "a.nii.gz has no reference" in capsys.readouterr().err
