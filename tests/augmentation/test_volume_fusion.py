import numpy as np
import pytest
import torch

from nnunet_ext.augmentation.image_border import OUTSIDE
from nnunet_ext.augmentation.volume_fusion import VolumeFusion, side_limits


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)


def pair(shape, channels=1, outside=()):
    """Two crops of noise; `outside` are slices along the first axis that lie outside the scan, for each crop."""
    crops = torch.randn((2 * channels, *shape), generator=torch.Generator().manual_seed(1))
    borders = torch.zeros((2, *shape), dtype=torch.int16)
    for border, rows in zip(borders, outside):
        border[rows] = OUTSIDE
    return {"image": crops, "segmentation": borders}


@pytest.mark.parametrize(("shape", "channels", "classes"), [((48, 40, 33), 1, 4), ((64, 64), 3, 4), ((32, 32), 1, 7)])
def test_each_voxel_is_the_blend_that_its_label_says(shape, channels, classes):
    given = pair(shape, channels)
    kept = {key: value.clone() for key, value in given.items()}
    result = VolumeFusion(classes, (8, 32), 0.7)(**given)
    assert all(torch.equal(given[key], kept[key]) for key in kept)
    label = result["segmentation"].numpy()
    assert label.shape == (1, *shape)
    assert label.dtype == np.int16
    alpha = label.astype(np.float64) / classes
    first, second = kept["image"][:channels].double().numpy(), kept["image"][channels:].double().numpy()
    np.testing.assert_allclose(result["image"].double().numpy(), alpha * first + (1 - alpha) * second, atol=1e-6)
    assert set(np.unique(label)) <= set(range(classes + 1))


def test_a_label_of_zero_is_the_second_crop_and_the_last_one_the_first():
    data = pair((64, 64, 64))
    result = VolumeFusion(4, (8, 32), 0.7)(**data)
    label = result["segmentation"][0]
    assert torch.equal(result["image"][0][label == 0], data["image"][1][label == 0])
    assert torch.equal(result["image"][0][label == 4], data["image"][0][label == 4])


def test_where_either_crop_is_padding_there_is_no_label():
    result = VolumeFusion(4, (8, 32), 0.7)(**pair((32, 32), outside=(slice(0, 5), slice(29, 32))))
    is_outside = result["segmentation"][0] == OUTSIDE
    assert is_outside[:5].all()
    assert is_outside[29:].all()
    assert not is_outside[5:29].any()


def blocks_of(label, axis):
    """Where blocks may begin along an axis: wherever a label changes."""
    changes = np.diff(label, axis=axis) != 0
    return np.flatnonzero(changes.any(axis=tuple(other for other in range(label.ndim) if other != axis))) + 1


def test_the_statistics_are_those_of_the_paper():
    """70 % of the blocks are blended, k is uniform from 1 to K, and sides are uniform from 8 to 32, each by itself."""
    transform, shape = VolumeFusion(4, (8, 32), 0.7), (128, 64)
    drawn_sides, shares, counts = [], [], np.zeros(5)
    for _ in range(600):
        label = transform.get_parameters(image=torch.zeros(2, *shape))["label"].numpy()
        # blocks begin at multiples of their side: it is what all changes have in common
        sides = [int(np.gcd.reduce(blocks_of(label, axis))) for axis in range(2)]
        drawn_sides.append(sides)
        blocks = label[:: sides[0], :: sides[1]]
        shares.append((blocks > 0).mean() - round(0.7 * blocks.size) / blocks.size)
        counts += np.bincount(blocks.ravel(), minlength=5)
    assert np.allclose(shares, 0)
    np.testing.assert_allclose(counts[1:] / counts[1:].sum(), 0.25, atol=0.01)
    sides = np.array(drawn_sides)
    for axis in range(2):
        found, times = np.unique(sides[:, axis], return_counts=True)
        assert set(range(8, 33)) <= set(found)
        # a change that no two neighbouring blocks show makes a side look longer
        assert times[(found >= 8) & (found <= 32)].sum() > 0.9 * len(sides)
        assert np.median(sides[:, axis]) == pytest.approx(20, abs=2)
    assert abs(np.corrcoef(sides.clip(8, 32).T)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("shape", "limits"),
    [((128, 64), [(8, 32), (8, 32)]), ((40, 16), [(8, 20), (4, 8)]), ((3, 1), [(1, 1), (1, 1)])],
)
def test_small_patches_have_smaller_blocks(shape, limits):
    assert side_limits(shape, (8, 32)) == limits


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (2, 3), (1, 9, 5)])
def test_patches_of_a_few_voxels_are_no_error(shape):
    for seed in range(20):
        np.random.seed(seed)
        result = VolumeFusion(4, (8, 32), 0.7)(**pair(shape))
        assert result["image"].shape == (1, *shape)
        assert result["image"].isfinite().all()


def test_apply_draws_nothing():
    transform, data = VolumeFusion(4, (8, 32), 0.7), pair((32, 32, 32))
    parameters = transform.get_parameters(**data)
    before = np.random.get_state()[1].copy()
    first, second = (transform.apply(data, **parameters) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in ("image", "segmentation"))
    assert (np.random.get_state()[1] == before).all()
