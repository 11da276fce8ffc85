"""Counts at each threshold are those of the masks that the probabilities give, and files are whole."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_ext.evaluation.lesions import DetectionCounts, count_lesions
from nnunet_ext.evaluation.operating_points import (
    DEFAULT_THRESHOLDS,
    best_point,
    count_operating_points,
    known_thresholds,
    operating_points,
    reached_thresholds,
    read_thresholds,
    thresholds_file,
    write_thresholds,
)
from support.labels_in_cases import label_of_masks

THRESHOLDS = (0.1, 0.3, 0.5, 0.9)
CHANNELS = {"shell": 1, "core ü": 2}


def softmax(seed: int, *, classes: int = 3, shape: tuple[int, ...] = (4, 9, 11)) -> np.ndarray:
    """Probabilities (C, Z, Y, X) that lie close together where voxels do."""
    logits = np.random.default_rng(seed).normal(0, 3, (classes, *shape)).astype(np.float32)
    logits += np.roll(logits, 1, axis=-1) + np.roll(logits, 1, axis=-2)
    exponentials = np.exp(logits - logits.max(axis=0))
    return exponentials / exponentials.sum(axis=0)


def case(seed: int, *, share: float = 0.3):
    """Probabilities, a reference and ignored voxels."""
    rng = np.random.default_rng(seed + 100)
    probabilities = softmax(seed)
    shape = probabilities.shape[1:]
    reference, ignored = rng.random(shape) < share, rng.random(shape) < 0.2
    return probabilities, reference & ~ignored, ignored


def points_of(reference, reached, name, *, thresholds, overlap, **more):
    """The operating points of a label, in voxels and in lesions; nnU-Net's own decision is that nothing is there."""
    label = label_of_masks(reference, np.zeros_like(reference), overlap_share=overlap, cropped=False, **more)
    points = count_operating_points(label, reached.steps[name], reached.thresholds, thresholds=thresholds, lesions=True)
    assert [(level, counts) for level, threshold, counts in points if math.isnan(threshold)] == [
        ("voxel", label.voxels),
        ("lesion", label.lesions),
    ]
    return [point for point in points if not math.isnan(point[1])]


def curve_of(points, level):
    """What is found at each threshold."""
    return {threshold: counts for of_level, threshold, counts in points if of_level == level}


@pytest.mark.parametrize("with_ignored", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3])
def test_counts_are_those_of_the_masks(share, with_ignored):
    probabilities, reference, ignored = case(1, share=share)
    ignored = ignored if with_ignored else np.zeros_like(ignored)
    reached = reached_thresholds(probabilities, CHANNELS, THRESHOLDS)
    for label, channel in CHANNELS.items():
        points = points_of(
            reference, reached, label, thresholds=THRESHOLDS, ignored=ignored if with_ignored else None, overlap=0.5
        )
        assert [point[:2] for point in points] == [*itertools.product(["voxel", "lesion"], THRESHOLDS)]
        for threshold in THRESHOLDS:
            mask = probabilities[channel] >= np.float32(threshold)
            both = np.sum(mask & reference & ~ignored)
            expected = DetectionCounts(np.sum(reference & ~ignored), both, np.sum(mask & ~ignored), both)
            assert curve_of(points, "voxel")[threshold] == expected
            lesions = count_lesions(reference, mask, ignored=ignored, overlap=0.5)
            assert curve_of(points, "lesion")[threshold] == lesions


@settings(max_examples=30)
@given(seed=st.integers(0, 200))
def test_recall_never_rises_with_the_threshold(seed):
    probabilities, reference, ignored = case(seed)
    points = points_of(
        reference,
        reached_thresholds(probabilities, {"core": 2}, DEFAULT_THRESHOLDS),
        "core",
        thresholds=DEFAULT_THRESHOLDS,
        ignored=ignored,
        overlap=0.1,
    )
    for _, curve in operating_points(points).groupby("level"):
        assert list(curve["recall"]) == sorted(curve["recall"], reverse=True)


def test_half_is_the_decision_for_the_most_probable_of_two_classes_except_in_ties():
    probabilities = softmax(5, classes=2)
    probabilities[:, 0, 0] = 0.5  # a tie is background to argmax
    reached = reached_thresholds(probabilities, {"lesion": 1}, [0.5])
    differs = (reached.steps["lesion"] == 1) != (probabilities.argmax(axis=0) == 1)
    assert differs[0, 0].all()
    assert np.count_nonzero(differs) == differs[0, 0].size


def test_instances_of_a_map_are_told_apart():
    reference = np.array([[[1, 1, 1, 1, 0, 0]]], bool)
    probabilities = np.array([[[[0.2, 0.2, 0.8, 0.8, 0.0, 0.3]]]], np.float32)
    points = points_of(
        reference,
        reached_thresholds(probabilities, {"lesion": 0}, THRESHOLDS),
        "lesion",
        thresholds=[0.1, 0.5],
        overlap=0.1,
        instances=np.array([[[1, 1, 2, 2, 0, 0]]]),
    )
    assert curve_of(points, "lesion") == {0.1: DetectionCounts(2, 2, 2, 1), 0.5: DetectionCounts(2, 1, 1, 1)}
    assert curve_of(points, "voxel") == {0.1: DetectionCounts(4, 4, 5, 4), 0.5: DetectionCounts(4, 2, 2, 2)}


