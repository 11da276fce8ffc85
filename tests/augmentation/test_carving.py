"""CarveMix's regions beside SciPy's Euclidean distances."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from nnunet_ext.augmentation import carving
from nnunet_ext.augmentation.carving import carved_regions, inner_distances, squared_distances


class Draws:
    """Random numbers that are given: shares, then the number that decides between core and surroundings."""

    def __init__(self, shares, decisions):
        self.values = [np.array(shares), np.array(decisions)]

    def random(self, size):
        assert size == len(self.values[0])
        return self.values.pop(0)


def blobs(shape, seed, share=0.2):
    return np.random.default_rng(seed).random(shape) < share


@given(
    shape=st.lists(st.integers(1, 12) | st.sampled_from([19, 30]), min_size=2, max_size=3),
    spacing=st.lists(st.sampled_from([0.5, 1.0, 2.5]), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.02, 0.3, 0.97]),
    reach=st.sampled_from([0.4, 1.0, 3.0, 100.0, np.inf]),
)
def test_distances_are_euclidean_up_to_the_reach(shape, spacing, seed, share, reach):
    seeds, spacing = blobs(shape, seed, share), spacing[: len(shape)]
    found = squared_distances(torch.from_numpy(seeds)[None], spacing, reach)[0].double().sqrt().numpy()
    expected = distance_transform_edt(~seeds, sampling=spacing) if seeds.any() else np.full(shape, np.inf)
    near = expected <= reach
    np.testing.assert_allclose(found[near], expected[near], rtol=1e-6)
    assert (found[~near] > reach).all()


def test_long_lines_are_searched_in_parts(monkeypatch):
    monkeypatch.setattr(carving, "PAIRS_AT_ONCE", 5000)
    seeds = blobs((6, 40, 25), seed=0, share=0.001)
    found = squared_distances(torch.from_numpy(seeds)[None], (3.0, 1.0, 0.5), np.inf)[0].sqrt().numpy()
    np.testing.assert_allclose(found, distance_transform_edt(~seeds, sampling=(3.0, 1.0, 0.5)), rtol=1e-6)


@pytest.mark.parametrize("size", [5, 23, 40])
def test_the_depth_is_found_however_large_the_foreground(size):
    ball = np.linalg.norm(np.indices((48, 48)) - 24, axis=0) < size / 2
    depths = inner_distances(torch.from_numpy(ball)[None], (1.0, 2.0))[0].numpy()
    np.testing.assert_allclose(depths, distance_transform_edt(ball, sampling=(1.0, 2.0)), rtol=1e-6)


@pytest.mark.parametrize(
    ("share", "is_core", "margin_of_depth"), [(0.6, True, -0.3), (0.6, False, 0.6), (0.0, False, 0.0)]
)
def test_region_is_where_the_signed_distance_is_at_most_the_margin(share, is_core, margin_of_depth):
    foreground = np.stack([blobs((9, 10, 11), seed, 0.4) for seed in (1, 2)])
    spacing = (2.0, 1.0, 1.5)
    draws = Draws([share] * 2, [0.2 if is_core else 0.8] * 2)
    found = carved_regions(torch.from_numpy(foreground), spacing, draws)
    for sample, region in zip(foreground, found.numpy()):
        depth = distance_transform_edt(sample, sampling=spacing)
        signed = distance_transform_edt(~sample, sampling=spacing) - depth
        assert (region == (signed <= margin_of_depth * depth.max() + 1e-6)).all()


def test_nothing_is_carved_without_foreground_or_without_its_border():
    foreground = torch.stack([torch.zeros(6, 6, dtype=torch.bool), torch.ones(6, 6, dtype=torch.bool)])
    assert not carved_regions(foreground, (1.0, 1.0), np.random.default_rng(0)).any()


def test_half_of_the_margins_carve_the_core_and_half_the_surroundings():
    foreground = torch.zeros(2000, 1, 41, dtype=torch.bool)
    foreground[..., 10:31] = True  # 11 deep
    widths = carved_regions(foreground, (1.0, 1.0), np.random.default_rng(0)).flatten(1).sum(1).numpy()
    # margins below a voxel change nothing
    assert np.mean(widths < 21) == pytest.approx(0.5 * (5.5 - 1) / 5.5, abs=0.04)
    assert np.mean(widths > 21) == pytest.approx(0.5 * (11 - 1) / 11, abs=0.04)
    assert widths.min() == 11, "-D / 2: voxels at least 5.5 deep"
    assert widths.max() == 41, "D: ten voxels at each side"
