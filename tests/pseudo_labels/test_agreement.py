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
        map(np.copy, given_probabilities),
        labels,
        is_open=labels == IGNORE,
        names=NAMES,
        threshold=threshold,
        ignore=IGNORE,
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


def islands_removed(row, labels=OPEN, *, one_piece="foreground"):
    return without_islands(row.copy(), labels, is_open=labels == IGNORE, one_piece=one_piece, names=NAMES)


def test_island_of_the_foreground_is_background():
    row = in_a_row(LIVER, TUMOUR, TUMOUR, BACKGROUND, TUMOUR, LIVER, BACKGROUND)
    expected = in_a_row(LIVER, TUMOUR, TUMOUR, BACKGROUND, (1, 0, 0), (1, 0, 0), BACKGROUND)
    assert islands_removed(row).tolist() == expected.tolist()


def test_island_of_a_label_stays_open_in_the_body_of_another_one_and_is_background_elsewhere():
    row = in_a_row(TUMOUR, TUMOUR, LIVER, LIVER, TUMOUR, BACKGROUND, LIVER)
    expected = in_a_row(TUMOUR, TUMOUR, LIVER, LIVER, (0, 0, 0), BACKGROUND, (1, 0, 0))
    assert islands_removed(row, one_piece="labels").tolist() == expected.tolist()


def test_model_that_says_nothing_leaves_a_voxel_open():
    labels = np.full((1, 1, 1), IGNORE)
    nothing, background = np.zeros((2, 3, 1, 1, 1))
    background[0] = 1
    rules = {"is_open": labels == IGNORE, "names": NAMES, "threshold": 0.4, "ignore": IGNORE}
    found, agreement = agreed_labels([nothing, background], labels, **rules)
    assert found.item() == IGNORE
    assert agreement.foreground_share == 0  # one of them has seen something there


@pytest.mark.parametrize("one_piece", ["foreground", "labels"])
def test_body_is_what_somebody_annotated_in_part(one_piece):
    row = in_a_row(LIVER, LIVER, LIVER, BACKGROUND, LIVER, TUMOUR, BACKGROUND)
    labels = OPEN.copy()
    labels[0, 0, 4] = 1
    expected = in_a_row((1, 0, 0), (1, 0, 0), (1, 0, 0), BACKGROUND, LIVER, TUMOUR, BACKGROUND)
    assert islands_removed(row, labels, one_piece=one_piece).tolist() == expected.tolist()


def test_annotation_of_every_part_of_a_body_keeps_them():
    row = in_a_row(LIVER, LIVER, BACKGROUND, LIVER, BACKGROUND, LIVER, BACKGROUND)
    labels = OPEN.copy()
    labels[0, 0, [1, 3]] = 1
    assert islands_removed(row, labels)[1, 0, 0].tolist() == [0.9, 0.9, 0.1, 0.9, 0.1, 0, 0.1]


def test_annotation_joins_what_the_model_cuts():
    row = in_a_row(LIVER, LIVER, BACKGROUND, LIVER, BACKGROUND, BACKGROUND, BACKGROUND)
    labels = OPEN.copy()
    labels[0, 0, 2] = 1
    assert (islands_removed(row, labels, one_piece="labels") == row).all()


def test_annotated_background_neither_joins_nor_counts():
    row = in_a_row(LIVER, LIVER, LIVER, LIVER, LIVER, BACKGROUND, LIVER)
    labels = OPEN.copy()
    labels[0, 0, 3] = 0
    # of three voxels, one and one
    expected = in_a_row(LIVER, LIVER, LIVER, LIVER, (1, 0, 0), BACKGROUND, (1, 0, 0))
    assert islands_removed(row, labels).tolist() == expected.tolist()
    labels[0, 0, :5] = 0  # somebody saw that it is none, however large
    assert islands_removed(row, labels)[:, 0, 0, 6].tolist() == list(LIVER)


def test_labels_of_a_case_without_labels_are_placeholders():
    row = in_a_row(LIVER, LIVER, BACKGROUND, LIVER, BACKGROUND, BACKGROUND, BACKGROUND)
    placeholders = np.ones((1, 1, 7), int)
    found = without_islands(row, placeholders, is_open=placeholders > 0, one_piece="foreground", names=NAMES)
    assert found[0, 0, 0].tolist() == [0.1, 0.1, 0.9, 1, 0.9, 0.9, 0.9]


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
    found = islands_removed(raw, nobody).argmax(axis=0)
    assert ((found > 0) == largest(raw.argmax(axis=0) > 0)).all()
    each = islands_removed(raw, nobody, one_piece="labels").argmax(axis=0)
    for value in NAMES:
        assert ((each == value) == largest(raw.argmax(axis=0) == value)).all()


@pytest.mark.parametrize("one_piece", ["foreground", "labels"])
def test_case_without_foreground_has_no_island(one_piece):
    row = in_a_row(*[BACKGROUND] * 7)
    assert (islands_removed(row, one_piece=one_piece) == row).all()
