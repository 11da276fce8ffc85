import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_ext.preprocessing.raw.instances import Instance, components, instances_of
from nnunet_ext.preprocessing.simulate.partial_annotation import kept_instances, partial_labels

MAP = np.array(
    [
        [1, 0, 2, 2, 0, 9],
        [0, 1, 0, 0, 0, 9],
        [0, 0, 0, 1, 0, 0],
        [2, 0, 0, 0, 0, 1],
    ],
    dtype=np.uint8,
)


def test_components_are_connected_by_corners_and_never_over_labels():
    found = components(MAP, [1, 2])
    assert found[0, 0] == found[1, 1]
    assert len({found[0, 0], found[0, 2], found[2, 3], found[3, 0], found[3, 5]}) == 5
    assert found[0, 5] == 0
    assert ((found > 0) == np.isin(MAP, [1, 2])).all()


def test_components_in_three_dimensions_are_those_of_scipy():
    labels = (np.random.default_rng(0).random((9, 10, 11)) < 0.1).astype(np.uint8)
    expected, count = ndimage.label(labels, structure=np.ones((3, 3, 3)))
    found = components(labels, [1])
    assert found.max() == count
    pairs = {(a, b) for a, b in zip(found.ravel().tolist(), expected.ravel().tolist())}
    assert len(pairs) == count + 1


def test_instances_have_label_and_size_also_with_numbers_above_255():
    numbers = components(MAP, [1, 2]).astype(np.int32) * 1000
    found = instances_of("a", numbers, MAP)
    assert sorted((one.label, one.voxels) for one in found) == [(1, 1), (1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(one.number % 1000 == 0 for one in found)


def test_an_instance_on_two_labels_is_named():
    with pytest.raises(ValueError, match="instance 7 lies on the labels 1, 2"):
        instances_of("a", np.full((1, 2), 7), np.array([[1, 2]]))


def test_touching_instances_of_one_label_stay_apart_where_a_map_says_so():
    labels, numbers = np.array([[1, 1, 1, 1]]), np.array([[1, 1, 2, 2]])
    assert components(labels, [1]).max() == 1
    assert [one.voxels for one in instances_of("a", numbers, labels)] == [2, 2]
    assert partial_labels(labels, numbers, {2}).tolist() == [[0, 0, 1, 1]]


def made(sizes):
    return [Instance(case, n, 1, voxels) for case, members in sizes.items() for n, voxels in enumerate(members, 1)]


SIZES = {"a": [5, 1, 9, 3, 7, 2, 8, 4, 6, 10], "b": [1, 2], "c": [3]}


def test_the_largest_or_smallest_are_kept_by_hand():
    rng = np.random.default_rng(0)
    largest = kept_instances(made(SIZES), 0.3, rng, order="largest")
    assert {(one.case, one.voxels) for one in largest} == {("a", 10), ("a", 9), ("a", 8), ("b", 2), ("c", 3)}
    smallest = kept_instances(made(SIZES), 0.3, rng, order="smallest", scope="dataset")
    # four of thirteen: the smallest of each case, then the smallest that is left
    assert {(one.case, one.voxels) for one in smallest} == {("a", 1), ("b", 1), ("c", 3), ("a", 2)} or {
        (one.case, one.voxels) for one in smallest
    } == {("a", 1), ("b", 1), ("c", 3), ("b", 2)}


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(1, 50), min_size=1, max_size=9), min_size=1),
    st.floats(0, 1),
    st.sampled_from(["case", "dataset"]),
    st.sampled_from(["random", "largest", "smallest"]),
    st.integers(0, 1000),
)
def test_every_case_keeps_one_and_the_share_holds(sizes, share, scope, order, seed):
    instances = made(sizes)
    kept = kept_instances(instances, share, np.random.default_rng(seed), scope=scope, order=order)
    assert kept <= set(instances)
    assert {one.case for one in kept} == set(sizes)
    if scope == "dataset":
        assert len(kept) == max(len(sizes), round(share * len(instances)))
    else:
        for case, members in sizes.items():
            assert sum(one.case == case for one in kept) == max(1, round(share * len(members)))
    assert kept == kept_instances(instances, share, np.random.default_rng(seed), scope=scope, order=order)


def test_dropped_instances_become_background_and_the_ignore_label_stays():
    numbers = components(MAP, [1, 2])
    kept = {int(numbers[0, 0])}
    result = partial_labels(MAP, numbers, kept)
    expected = np.zeros_like(MAP)
    expected[0, 0] = expected[1, 1] = 1
    expected[0, 5] = expected[1, 5] = 9
    assert (result == expected).all()
    assert result.dtype == MAP.dtype
