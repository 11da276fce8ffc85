"""Real scribbles beside simulated ones: both are counted against the same dense masks."""

import numpy as np
import pytest

from benchmarks.scribble_statistics import main
from support.raw_datasets import write_array, write_raw


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    dense = np.zeros((3, 12, 12), np.uint8)
    dense[:, 3:9, 3:9] = 1
    scribbles = np.full_like(dense, 2)
    scribbles[:, 5, 4:8] = 1
    scribbles[:, 0, :6] = 0
    names = {"background": 0, "organ": 1, "ignore": 2}
    folder = write_raw(tmp_path / "Dataset801_Strokes", {"one": scribbles}, names=names)
    write_array(dense, folder / "labelsTr_dense" / "one.nii.gz")
    return folder


def test_both_are_shown(dataset, capsys):
    assert main([dataset.name]) == 0
    real, simulated = capsys.readouterr().out.split("Simulated:")
    assert "organ           1       3   3      12" in real
    assert "100.00 %" in simulated
    assert "organ           1       3   3" in simulated


def test_dataset_without_dense_masks_is_refused(dataset, capsys):
    (dataset / "labelsTr_dense").rename(dataset / "elsewhere")
    assert main([dataset.name]) == 2
    assert "labelsTr_dense" in capsys.readouterr().err