def test_thresholds_that_were_not_asked_for_change_nothing():
    probabilities, reference, ignored = case(3)
    many, few = (reached_thresholds(probabilities, CHANNELS, some) for some in (DEFAULT_THRESHOLDS, (0.1, 0.9)))
    ask = {"thresholds": (0.1, 0.9), "ignored": ignored, "overlap": 0.1}
    assert points_of(reference, many, "shell", **ask) == points_of(reference, few, "shell", **ask)


def test_more_thresholds_than_a_byte_can_count():
    thresholds = [number / 1000 for number in range(1, 1000)]
    reached = reached_thresholds(np.array([[[[0.9995, 0.5, 0.0]]]], np.float32), {"lesion": 0}, thresholds)
    assert reached.steps["lesion"].tolist() == [[[999, 500, 0]]]


def test_a_label_in_neither_has_no_rates_and_one_that_is_never_predicted_no_precision():
    nothing, something = np.zeros((1, 2, 2), bool), np.ones((1, 2, 2), bool)
    reached = reached_thresholds(np.full((1, 1, 2, 2), 0.2, np.float32), {"lesion": 0}, [0.5])

    def points(reference):
        return points_of(reference, reached, "lesion", thresholds=[0.5], overlap=0.1)

    assert points(nothing) == [("voxel", 0.5, DetectionCounts()), ("lesion", 0.5, DetectionCounts())]
    assert operating_points(points(nothing))[["recall", "precision", "f1"]].isna().all(axis=None)
    missed = operating_points(points(something)).iloc[0]
    assert (missed["level"], missed["recall"], missed["f1"]) == ("voxel", 0.0, 0.0)
    assert math.isnan(missed["precision"])


def test_counts_of_cases_are_summed():
    own = ("voxel", math.nan, DetectionCounts(4, 1, 1, 1))
    one = [("voxel", 0.1, DetectionCounts(4, 2, 3, 2)), own]
    other = [("voxel", 0.1, DetectionCounts(1, 0, 5, 0)), own]
    found = operating_points([*one, *other])
    counts = found[["level", "threshold", "reference", "found", "predicted", "right"]]
    assert counts.iloc[0].to_list() == ["voxel", 0.1, 5, 2, 8, 2]
    assert counts.iloc[1].fillna("own").to_list() == ["voxel", "own", 8, 2, 2, 2]
    assert len(found) == 2
    assert found["recall"].to_list() == [2 / 5, 2 / 8]
    assert found["precision"].to_list() == [2 / 8, 1.0]
    assert found["f1"][0] == pytest.approx(2 * 2 / (5 + 8))  # Dice of the sums


def test_the_best_point_has_the_highest_f1_and_of_several_the_highest_threshold():
    def best_of(counts):
        return best_point(operating_points(("voxel", threshold, one) for threshold, one in counts.items()))

    worse, best, nothing = DetectionCounts(4, 1, 4, 1), DetectionCounts(4, 3, 4, 3), DetectionCounts(4)
    found = best_of({0.1: worse, 0.2: best, 0.3: best, 0.9: nothing})
    assert (found["threshold"], found["f1"]) == (0.3, 0.75)
    assert best_of({0.1: nothing, 0.2: DetectionCounts()}) is None
    assert best_of({0.1: DetectionCounts(0, 0, 5, 0)}) is None


def test_default_thresholds_ascend_between_0_and_1():
    assert list(DEFAULT_THRESHOLDS) == sorted(set(DEFAULT_THRESHOLDS))
    assert (DEFAULT_THRESHOLDS[0], DEFAULT_THRESHOLDS[-1], len(DEFAULT_THRESHOLDS)) == (0.001, 0.999, 21)


def test_files_hold_what_was_reached_and_say_of_which_labels(tmp_path):
    file = thresholds_file(tmp_path / "Dataset001_X_val", "case ü")
    assert known_thresholds(file, list(CHANNELS)) == ()
    reached = reached_thresholds(softmax(2), CHANNELS, THRESHOLDS)
    write_thresholds(file, reached)
    assert [path.name for path in file.parent.iterdir()] == ["case ü.npz"]
    back = read_thresholds(file)
    assert back.thresholds == THRESHOLDS
    assert back.steps.keys() == CHANNELS.keys()
    for label, steps in reached.steps.items():
        assert steps.dtype == back.steps[label].dtype == np.uint8
        np.testing.assert_array_equal(back.steps[label], steps)
    assert known_thresholds(file, list(CHANNELS)) == THRESHOLDS
    assert known_thresholds(file, ["shell"]) == ()


def test_an_interruption_leaves_the_file_of_before(tmp_path, monkeypatch):
    file = thresholds_file(tmp_path / "predictions", "a")
    write_thresholds(file, reached_thresholds(softmax(2), CHANNELS, THRESHOLDS))
    before = file.read_bytes()

    def interrupted(stream, **arrays):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_thresholds(file, reached_thresholds(softmax(3), CHANNELS, [0.5]))
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["a.npz"]
