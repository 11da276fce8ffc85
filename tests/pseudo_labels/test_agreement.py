"""Which voxels models label, against a derivation voxel by voxel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_ext.pseudo_labels.agreement import agreed_labels, given_annotation, open_voxels, without_islands

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


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(), (1,), (2,), (1, 2)]), st.sampled_from([None, IGNORE]))
def test_voxels_of_a_case_in_which_labels_are_missing_one_by_one(seed, missing, ignore):
    rng = np.random.default_rng(seed)
    (raw,) = probabilities(rng, 1)
    labels = rng.choice([0, *{1, 2, ignore or 0} - set(missing)], (2, 3, 4))
    is_open = open_voxels(labels, ignore=ignore, missing=missing)
    found = given_annotation(raw, labels, missing=missing)
    for voxel in np.ndindex(labels.shape):
        here, expected = labels[voxel], raw[(slice(None), *voxel)]
        assert is_open[voxel] == (here == ignore or (here == 0 and len(missing) > 0))
        if here == 0 and missing:  # P(k | k can be here) = P(k) / P(one that can be here)
            can_be = {0, *missing}
            expected = [p / sum(expected[k] for k in can_be) if k in can_be else 0 for k, p in enumerate(expected)]
        assert found[(slice(None), *voxel)] == pytest.approx(expected)


def test_voxel_that_a_model_takes_for_a_label_that_was_looked_for_and_not_found():
    labels = np.zeros((1, 1, 2), int)
    raw = np.array([[0.0, 0.02], [1.0, 0.9], [0.0, 0.08]]).reshape(3, 1, 1, 2)  # liver, by the model
    found = given_annotation(raw, labels, missing=[2])
    assert found[:, 0, 0].T.tolist() == [[0, 0, 0], pytest.approx([0.2, 0, 0.8])]
    new, agreement = agreed_labels(
        [found],
        labels,
        is_open=open_voxels(labels, ignore=None, missing=[2]),
        names=NAMES,
        threshold=0.7,
        ignore=IGNORE,
    )
    assert new.tolist() == [[[IGNORE, 2]]]
    assert agreement.voxels == {"liver": 0, "tumour": 1}


def in_a_row(*voxels):
    """Probabilities of a row of voxels, (3, 1, 1, N), by what each voxel gives the background, liver and tumour."""
    return np.array(voxels, float).T[:, None, None]


BACKGROUND, LIVER, TUMOUR = (0.9, 0.1, 0.0), (0.1, 0.9, 0.0), (0.0, 0.1, 0.9)
OPEN = np.full((1, 1, 7), IGNORE)


def test_island_of_the_foreground_is_background():
    row = in_a_row(LIVER, TUMOUR, TUMOUR, BACKGROUND, TUMOUR, LIVER, BACKGROUND)
    found = without_islands(row.copy(), OPEN, one_piece="foreground", names=NAMES)
    expected = in_a_row(LIVER, TUMOUR, TUMOUR, BACKGROUND, (1, 0, 0), (1, 0, 0), BACKGROUND)
    assert found.tolist() == expected.tolist()


def test_island_of_a_label_is_open_where_another_label_is_next():
    row = in_a_row(TUMOUR, TUMOUR, LIVER, LIVER, TUMOUR, BACKGROUND, LIVER)
    found = without_islands(row.copy(), OPEN, one_piece="labels", names=NAMES)
    # what is likeliest after the tumour is the liver, and after the liver the background
    expected = in_a_row(TUMOUR, TUMOUR, LIVER, LIVER, (0, 0, 0), BACKGROUND, (1, 0, 0))
    assert found.ravel() == pytest.approx(expected.ravel())


def test_island_that_somebody_annotated_in_part_stays():
    row = in_a_row(LIVER, LIVER, LIVER, BACKGROUND, LIVER, TUMOUR, BACKGROUND)
    labels = OPEN.copy()
    labels[0, 0, 5] = 2
    assert (without_islands(row.copy(), labels, one_piece="foreground", names=NAMES) == row).all()
    alone = without_islands(row.copy(), labels, one_piece="labels", names=NAMES)
    assert alone[:, 0, 0, 4] == pytest.approx([1, 0, 0]), "the liver beside the annotated tumour"
    assert (alone[..., 5] == row[..., 5]).all()


def test_annotation_joins_what_the_model_cuts():
    row = in_a_row(LIVER, LIVER, BACKGROUND, LIVER, BACKGROUND, BACKGROUND, BACKGROUND)
    labels = OPEN.copy()
    labels[0, 0, 2] = 1
    assert (without_islands(row.copy(), labels, one_piece="labels", names=NAMES) == row).all()


def largest(mask):
    """Its largest components: of equal ones, all."""
    numbers, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(numbers.ravel())
    return mask & (sizes[numbers] == max(sizes[1:], default=0))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_one_piece_is_left_of_random_predictions(seed):
    (raw,) = probabilities(np.random.default_rng(seed), 1)
    nobody = np.full(raw.shape[1:], IGNORE)
    found = without_islands(raw.copy(), nobody, one_piece="foreground", names=NAMES).argmax(axis=0)
    assert ((found > 0) == largest(raw.argmax(axis=0) > 0)).all()
    each = without_islands(raw.copy(), nobody, one_piece="labels", names=NAMES).argmax(axis=0)
    for value in NAMES:
        assert ((each == value) == largest(raw.argmax(axis=0) == value)).all()


def test_case_without_foreground_has_no_island():
    row = in_a_row(*[BACKGROUND] * 7)
    for one_piece in ("foreground", "labels"):
        assert (without_islands(row.copy(), OPEN, one_piece=one_piece, names=NAMES) == row).all()
