import numpy as np
import pytest
import torch

from nnunet_ext.augmentation.block_masking import BlockMasking, block_sides
from nnunet_ext.augmentation.image_border import OUTSIDE
from nnunet_ext.augmentation.restoration import CleanImageAsTarget, image_and_counts


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)


def sample(shape=(2, 32, 32, 32), padded=0):
    """An image without a 0, and a border of padding along the first axis."""
    data = torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 1
    segmentation = torch.zeros((1, *shape[1:]), dtype=torch.int16)
    segmentation[:, :padded] = OUTSIDE
    return CleanImageAsTarget()(image=data, segmentation=segmentation)


def test_the_target_is_the_image_and_where_it_is_none_of_padding():
    data = sample((2, 8, 8), padded=3)
    image, counts = image_and_counts(data["segmentation"][None])
    assert torch.equal(image[0], data["image"])
    assert counts.shape == (1, 1, 8, 8)
    assert counts.dtype == torch.bool
    assert not counts[0, 0, :3].any()
    assert counts[0, 0, 3:].all()


@pytest.mark.parametrize("shape", [(1, 64, 64, 64), (3, 48, 20, 33), (2, 64, 50)])
def test_three_quarters_of_the_blocks_are_zero_in_every_channel_and_count(shape):
    given = sample(shape)
    kept = {key: value.clone() for key, value in given.items()}
    result = BlockMasking(16, 0.75)(**given)
    assert all(torch.equal(given[key], kept[key]) for key in kept)
    sides = [max(1, min(16, length // 4)) for length in shape[1:]]
    is_masked = (result["image"] == 0).numpy()
    grid = [-(-length // side) for length, side in zip(shape[1:], sides)]
    by_block = set()
    for block in np.ndindex(*grid):
        box = tuple(slice(at * side, (at + 1) * side) for at, side in zip(block, sides))
        (value,) = np.unique(is_masked[(slice(None), *box)])  # a whole block, all channels alike
        by_block |= {block} if value else set()
    assert len(by_block) == round(0.75 * np.prod(grid))
    image, counts = image_and_counts(result["segmentation"][None])
    assert torch.equal(image[0], kept["image"])
    assert (counts[0, 0].numpy() == is_masked[0]).all()
    assert torch.equal(torch.where(counts[0], 0, kept["image"]), result["image"])


def test_padding_is_masked_like_the_rest_and_does_not_count():
    result = BlockMasking(8, 0.5)(**sample(padded=11))
    counts = result["segmentation"][-1].bool()
    assert not counts[:11].any()
    assert torch.equal(counts[11:], result["image"][0, 11:] == 0)
    assert (result["image"][0, :11] == 0).any()


@pytest.mark.parametrize(
    ("shape", "size", "sides"),
    [((128, 128, 64), 16, [16, 16, 16]), ((40, 12, 3), 16, [10, 3, 1]), ((64, 64), 8, [8, 8])],
)
def test_a_block_is_at_most_a_quarter_of_the_patch(shape, size, sides):
    assert block_sides(shape, size) == sides


def test_blocks_are_drawn_anew_and_every_block_as_often():
    masks = np.array([BlockMasking(4, 0.75).get_parameters(image=torch.zeros(1, 16, 16))["masked"] for _ in range(800)])
    np.testing.assert_allclose(masks.mean(axis=0), 0.75, atol=0.08)


def test_apply_draws_nothing():
    transform, data = BlockMasking(8, 0.75), sample()
    parameters = transform.get_parameters(**data)
    before = np.random.get_state()[1].copy()
    first, second = (transform.apply(data, **parameters) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in ("image", "segmentation"))
    assert (np.random.get_state()[1] == before).all()
