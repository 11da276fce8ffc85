"""Which voxels models label, against a derivation voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.pseudo_labels.agreement import agreed_labels

NAMES = {1: "liver", 2: "tumour"}
IGNORE = 3


def probabilities(rng, models):
    raw = rng.random((models, 3, 2, 3, 4)) ** 4
    return [one / one.sum(0) for one in raw]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.sampled_from([0.4, 0.6, 0.9]))
def test_voxel_by_voxel(seed, models, threshold):
    rng = np.random.default_rng(seed)
    given_probabilities = probabilities(rng, models)
    labels = rng.integers(0, 4, (2, 3, 4)).astype(np.uint8)
    found, agreement = agreed_labels(
        given_probabilities, labels, is_open=labels == IGNORE, names=NAMES, threshold=threshold, ignore=IGNORE
    )
    expected, suspected, foreground = labels.copy(), 0, 0
    for voxel in np.ndindex(labels.shape):
        if labels[voxel] != IGNORE:
            continue
        each = [one[(slice(None), *voxel)] for one in given_probabilities]
        votes, mean = {int(one.argmax()) for one in each}, sum(each) / models
        (vote,) = votes if len(votes) == 1 else (None,)
        if vote is not None and mean[vote] >= threshold:
            expected[voxel] = vote
            foreground += vote > 0
        suspected += votes != {0}
    assert (found == expected).all()
    assert found.dtype == np.uint8
    assert agreement.open_voxels == (labels == IGNORE).sum()
    assert agreement.labelled_voxels == ((labels == IGNORE) & (expected != IGNORE)).sum()
    assert agreement.foreground_share == (pytest.approx(foreground / suspected) if suspected else None)
    assert sum(agreement.voxels.values()) == foreground


def test_nobody_is_asked_about_what_is_annotated():
    labels = np.array([[[0, 1, 2, 3]]])
    sure = np.zeros((3, 1, 1, 4))
    sure[2] = 1
    is_open = labels == IGNORE
    found, agreement = agreed_labels([sure], labels, is_open=is_open, names=NAMES, threshold=0.8, ignore=IGNORE)
    assert found.tolist() == [[[0, 1, 2, 2]]]
    assert agreement.voxels == {"liver": 0, "tumour": 1}


def test_models_that_disagree_leave_a_voxel_open_however_sure_they_are():
    labels = np.full((1, 1, 1), IGNORE)
    one, other = np.zeros((2, 3, 1, 1, 1))
    one[1], other[2] = 1, 1
    found, agreement = agreed_labels(
        [one, other], labels, is_open=labels == IGNORE, names=NAMES, threshold=0.1, ignore=IGNORE
    )
    assert found.item() == IGNORE
    assert agreement.foreground_share == 0
