"""nnU-Net's postprocessing is taken over from its text; its pickle is never read."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nnunetv2.postprocessing.remove_connected_components import (
    apply_postprocessing,
    remove_all_but_largest_component_from_segmentation,
)

from nnunet_ext.checkpoints.postprocessing import copy_postprocessing
from nnunet_ext.errors import UserError

NAME = "remove_all_but_largest_component_from_segmentation"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def write(source: Path, names: list[str], kwargs: list[Any]) -> None:
    text = {"input_folder": {}, "postprocessing_fns": names, "postprocessing_kwargs": kwargs}
    (source / "postprocessing.json").write_text(json.dumps(text))


@pytest.mark.parametrize("labels", [2, [1, 2], (1, 2), [(1, 2), 2], [(1, 2), (2,)]])
def test_the_new_pickle_does_what_nnunets_did(folders, labels):
    source, target = folders
    write(source, [NAME], [{"labels_or_regions": labels}])  # json makes lists of tuples, as in nnU-Net's file
    copy_postprocessing(source, target)
    functions, kwargs = pickle.loads((target / "postprocessing.pkl").read_bytes())
    assert functions == [remove_all_but_largest_component_from_segmentation]

    segmentation = np.random.default_rng(3).choice(3, (12, 12, 12), p=[0.9, 0.05, 0.05]).astype(np.uint8)
    expected = remove_all_but_largest_component_from_segmentation(segmentation, labels)
    assert not np.array_equal(expected, segmentation)
    np.testing.assert_array_equal(apply_postprocessing(segmentation, functions, kwargs), expected)
    assert json.loads((target / "postprocessing.json").read_text())["postprocessing_fns"] == [NAME]


def test_no_postprocessing_stays_none(folders):
    source, target = folders
    write(source, [], [])
    copy_postprocessing(source, target)
    assert pickle.loads((target / "postprocessing.pkl").read_bytes()) == ([], [])


class Bomb:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_the_sources_pickle_is_neither_run_nor_copied(folders, tmp_path):
    source, target = folders
    write(source, [NAME], [{"labels_or_regions": 1}])
    (source / "postprocessing.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    copy_postprocessing(source, target)
    assert pickle.loads((target / "postprocessing.pkl").read_bytes())[1] == [{"labels_or_regions": 1}]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("names", "kwargs"),
    [
        (["system"], [{"labels_or_regions": 1}]),
        ([NAME], [{"command": "rm"}]),
        ([NAME], []),
        ([NAME], [{"labels_or_regions": "all"}]),
        ("remove", 1),
    ],
)
def test_what_nnunet_does_not_write_is_refused(folders, names, kwargs):
    source, target = folders
    write(source, names, kwargs)
    with pytest.raises(UserError, match="is not as nnU-Net writes it"):
        copy_postprocessing(source, target)
    assert not list(target.iterdir())
