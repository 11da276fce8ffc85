import numpy as np
import pytest
import torch
from scipy import ndimage

from nnunet_ext.augmentation.registration_error import Misalignment, moved, rotation_matrix

SHAPES = [(9, 14), (7, 10, 13)]


def image(shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def still(dims):
    return {"shift": [0.0] * dims, "rotation": [0.0] * (3 if dims == 3 else 1)}


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_motion_is_the_identity(shape):
    given = image((2, *shape))
    spacing = [3.0, 0.7, 1.1][: len(shape)]
    torch.testing.assert_close(moved(given, **still(len(shape)), spacing=spacing), given, atol=1e-5, rtol=0)
    result = Misalignment([1], 0.0, 0.0, spacing)(image=given)["image"]
    torch.testing.assert_close(result, given, atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_by_the_spacing_moves_by_one_voxel_and_brings_zeros_in(axis):
    given, spacing, motion = image((1, 5, 6, 7)), [3.0, 0.5, 1.0], still(3)
    motion["shift"][axis] = spacing[axis]
    expected = torch.roll(given, 1, dims=1 + axis)
    expected.select(1 + axis, 0).zero_()
    torch.testing.assert_close(moved(given, **motion, spacing=spacing), expected, atol=1e-5, rtol=0)


def test_half_a_voxel_by_hand():
    given = torch.tensor([[[1.0, 2.0, 6.0], [0.0, 4.0, 0.0]]])
    result = moved(given, shift=[0.0, 1.0], rotation=[0.0], spacing=[5.0, 2.0])
    torch.testing.assert_close(result, torch.tensor([[[0.5, 1.5, 4.0], [0.0, 2.0, 2.0]]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_quarter_turn_of_a_cube_is_rot90(axis):
    given, motion = image((2, 6, 6, 6)), still(3)
    motion["rotation"][axis] = 90.0
    dims = (1 + (axis + 1) % 3, 1 + (axis + 2) % 3)
    result = moved(given, **motion, spacing=[1.5, 1.5, 1.5])
    torch.testing.assert_close(result, torch.rot90(given, 1, dims), atol=1e-4, rtol=0)


def test_a_quarter_turn_of_a_square_is_rot90():
    given = image((1, 7, 7))
    result = moved(given, shift=[0.0, 0.0], rotation=[90.0], spacing=[2.0, 2.0])
    torch.testing.assert_close(result, torch.rot90(given, 1, (1, 2)), atol=1e-4, rtol=0)


def test_a_quarter_turn_swaps_lengths_in_mm_not_in_voxels():
    given = torch.zeros(1, 9, 3)
    given[0, 3:6, 1] = 1  # 3 voxels of 1 mm along the first axis
    result = moved(given, shift=[0.0, 0.0], rotation=[90.0], spacing=[1.0, 3.0])
    assert (result[0, 4] > 0.4).sum() == 1  # one voxel of 3 mm along the second


@pytest.mark.parametrize(
    ("shape", "spacing", "shift", "rotation"),
    [
        ((9, 14), [0.8, 2.5], [1.3, -2.0], [17.0]),
        ((8, 11, 14), [3.0, 0.9, 1.2], [2.0, -1.0, 0.7], [11.0, -7.0, 23.0]),
        ((8, 11, 14), [1.0, 1.0, 4.0], [0.0, 0.3, -5.0], [0.0, 40.0, -3.0]),
    ],
)
def test_a_motion_in_anisotropic_voxels_is_scipys(shape, spacing, shift, rotation):
    given = image((1, *shape), dtype=torch.float64)
    result = moved(given, shift=shift, rotation=rotation, spacing=spacing)
    # a voxel's index i of the result, in mm from the centre: d (i - c); it comes from R^T (d (i - c) - t)
    back, scale = rotation_matrix(rotation).T, np.diag(spacing)
    matrix = np.linalg.inv(scale) @ back @ scale
    centre = (np.array(shape) - 1) / 2
    offset = centre - matrix @ centre - np.linalg.inv(scale) @ back @ np.array(shift)
    expected = ndimage.affine_transform(given[0].numpy(), matrix, offset, order=1, mode="grid-constant", cval=0.0)
    np.testing.assert_allclose(result[0].numpy(), expected, atol=1e-10)


def test_rotations_are_rotations_and_small_ones_add_up():
    matrix = rotation_matrix([20.0, -50.0, 75.0])
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(matrix) == pytest.approx(1)
    x, y, z = angles = np.array([1e-3, 2e-3, -3e-3])
    # infinitesimally, a rotation is the vector product with its axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    np.testing.assert_allclose(rotation_matrix(np.degrees(angles)), np.eye(3) + cross, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [[1], [3, 1], [0, 2, 3]])
def test_only_the_channels_that_are_named_move_and_all_alike(shape, channels):
    given = image((1, *shape)).expand(4, *shape).clone()
    kept, segmentation = given.clone(), image((1, *shape))
    dims = len(shape)
    transform = Misalignment(channels, 3.0, 10.0, [2.0, 1.0, 1.0][:dims])
    result = transform(image=given, segmentation=segmentation, keypoints="mine")
    for channel in range(4):
        assert torch.equal(result["image"][channel], kept[channel]) == (channel not in channels)
        if channel in channels:
            assert torch.equal(result["image"][channel], result["image"][channels[0]])
    assert torch.equal(given, kept), "the given image must not change"
    assert result["segmentation"] is segmentation
    assert result["keypoints"] == "mine"
    assert result["image"].dtype == given.dtype


def test_a_missing_prior_stays_zero():
    given = torch.zeros(2, 6, 6, 6)
    given[0] = image((6, 6, 6))
    assert torch.equal(Misalignment([1], 3.0, 10.0, [1.0, 1.0, 1.0])(image=given)["image"], given)


def test_apply_draws_nothing():
    transform, given = Misalignment([0], 3.0, 10.0, [1.0, 1.0, 1.0]), image((1, 6, 6, 6))
    parameters = transform.get_parameters(image=given)
    numpys, torchs = np.random.get_state()[1].copy(), torch.get_rng_state()
    first, second = (transform.apply({"image": given}, **parameters)["image"] for _ in range(2))
    assert torch.equal(first, second)
    assert (np.random.get_state()[1] == numpys).all()
    assert torch.equal(torch.get_rng_state(), torchs)


def test_what_seeds_numpy_seeds_the_motion():
    transform, given = Misalignment([0], 3.0, 10.0, [1.0, 1.0, 1.0]), image((1, 6, 6, 6))
    results = []
    for seed in (1, 1, 2):
        np.random.seed(seed)
        results.append(transform(image=given)["image"])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize(("dims", "angles"), [(2, 1), (3, 3)])
def test_shifts_and_rotations_are_uniform_in_their_ranges(dims, angles):
    transform = Misalignment([0], 4.0, 6.0, [1.0] * dims)
    drawn = [transform.get_parameters(image=torch.zeros(1, *[4] * dims)) for _ in range(4000)]
    for name, largest, count in (("shift", 4.0, dims), ("rotation", 6.0, angles)):
        values = np.array([one[name] for one in drawn])
        assert values.shape == (4000, count)
        assert np.abs(values).max() <= largest
        np.testing.assert_allclose(values.mean(0), 0, atol=0.06 * largest)
        np.testing.assert_allclose(values.var(0), largest**2 / 3, rtol=0.08)
        correlations = np.corrcoef(values.T) if count > 1 else np.eye(1)
        assert np.abs(correlations - np.eye(count)).max() < 0.06


def test_spacing_of_another_dimension_is_refused():
    with pytest.raises(ValueError, match="2 spatial axes"):
        moved(image((1, 5, 5)), shift=[0.0] * 3, rotation=[0.0] * 3, spacing=[1.0] * 3)
