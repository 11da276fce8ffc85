"""The box around the body is that of a known one, and matched intensities are those of the other scan."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.pairs.body import body_box, match_histogram
from support.bodies import CENTRE, RADII, depth, drawn, grid, intensities, organs, positions

BLANK = drawn(grid(), lambda points: np.full(points.shape[:-1], 7.0))


def test_crop_holds_the_body_and_the_margin_and_no_more():
    on = grid((60, 60, 60))
    image = drawn(on, intensities, noise=2)
    box = body_box(image, 6.0)
    extent = np.asarray([side.stop - side.start for side in box]) * 2.0
    assert np.all(extent >= 2 * RADII + 2 * 6.0 - 4)
    assert np.all(extent <= 2 * RADII + 2 * 6.0 + 8)


def test_image_and_labels_are_cut_alike_and_stay_in_place():
    on = grid((60, 60, 60))
    image, labels = drawn(on, intensities), drawn(on, organs)
    box = body_box(image, 4.0)
    cut_image, cut_labels = image[box], labels[box]
    assert cut_image.GetSize() == cut_labels.GetSize() == tuple(side.stop - side.start for side in box)
    assert cut_labels.GetPixelID() == labels.GetPixelID()
    assert (sitk.GetArrayFromImage(cut_labels) > 0).sum() == (sitk.GetArrayFromImage(labels) > 0).sum()
    place = CENTRE.tolist()
    index = cut_image.TransformPhysicalPointToIndex(place)
    assert cut_image[index] == image[image.TransformPhysicalPointToIndex(place)]


def test_margin_ends_at_the_border():
    image = drawn(grid(), intensities)
    assert body_box(image, 500.0) == tuple(slice(0, size) for size in image.GetSize())


def test_two_dimensional_image_is_cropped():
    image = drawn(grid((80, 80), (2.0, 2.0)), intensities)
    box = body_box(image, 2.0)
    assert max(image[box].GetSize()) < 45


def test_nothing_to_crop_to_is_said():
    with pytest.raises(UserError, match="No body is found in the image"):
        body_box(BLANK, 1.0)
    with pytest.raises(UserError, match="No body is found in the MRI"):
        match_histogram(drawn(grid(), intensities), BLANK)
    with pytest.raises(UserError, match="No body is found in some scan.nii.gz: nearly"):
        body_box(BLANK, 1.0, name="some scan.nii.gz")


def test_matched_ct_has_the_quantiles_of_the_mri_in_the_body_and_its_air_around():
    def hounsfield(points):
        return np.where(depth(points) > 0, intensities(points) - 60, -1000.0)

    ct = drawn(grid(), hounsfield, noise=5)
    # larger voxels, a larger field of view and other tissue shares, as another scanner has
    mr = drawn(
        grid((50, 50, 40), (2.5, 2.5, 3.0)), lambda p: np.where(depth(p) > 0, 400 + intensities(p) ** 2 / 50, 12)
    )
    matched = match_histogram(ct, mr)
    body, body_of_mr = (depth(positions(image)) > 0.05 for image in (ct, mr))
    quantiles = [10, 25, 50, 75, 90]
    ours = np.percentile(sitk.GetArrayFromImage(matched)[body], quantiles)
    wanted = np.percentile(sitk.GetArrayFromImage(mr)[body_of_mr], quantiles)
    np.testing.assert_allclose(ours, wanted, rtol=0.05)
    assert sitk.GetArrayFromImage(matched)[0, 0, 0] == 12
    assert matched.GetOrigin() == ct.GetOrigin()
    assert matched.GetPixelID() == sitk.sitkFloat32
    # the order of tissues in the CT stays
    before, after = (sitk.GetArrayFromImage(image)[body].ravel() for image in (ct, matched))
    order = np.argsort(before)
    assert np.all(np.diff(after[order]) >= -1e-3)
