"""What is left of label maps is what nnU-Net's postprocessing leaves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_ext.evaluation.largest_component import largest_component, pieces

REGIONS = [(1, 2, 3), (2, 3), (3,)]  # the whole, its core and what is in that


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([(5, 6, 7), (1, 9, 9), (4, 1, 1)]),
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    st.sampled_from(["foreground", "labels"]),
    st.sampled_from([[(1,), (2,), (3,)], REGIONS]),
)
def test_it_is_what_nnunet_leaves(seed, shape, background, one_piece, keys):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(shape) < background, 0, rng.integers(1, 4, shape)).astype(np.uint8)
    before, expected = labels.copy(), labels
    kept = pieces(one_piece, keys)
    for piece in kept:
        expected = remove_all_but_largest_component_from_segmentation(expected, piece)
    found = largest_component(labels, kept)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == labels.dtype
    np.testing.assert_array_equal(labels, before)


def test_the_foreground_is_one_piece_of_all_values():
    assert pieces("foreground", REGIONS) == [[1, 2, 3]]
    assert pieces("labels", REGIONS) == [[(1, 2, 3)], [(2, 3)], [(3,)]]


@pytest.mark.parametrize("one_piece", ["foreground", "labels"])
def test_a_model_without_labels_in_a_case_leaves_it_empty(one_piece):
    empty = np.zeros((2, 3, 4), np.uint8)
    assert not largest_component(empty, pieces(one_piece, REGIONS)).any()
