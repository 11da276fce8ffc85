from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform

from nnunet_ext.augmentation.crop_pairs import EachCrop, PairsOfCrops
from nnunet_ext.augmentation.image_border import OUTSIDE


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)


def pairs(image, patch_size, scales=(1.0, 1.0)):
    properties = {"class_locations": {1: np.array([[0, 1, 2, 3]]), (-1, 0, 1): []}, "spacing": [1, 1, 1]}
    cases = SimpleNamespace(identifiers=["case"], load_case=lambda name: (image, None, None, properties))
    return PairsOfCrops(cases, patch_size, scales)


def coordinates(shape):
    """An image whose channels are the voxel's own coordinates, all at least 1."""
    return 1 + np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)


def test_two_crops_of_one_scan_at_places_of_their_own():
    image = coordinates((20, 24, 28))
    dataset, starts = pairs(image, (8, 8, 8)), []
    for _ in range(200):
        crops, borders, previous, _ = dataset.load_case("case")
        assert crops.shape == (6, 8, 8, 8)
        assert borders.shape == (2, 8, 8, 8)
        assert (borders == 0).all()
        assert previous is None
        for crop in (crops[:3], crops[3:]):
            start = crop[:, 0, 0, 0].astype(int) - 1
            box = tuple(slice(first, first + 8) for first in start)
            assert (crop == image[(slice(None), *box)]).all()
            starts.append(start)
    starts = np.array(starts)
    assert starts.min(axis=0).tolist() == [0, 0, 0]
    assert starts.max(axis=0).tolist() == [12, 16, 20]
    assert abs(np.corrcoef(starts[::2, 0], starts[1::2, 0])[0, 1]) < 0.2


def test_a_crop_is_as_large_as_its_factor_says_and_resampled_linearly():
    """Along a ramp the steps between voxels are the factor, and the first voxel is half a step in."""
    dataset, factors = pairs(coordinates((200, 200, 200)), (20, 20, 20), (0.7, 1.5)), []
    for _ in range(60):
        crops, _, _, _ = dataset.load_case("case")
        for crop in (crops[:3], crops[3:]):
            steps = np.diff(crop[0, :, 0, 0].astype(np.float64))
            inner = steps[1:-1]  # a border voxel is not extrapolated
            np.testing.assert_allclose(inner, inner[0], atol=1e-3)
            assert [np.diff(crop[axis].swapaxes(0, axis)[:, 0, 0])[5] for axis in (1, 2)] == pytest.approx(
                [inner[0]] * 2, abs=1e-3
            )
            factors.append(inner[0])
    assert min(factors) == pytest.approx(0.7, abs=0.05)
    assert max(factors) == pytest.approx(1.5, abs=0.05)
    assert np.mean(factors) == pytest.approx(1.1, abs=0.07)


def test_a_scan_smaller_than_the_patch_is_in_its_middle_and_the_rest_is_outside():
    crops, borders, _, _ = pairs(np.ones((1, 4, 30, 5), dtype=np.float32), (8, 8, 8)).load_case("case")
    expected = np.full((8, 8, 8), OUTSIDE)
    expected[2:6, :, 1:6] = 0
    for crop, border in zip(crops, borders):
        assert (border == expected).all()
        assert (crop == (expected == 0)).all()


@pytest.mark.parametrize("scale", [0.8, 1.3])
def test_a_voxel_that_padding_went_into_is_outside(scale):
    """Of an image of ones a resampled voxel is below 1 exactly if padding has a share in it."""
    image = np.ones((1, 12, 40, 40), dtype=np.float32)
    for _ in range(10):
        crops, borders, _, _ = pairs(image, (16, 16, 16), (scale, scale)).load_case("case")
        assert ((crops > 1 - 1e-4) == (borders == 0)).all()
        assert (borders == OUTSIDE).any() == (round(16 * scale) > 12)


def test_in_2d_crops_are_of_slices():
    image = coordinates((9, 20, 20))
    slices = set()
    for _ in range(100):
        crops, borders, _, properties = pairs(image, (8, 8), (0.7, 1.5)).load_case("case")
        assert crops.shape == (6, 1, 8, 8)
        assert borders.shape == (2, 1, 8, 8)
        for crop in (crops[:3], crops[3:]):
            (where,) = np.unique(np.round(crop[0], 4))
            slices.add(int(where))
        assert all(place.tolist() == [[0, 0, 4, 4]] for place in properties["class_locations"].values())
    assert slices == set(range(1, 10))


def test_each_crop_has_draws_of_its_own_and_flips_with_its_border():
    crops = torch.arange(2 * 2 * 3 * 4.0).reshape(4, 3, 4)
    borders = torch.arange(2 * 3 * 4).reshape(2, 3, 4)
    seen = set()
    for seed in range(30):
        torch.manual_seed(seed)
        result = EachCrop(MirrorTransform(allowed_axes=(1,)))(image=crops, segmentation=borders)
        flipped = []
        for part in range(2):
            channels = slice(2 * part, 2 * part + 2)
            is_flipped = torch.equal(result["image"][channels], crops[channels].flip(-1))
            assert is_flipped or torch.equal(result["image"][channels], crops[channels])
            expected = borders[part].flip(-1) if is_flipped else borders[part]
            assert torch.equal(result["segmentation"][part], expected)
            flipped.append(is_flipped)
        seen.add(tuple(flipped))
    assert len(seen) == 4
