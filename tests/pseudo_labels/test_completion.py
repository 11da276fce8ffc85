"""What is added to a label map, what is left out and what becomes ignore: rows of voxels worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from nnunet_ext.errors import UserError
from nnunet_ext.pseudo_labels.completion import LabelCounts, Rules, completed_labels

IGNORE = 9


def row(values):
    """One row of voxels as a volume."""
    return np.array(values).reshape(1, 1, -1)


def of_labels(*foreground):
    """Probabilities of a row of voxels from those of each label."""
    channels = np.array(foreground, np.float32)
    return np.concatenate([1 - channels.sum(0, keepdims=True), channels]).reshape(1 + len(foreground), 1, 1, -1)


def complete(labels, *foreground, ignore=None, **rules):
    """Completed labels of a row as a list, and the counts of label 1."""
    values = range(1, 1 + len(foreground))
    found, counts = completed_labels(
        row(labels), of_labels(*foreground), foreground=values, ignore=ignore, rules=Rules(**rules)
    )
    return found.ravel().tolist(), counts[1]


def test_predicted_regions_are_added_from_the_threshold_on():
    found, counts = complete([0, 0, 0, 0, 0, 0], [0.5, 0.9, 0.49, 0.1, 0.6, 0.0])
    assert found == [1, 1, 0, 0, 1, 0]
    assert counts == LabelCounts(added_instances=2, added_voxels=3)
    assert complete([0, 0, 0], [0.5, 0.9, 0.7], threshold=0.7)[0] == [0, 1, 1]


def test_foreground_counts_as_a_whole_and_the_likeliest_label_is_added():
    # neither label reaches a half alone, and background is likelier than each
    found, counts = complete([0, 0, 0], [0.3, 0.25, 0.1], [0.25, 0.3, 0.1])
    assert found == [1, 2, 0]
    assert counts.added_instances == 1


def test_the_values_of_the_channels_may_be_large():
    found, counts = completed_labels(
        row([0, 0, 300]), of_labels([0.1, 0.0, 0.9], [0.8, 0.0, 0.0]), foreground=[300, 700], ignore=None, rules=Rules()
    )
    assert found.ravel().tolist() == [700, 0, 300]
    assert counts[700].added_voxels == 1


def test_a_region_that_overlaps_an_annotated_instance_is_not_added_and_one_beside_it_is():
    found, counts = complete([0, 1, 1, 0, 0, 0], [0.9, 0.9, 0.9, 0.9, 0.0, 0.9])
    assert found == [0, 1, 1, 0, 0, 1]
    assert counts == LabelCounts(
        annotated_instances=1,
        annotated_voxels=2,
        found_instances=1,
        added_instances=1,
        added_voxels=1,
        attached_voxels=2,
    )


def test_a_region_that_touches_an_annotated_instance_of_its_label_is_not_added():
    found, counts = complete([0, 1, 0, 0], [0.0, 0.0, 0.9, 0.9])
    assert found == [0, 1, 0, 0]
    assert (counts.found_instances, counts.attached_voxels) == (0, 2)


def test_a_corner_is_touch_enough():
    labels = np.zeros((2, 2, 2), int)
    labels[0, 0, 0] = 1
    probabilities = np.zeros((2, 2, 2, 2), np.float32)
    probabilities[1, 1, 1, 1] = 0.9
    probabilities[0] = 1 - probabilities[1]
    found, _ = completed_labels(labels, probabilities, foreground=[1], ignore=None, rules=Rules())
    assert (found == labels).all()


def test_a_region_may_touch_an_annotated_instance_of_another_label():
    # a shell of label 1 around an annotated core of label 2: components of different labels are different instances
    found, _ = complete([0, 2, 2, 0], [0.9, 0.0, 0.0, 0.9], [0.0, 0.9, 0.9, 0.0])
    assert found == [1, 2, 2, 1]


def test_a_region_that_goes_on_from_an_instance_that_was_annotated_otherwise_is_not_added():
    # the model gives label 1 where the annotator drew label 2: beyond the boundary that is no instance of its own
    found, counts = complete([0, 2, 0], [0.9, 0.9, 0.0], [0.0, 0.0, 0.0])
    assert found == [0, 2, 0]
    assert counts.attached_voxels == 1


def test_annotated_voxels_stay_where_the_model_sees_background_or_another_label():
    assert complete([1, 1, 2], [0.0, 0.1, 0.9], [0.0, 0.9, 0.1])[0] == [1, 1, 2]


def test_ignored_voxels_stay_ignored_and_still_connect():
    # the region reaches the annotated instance through the ignored voxels, so it belongs to it
    found, counts = complete([1, 9, 9, 0, 0, 9, 0], [0.9, 0.9, 0.9, 0.9, 0.0, 0.9, 0.9], ignore=IGNORE)
    assert found == [1, 9, 9, 0, 0, 9, 1]
    assert (counts.added_voxels, counts.attached_voxels, counts.ignored_voxels) == (1, 1, 0)


def test_small_regions_are_left_out():
    found, counts = complete([0] * 6, [0.9, 0.0, 0.9, 0.9, 0.0, 0.9], min_voxels=2)
    assert found == [0, 0, 1, 1, 0, 0]
    assert (counts.added_instances, counts.small_instances) == (1, 2)


def test_uncertain_voxels_become_ignore_and_only_certain_ones_are_added():
    found, counts = complete(
        [0] * 6, [0.29, 0.3, 0.5, 0.69, 0.7, 0.9], ignore=IGNORE, threshold=0.5, uncertain=(0.3, 0.7)
    )
    assert found == [0, 9, 9, 9, 1, 1]
    assert counts == LabelCounts(added_instances=1, added_voxels=2, ignored_voxels=3)


def test_what_is_left_out_becomes_ignore_with_uncertain():
    # annotated, thickened by one voxel; then a region that is too small
    found, counts = complete(
        [1, 0, 0, 0, 0], [0.9, 0.9, 0.0, 0.9, 0.0], ignore=IGNORE, uncertain=(0.3, 0.7), min_voxels=2
    )
    assert found == [1, 9, 0, 9, 0]
    assert (counts.ignored_voxels, counts.small_instances, counts.attached_voxels) == (2, 1, 1)


def test_the_region_is_that_of_the_threshold_also_where_only_its_certain_part_is_added():
    # the certain voxels hang together with the annotated instance by doubtful ones
    found, _ = complete([1, 0, 0], [0.9, 0.5, 0.9], ignore=IGNORE, uncertain=(0.3, 0.7))
    assert found == [1, 9, 9]


def test_the_size_is_that_of_what_would_be_added():
    found, counts = complete([0] * 4, [0.6, 0.6, 0.9, 0.6], ignore=IGNORE, uncertain=(0.3, 0.7), min_voxels=2)
    assert found == [9, 9, 9, 9]
    assert counts.small_instances == 1


def test_two_dimensional_images_and_a_case_without_annotation():
    probabilities = np.zeros((2, 1, 4, 4), np.float16)
    probabilities[1, 0, :2, :2] = 0.75
    probabilities[0] = 1 - probabilities[1]
    found, counts = completed_labels(
        np.zeros((1, 4, 4), np.uint8), probabilities, foreground=[1], ignore=None, rules=Rules()
    )
    assert found.sum() == 4
    assert counts[1] == LabelCounts(added_instances=1, added_voxels=4)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"threshold": 0.0}, "threshold is 0.0. It must be a probability between 0 and 1"),
        ({"threshold": 1.0}, "threshold is 1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"uncertain": (0.0, 0.7)}, r"range is 0.0 to 0.7 with the threshold 0.5. Expected: 0 < LOW"),
        ({"uncertain": (0.3, 1.0)}, "HIGH < 1"),
        ({"uncertain": (0.6, 0.7)}, "LOW <= threshold"),
        ({"uncertain": (0.3, 0.4)}, "threshold <= HIGH"),
        ({"uncertain": (0.5, 0.5)}, "LOW < HIGH"),
        ({"min_voxels": 0}, "at least 1"),
    ],
)
def test_rules_out_of_range_are_refused(rules, message):
    with pytest.raises(UserError, match=message):
        Rules(**rules)


def test_arrays_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shape"):
        completed_labels(row([0, 0]), of_labels([0.1]), foreground=[1], ignore=None, rules=Rules())
    with pytest.raises(ValueError, match="ignore"):
        completed_labels(row([0]), of_labels([0.1]), foreground=[1], ignore=None, rules=Rules(uncertain=(0.2, 0.8)))


def count_components(labels):
    """Connected components of each label, by scipy."""
    return sum(ndimage.label(labels == value, structure=np.ones((3, 3, 3)))[1] for value in (1, 2))


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 0.5, 0.8]),
    st.sampled_from([None, (0.2, 0.9), (0.3, 0.8)]),
    st.integers(1, 5),
)
def test_annotation_never_changes_and_instances_are_only_added(seed, threshold, uncertain, min_voxels):
    rng = np.random.default_rng(seed)
    labels = rng.choice([0, 0, 0, 0, 0, 0, 0, 0, 1, 2, IGNORE], (4, 5, 6))
    probabilities = rng.dirichlet([2.0, 0.4, 0.4], labels.shape).astype(np.float32).transpose(3, 0, 1, 2)
    before = labels.copy()
    uncertain = uncertain if uncertain and uncertain[0] <= threshold <= uncertain[1] else None
    rules = Rules(threshold, uncertain, min_voxels)
    found, counts = completed_labels(labels, probabilities, foreground=[1, 2], ignore=IGNORE, rules=rules)

    assert (labels == before).all()
    assert (found[before > 0] == before[before > 0]).all()
    assert set(np.unique(found)) <= {0, 1, 2, IGNORE}
    total = pd.DataFrame(counts.values()).sum()
    new = (found != before) & (found != IGNORE)
    assert (found[new] == 1 + probabilities[1:].argmax(0)[new]).all()
    assert (1 - probabilities[0][new] >= np.float32(uncertain[1] if uncertain else threshold)).all()
    assert total.added_voxels == new.sum()
    assert total.ignored_voxels == ((found == IGNORE) & (before != IGNORE)).sum()
    assert total.annotated_instances == count_components(before)
    # nothing is merged with what was annotated
    assert total.added_instances == count_components(found) - count_components(before)
    if uncertain is None:
        assert total.ignored_voxels == 0
    else:
        assert (found[1 - probabilities[0] >= np.float32(uncertain[0])] != 0).all()
