import math

import numpy as np
import pytest

from nnunet_ext.augmentation.blocks import at_voxels, chosen_blocks


@pytest.mark.parametrize(
    ("shape", "sides", "share", "grid", "count"),
    [
        ((16, 16), (4, 4), 0.75, (4, 4), 12),
        ((10, 9, 7), (4, 3, 7), 0.7, (3, 3, 1), 6),  # 6.3 of 9
        ((8, 8), (4, 8), 0.01, (2, 1), 1),
        ((8, 8), (4, 8), 0.99, (2, 1), 1),  # one is left
        ((3, 3), (4, 4), 0.5, (1, 1), 1),
    ],
)
def test_the_share_of_the_blocks_is_chosen(shape, sides, share, grid, count):
    chosen = chosen_blocks(shape, sides, share, np.random.default_rng(0))
    assert chosen.shape == grid
    assert chosen.sum() == count


def test_every_set_of_blocks_is_as_likely():
    rng = np.random.default_rng(0)
    draws = [tuple(chosen_blocks((4, 2), (2, 1), 0.5, rng).ravel()) for _ in range(3000)]
    counts = np.unique(draws, axis=0, return_counts=True)[1]
    assert len(counts) == math.comb(4, 2)
    np.testing.assert_allclose(counts, 500, atol=100)


def test_a_voxel_has_the_value_of_its_block():
    values = np.arange(12).reshape(2, 3, 2)
    spread = at_voxels(values, (3, 2, 4), (5, 5, 8))
    assert spread.shape == (5, 5, 8)
    for voxel in np.ndindex(spread.shape):
        assert spread[voxel] == values[voxel[0] // 3, voxel[1] // 2, voxel[2] // 4]
