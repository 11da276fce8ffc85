"""Each kind of error, compared with one that goes from voxel to voxel and measures distances in mm itself."""

import itertools
import math

import numpy as np
import pytest

from benchmarks.data import label_noise as experiments
from nnunet_ext.commands.simulate import NOISE
from nnunet_ext.preprocessing.simulate.label_noise import KINDS, changed_voxels, noisy_labels

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 1.5, 0.7), (10.0, 1.2, 1.2)]
SHAPES = [(5, 9, 11), (1, 9, 11)]
VALUES = [1, 2]
SIZE = 3.0


def scene(shape: tuple[int, ...]) -> np.ndarray:
    """Two labels that touch, and, in 3D and 2D, a corner that is ignored."""
    labels = np.zeros(shape, np.uint8)
    middle = slice(0, None) if shape[0] == 1 else slice(1, 4)
    labels[middle, 2:7, 3:7] = 1
    labels[middle, 2:7, 7:9] = 2
    labels[:, :3, :4] = 3
    return labels


def millimetres(one: tuple[int, ...], other: tuple[int, ...], spacing: tuple[float, ...]) -> float:
    return math.dist([a * s for a, s in zip(one, spacing)], [b * s for b, s in zip(other, spacing)])


def voxels(labels: np.ndarray, test) -> list[tuple[int, ...]]:
    return [place for place in itertools.product(*map(range, labels.shape)) if test(labels[place])]


def made_wrong(labels, spacing, kind, *, seed=0, size=SIZE, ignore=3):
    rng = np.random.default_rng(seed)
    return noisy_labels(labels, spacing, {1: kind}, rng, size=size, values=VALUES, ignore=ignore)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_dilation_takes_every_voxel_within_the_distance_but_the_ignored(shape, spacing):
    labels = scene(shape)
    expected, own = labels.copy(), voxels(labels, lambda value: value == 1)
    for place in voxels(labels, lambda value: value in (0, 2)):
        if min(millimetres(place, one, spacing) for one in own) <= SIZE:
            expected[place] = 1
    noisy = made_wrong(labels, spacing, "dilation")
    assert (noisy == expected).all()
    assert (noisy != labels).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_erosion_gives_what_is_near_another_label_to_the_nearest(shape, spacing):
    labels = scene(shape)
    noisy = made_wrong(labels, spacing, "erosion", size=1.5)
    others = voxels(labels, lambda value: value in (0, 2))
    outside = voxels(labels, lambda value: value != 1)
    for place in itertools.product(*map(range, shape)):
        if labels[place] != 1 or min(millimetres(place, one, spacing) for one in outside) > 1.5:
            assert noisy[place] == labels[place]
        else:
            nearest = min(millimetres(place, one, spacing) for one in others)
            allowed = {labels[one] for one in others if millimetres(place, one, spacing) == pytest.approx(nearest)}
            assert noisy[place] in allowed
    assert (noisy != labels).any()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(5))
def test_a_shift_moves_the_label_as_a_whole_by_about_the_distance(shape, spacing, seed):
    labels = scene(shape)
    noisy = made_wrong(labels, spacing, "shift", seed=seed)
    found = []
    for step in itertools.product(*(range(-6, 7) for _ in shape)):
        moved = {tuple(np.add(one, step)) for one in voxels(labels, lambda value: value == 1)}
        inside = {one for one in moved if all(0 <= a < length for a, length in zip(one, shape))}
        if inside - set(voxels(labels, lambda value: value == 3)) == set(voxels(noisy, lambda value: value == 1)):
            found.append(step)
    movable = [length > 1 and one <= SIZE for one, length in zip(spacing, shape)]
    rounding = math.hypot(*(one / 2 for one, moves in zip(spacing, movable) if moves))
    lengths = [millimetres(step, (0, 0, 0), spacing) for step in found]
    assert any(abs(length - SIZE) <= rounding and length > 0 for length in lengths)
    assert all(noisy[place] != 1 for place in voxels(labels, lambda value: value == 3))


def test_slices_farther_apart_than_the_size_are_not_crossed():
    labels = scene((5, 9, 11))
    for kind in ("dilation", "shift"):
        noisy = made_wrong(labels, (10.0, 1.2, 1.2), kind)
        assert (noisy[[0, 4]] == labels[[0, 4]]).all()
        assert (noisy[1:4] != labels[1:4]).any(axis=(1, 2)).all()


def test_a_swap_gives_every_voxel_of_a_label_another_one():
    labels = scene((5, 9, 11))
    assert (made_wrong(labels, SPACINGS[0], "swap") == np.where(labels == 1, 2, labels)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_ignore_label_stays_and_everything_can_have_one_label(kind):
    labels = scene((5, 9, 11))
    assert ((made_wrong(labels, SPACINGS[0], kind) == 3) == (labels == 3)).all()
    full = np.ones((4, 4, 4), np.uint8)
    assert set(np.unique(made_wrong(full, SPACINGS[0], kind))) <= {1, 2}
    point = np.ones((1, 1, 1), np.uint8)
    assert made_wrong(point, SPACINGS[0], kind).shape == (1, 1, 1)


def test_counts_by_hand():
    before, after = np.array([[0, 1, 1, 2]]), np.array([[1, 1, 2, 2]])
    found = changed_voxels(before, after, {"a": 1, "b": 2})
    assert found == {"a": (2, 3), "b": (1, 2), "all": (2, 4)}


def test_the_command_and_the_experiments_know_every_kind():
    assert KINDS == NOISE == experiments.KINDS
