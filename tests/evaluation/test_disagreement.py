"""Regions of disagreement, found by flooding from voxel to voxel, and where they are by the readers' own libraries."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from skimage import io

from nnunet_ext.evaluation.disagreement import KEPT, disagreement, world_position

SPACING = (3.0, 1.5, 0.7)
IGNORE = 3


def made_up(shape=(4, 7, 8), classes=3, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, shape).astype(np.uint8)
    labels[rng.random(shape) < 0.1] = IGNORE
    probabilities = rng.dirichlet(np.ones(classes), shape).transpose(-1, *range(len(shape))).astype(np.float32)
    return labels, probabilities


def flooded(labels, predicted):
    """Sets of voxels of one label and one prediction that differ and touch, if only at a corner."""
    places = set(zip(*np.nonzero((labels != predicted) & (labels != IGNORE))))
    regions = []
    while places:
        waiting, region = [places.pop()], set()
        while waiting:
            place = waiting.pop()
            region.add(place)
            for step in itertools.product((-1, 0, 1), repeat=3):
                other = tuple(int(a + b) for a, b in zip(place, step))
                if other in places and (labels[other], predicted[other]) == (labels[place], predicted[place]):
                    places.remove(other)
                    waiting.append(other)
        regions.append(region)
    return regions


@pytest.mark.parametrize("shape", [(4, 7, 8), (1, 12, 9)])
@pytest.mark.parametrize("seed", range(3))
def test_regions_are_those_found_by_flooding(shape, seed):
    labels, probabilities = made_up(shape, seed=seed)
    predicted, found = disagreement(labels, probabilities, SPACING, ignore=IGNORE)
    assert predicted.dtype == labels.dtype
    assert (predicted == probabilities.argmax(0)).all()
    voxel = np.prod(SPACING) if shape[0] > 1 else SPACING[1] * SPACING[2]
    expected = []
    for region in flooded(labels, predicted):
        margins = [probabilities[predicted[one]][one] - probabilities[labels[one]][one] for one in region]
        expected.append((voxel * sum(map(float, margins)), region))
    expected.sort(key=lambda one: -one[0])
    assert found.number == len(expected)
    assert len(found.regions) == min(KEPT, len(expected))
    for region, (score, places) in zip(found.regions, expected):
        assert region.score == pytest.approx(score, rel=1e-5)
        assert region.voxels == len(places)
        assert region.size == pytest.approx(len(places) * voxel)
        assert region.centre in places
        assert (labels[region.centre], predicted[region.centre]) == (region.label, region.predicted)
        middle = np.mean(list(places), axis=0)
        distances = {one: np.linalg.norm((np.array(one) - middle) * SPACING) for one in places}
        assert distances[region.centre] == pytest.approx(min(distances.values()))
    counts = labels != IGNORE
    foreground = voxel * (counts & ((labels > 0) | (predicted > 0))).sum()
    assert found.share == pytest.approx(sum(score for score, _ in expected) / foreground, rel=1e-5)
    for value, dice in found.dice.items():
        ours, theirs = (counts & (one == value) for one in (predicted, labels))
        assert dice == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))


def test_a_perfect_case_has_no_region_and_a_missing_label_no_dice():
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0] = 1
    probabilities = np.stack([labels == value for value in range(3)]).astype(np.float32)
    _, found = disagreement(labels, probabilities, SPACING, ignore=None)
    assert (found.regions, found.number, found.share, found.dice) == ([], 0, 0.0, {1: 1.0})
    _, found = disagreement(labels * 0, probabilities * 0 + [[[[1]]], [[[0]]], [[[0]]]], SPACING, ignore=None)
    assert (found.share, found.dice) == (0.0, {})


def test_a_label_that_only_the_prediction_has_is_not_missed():
    labels = np.zeros((2, 3, 4), np.uint8)
    labels[0, :2, :2], labels[1, 0, 0] = 1, 2
    answer = np.where(labels == 1, 2, 0)  # takes label 1 for 2, and does not find the voxel of label 2
    probabilities = np.stack([answer == value for value in range(4)]).astype(np.float32)
    _, found = disagreement(labels, probabilities, SPACING, ignore=None)
    assert (found.missed, found.dice) == ([1, 2], {1: 0.0, 2: 0.0})
    _, found = disagreement(np.zeros_like(labels), probabilities, SPACING, ignore=None)
    assert (found.missed, found.dice) == ([], {2: 0.0})


def turned() -> sitk.Image:
    """An image whose axes are neither those of the array nor of the patient."""
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6), np.uint8))
    image.SetSpacing((0.7, 1.5, 3.0))
    image.SetOrigin((-11.0, 7.5, 100.0))
    angle = 0.3
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    image.SetDirection((rotation @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, -1]])).ravel())
    return image


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient])
def test_the_place_of_a_voxel_is_what_itk_and_nibabel_say(tmp_path, reader):
    image, file = turned(), tmp_path / "a.nii.gz"
    image[4, 1, 2] = 1  # (x, y, z)
    sitk.WriteImage(image, str(file))
    values, properties = reader().read_seg(str(file))
    (centre,) = np.argwhere(values[0] == 1).tolist()
    index, place = world_position(centre, values[0].shape, properties)
    assert index == [4, 1, 2]
    left, posterior, superior = image.TransformIndexToPhysicalPoint((4, 1, 2))
    assert place == pytest.approx([-left, -posterior, superior], abs=1e-4)
    affine = nibabel.load(file).affine
    assert place == pytest.approx((affine @ [4, 1, 2, 1])[:3].tolist(), abs=1e-4)


def test_of_one_slice_and_of_a_picture(tmp_path):
    image = sitk.GetImageFromArray(np.zeros((5, 6), np.uint8))
    image.SetSpacing((0.5, 2.0))
    image.SetOrigin((3.0, 4.0))
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    _, properties = SimpleITKIO().read_seg(str(tmp_path / "a.mha"))
    assert world_position((0, 2, 4), (1, 5, 6), properties) == ([4, 2, 0], pytest.approx([-5.0, -8.0, 0.0]))
    io.imsave(tmp_path / "a.png", np.zeros((5, 6), np.uint8), check_contrast=False)
    _, properties = NaturalImage2DIO().read_seg(str(tmp_path / "a.png"))
    assert world_position((0, 2, 4), (1, 5, 6), properties) == ([4, 2, 0], None)
