"""Scans and labels as they are read, and grids that are compared."""

import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.pairs.images import (
    covered,
    difference,
    has_no_position,
    read_label_image,
    read_scan,
    unmoved,
)
from support.scan_pairs import box, scan, textured


def written(folder: Path, image: sitk.Image, ending: str = ".mha") -> Path:
    folder = folder / "ä b"
    folder.mkdir(exist_ok=True)
    file = folder / f"some{ending}"
    sitk.WriteImage(image, str(file))
    return file


def turned(image: sitk.Image, degrees: float) -> sitk.Image:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    image.SetDirection((cosine, -sine, 0, sine, cosine, 0, 0, 0, 1))
    return image


def test_spacing_of_a_tiff_volume_is_in_the_file_beside_it(tmp_path):
    file = written(tmp_path, scan(textured(0)), ".tif")
    file.with_name("some.json").write_text('{"spacing": [5, 1.5, 2]}')
    assert read_scan(file).GetSpacing() == (2, 1.5, 5)
    assert read_label_image(file, {*range(256)}).GetSpacing() == (2, 1.5, 5)
    file.with_name("some.json").write_text('{"spacing": [5, 0, 2]}')
    with pytest.raises(UserError, match="spacing"):
        read_scan(file)


def test_the_resolution_of_a_tiff_is_that_of_a_print(tmp_path):
    """ITK takes it for a spacing, nnU-Net does not."""
    file, flat = tmp_path / "some.tif", tmp_path / "flat.tif"
    for path, shape in ((file, (2, 3, 5)), (flat, (3, 5))):
        tifffile.imwrite(path, np.ones(shape, np.uint8), resolution=(72, 72), resolutionunit="INCH")
    assert sitk.ReadImage(str(flat)).GetSpacing() == pytest.approx((25.4 / 72,) * 2)
    assert read_scan(file).GetSpacing() == (1, 1, 1)
    assert read_scan(flat).GetSpacing() == (1, 1)


def test_a_file_that_was_cut_off_is_refused(tmp_path):
    file = written(tmp_path, scan(textured(0)), ".nii.gz")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"some\.nii\.gz is damaged"):
        read_scan(file)
    with pytest.raises(UserError, match=r"some\.nii\.gz is damaged"):
        read_label_image(file, {*range(256)})


def test_grids_that_differ_by_rounding_are_the_same():
    one, other = scan(textured(0)), scan(textured(1), origin=(5.00001, -7, 11), spacing=(1.00001, 1.5, 3))
    assert difference(one, other) == ""


def test_tenth_of_a_voxel_at_the_farthest_corner_decides():
    one = scan(textured(0))  # 12 voxels of 1 mm along the first axis: the last is 11 spacings away
    assert difference(one, scan(textured(0), spacing=(1 + 0.099 / 11, 1.5, 3))) == ""
    assert "spacing (1, 1.5, 3) and (1.00918, 1.5, 3), up to 0.101 mm" in difference(
        one, scan(textured(0), spacing=(1 + 0.101 / 11, 1.5, 3))
    )


def test_difference_names_what_differs():
    one = scan(textured(0))
    assert difference(one, scan(textured(0, (6, 10, 11)))) == "12 x 10 x 6 and 11 x 10 x 6 voxels"
    assert difference(one, scan(textured(0), origin=(5, -6, 11))) == (
        "origin (5, -7, 11) and (5, -6, 11), up to 1 mm apart"
    )
    assert "direction (1, 0, 0, 0, 1, 0, 0, 0, 1) and (" in difference(one, turned(scan(textured(0)), 90))


def test_flipped_axis_is_another_grid():
    """Voxels may then lie in the same places, but in another order."""
    image = scan(textured(0))
    assert "direction" in difference(image, sitk.Flip(image, (True, False, False)))


def test_coverage_is_the_share_of_voxels():
    grid = scan(textured(0))
    assert covered(grid, grid, unmoved(grid)).all()
    half = covered(grid, scan(textured(0), origin=(5 + 6, -7, 11)), unmoved(grid))
    assert half.mean() == 0.5  # six of twelve columns
    assert not covered(grid, scan(textured(0), origin=(500, -7, 11)), unmoved(grid)).any()


def test_header_without_position_is_known():
    assert has_no_position(sitk.GetImageFromArray(textured(0)))
    assert not has_no_position(scan(textured(0)))
    assert not has_no_position(scan(textured(0), origin=(0, 0, 0)))


def test_kinds_of_numbers_that_not_every_format_holds_become_float(tmp_path):
    values = textured(0)
    for kind, expected in ((np.float64, np.float32), (np.int64, np.float32), (np.int16, np.int16)):
        image = read_scan(written(tmp_path, scan(values.astype(kind))))
        assert sitk.GetArrayViewFromImage(image).dtype == expected
        assert (sitk.GetArrayViewFromImage(image) == values).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scan_with_values_that_are_not_finite_is_refused(tmp_path, value):
    values = textured(0).astype(np.float32)
    values[0, 0, 0] = value
    file = written(tmp_path, scan(values))
    with pytest.raises(UserError, match="not finite") as error:
        read_scan(file)
    assert str(file) in str(error.value)


def test_files_that_are_no_scans_are_refused(tmp_path):
    broken = tmp_path / "broken.nii.gz"
    broken.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.nii\.gz is damaged: its header cannot be read"):
        read_scan(broken)
    with pytest.raises(UserError, match=r"broken\.nrrd cannot be read"):
        read_scan(broken.rename(tmp_path / "broken.nrrd"))
    series = sitk.JoinSeries([scan(textured(0)), scan(textured(1))])
    with pytest.raises(UserError, match="4 dimensions and 1 channels"):
        read_scan(written(tmp_path, series))
    with pytest.raises(UserError, match="3 dimensions and 2 channels"):
        read_scan(written(tmp_path, sitk.Compose(scan(textured(0)), scan(textured(1)))))


def test_axes_that_are_not_at_right_angles_are_refused(tmp_path):
    image = scan(textured(0))
    image.SetDirection((1, 0.3, 0, 0, 1, 0, 0, 0, 1))
    file = written(tmp_path, image)
    with pytest.raises(UserError, match="not at right angles"):
        read_scan(file)


def test_labels_are_whole_and_known(tmp_path):
    labels = box({1: (2, 4), 2: (4, 6)}).astype(np.float32)
    image = read_label_image(written(tmp_path, scan(labels)), {0, 1, 2})
    assert sitk.GetArrayViewFromImage(image).dtype == np.uint8
    assert (sitk.GetArrayViewFromImage(image) == labels).all()
    with pytest.raises(UserError, match="has the value 2, but the labels are 0, 1"):
        read_label_image(written(tmp_path, scan(labels)), {0, 1})
    file = written(tmp_path, scan(labels / 2))
    with pytest.raises(UserError, match="holds values that are no labels: 0.5") as error:
        read_label_image(file, {0, 1, 2})
    assert str(file) in str(error.value)


def test_labels_above_255_are_kept(tmp_path):
    labels = box({1: (2, 4)}).astype(np.uint16) * 300
    image = read_label_image(written(tmp_path, scan(labels)), {0, 300})
    assert sitk.GetArrayViewFromImage(image).max() == 300
