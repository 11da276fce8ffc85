"""A patch divided into blocks, of which some are chosen at random."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


def chosen_blocks(
    shape: Sequence[int], sides: Sequence[int], share: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Choose a share of the blocks; each set of as many blocks is as likely.

    Args:
        shape: of the patch, ([X,] Y, Z).
        sides: of a block, in voxels. Blocks begin at the patch's first voxel, and the last ones may be cut off.
        share: of the blocks, from 0 to 1. At least one is chosen and, of several, at least one is not.
        rng: draws.

    Returns:
        An entry for each block, ([X,] Y, Z), true if it is chosen.
    """
    grid = [math.ceil(length / side) for length, side in zip(shape, sides)]
    blocks = math.prod(grid)
    count = min(max(round(share * blocks), 1), max(blocks - 1, 1))
    return (rng.permutation(blocks) < count).reshape(grid)


def at_voxels(values: npt.NDArray[Any], sides: Sequence[int], shape: Sequence[int]) -> npt.NDArray[Any]:
    """The value of each voxel's block.

    Args:
        values: one for each block, ([X,] Y, Z).
        sides: of a block, in voxels.
        shape: of the patch.
    """
    for axis, side in enumerate(sides):
        values = values.repeat(side, axis=axis)
    return values[tuple(slice(length) for length in shape)]
