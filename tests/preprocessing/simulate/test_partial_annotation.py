from pathlib import Path

import numpy as np
import pytest

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.instances import Instance, instances_of
from nnunet_ext.preprocessing.raw.raw_dataset import check_values
from nnunet_ext.preprocessing.simulate.partial_annotation import kept_by_case, storable

FILE = Path("a.nii.gz")


def test_numbers_that_fit_stay_and_larger_ones_are_renumbered_in_order():
    fits = np.array([[0, 7, 65535]])
    assert storable(fits, file=FILE) is fits
    assert storable(np.array([[9, 0, 70000, 9]]), file=FILE).tolist() == [[1, 0, 2, 1]]
    assert storable(np.array([[70000, 9]]), file=FILE).tolist() == [[2, 1]]


def test_most_instances_that_a_file_holds_by_one():
    assert storable(np.arange(2, 65537), file=FILE).max() == 65535
    with pytest.raises(UserError, match="65536 instances"):
        storable(np.arange(2, 65538), file=FILE)


def test_unknown_values_are_named_with_the_file():
    check_values(np.array([0, 1, 3]), {0, 1, 3}, file=FILE)
    with pytest.raises(UserError, match="a.nii.gz has the value 3, but the labels are 0, 1"):
        check_values(np.array([0, 1, 3]), {0, 1}, file=FILE)


def test_record_has_every_case_and_the_numbers_kept():
    instances = [Instance("a", 5, 1, 4), Instance("a", 2, 1, 6), Instance("a", 9, 2, 1), Instance("b", 1, 1, 3)]
    assert kept_by_case(["a", "b", "c"], instances, {instances[0], instances[1], instances[3]}) == {
        "a": {"instances": 3, "kept_instances": 2, "voxels": 11, "kept_voxels": 10, "kept": [2, 5]},
        "b": {"instances": 1, "kept_instances": 1, "voxels": 3, "kept_voxels": 3, "kept": [1]},
        "c": {"instances": 0, "kept_instances": 0, "voxels": 0, "kept_voxels": 0, "kept": []},
    }


def test_instances_are_counted_with_any_numbers_and_labels():
    labels = np.array([[300, 300, 0, 2], [300, 0, 0, 2]])
    numbers = np.array([[9, 9, 0, 65535], [9, 0, 0, 4]])
    assert instances_of("a", numbers, labels) == [
        Instance("a", 4, 2, 1),
        Instance("a", 9, 300, 3),
        Instance("a", 65535, 2, 1),
    ]
    with pytest.raises(ValueError, match="instance 9 lies on the labels 0, 300"):
        instances_of("a", np.array([[9, 9, 9]]), np.array([[300, 0, 300]]))
