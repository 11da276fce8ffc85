"""Label maps that are pictures in colour, of which nnU-Net's readers would give one colour as labels."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from skimage import io

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.raw_dataset import read_label_map

COLOURED = np.zeros((8, 9, 3), np.uint8)
COLOURED[2:4, 2:4], COLOURED[5, 5] = (255, 0, 0), (0, 255, 0)


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif"])
def test_colours_are_named_instead_of_read_as_labels(tmp_path: Path, ending: str):
    file = tmp_path / f"mäsk of a{ending}"
    io.imsave(file, COLOURED, check_contrast=False)
    with pytest.raises(UserError) as error:
        read_label_map(NaturalImage2DIO(), file)
    message = str(error.value)
    assert message.startswith(f"{file} is a picture in colour, with 3 channels. One map was expected")
    assert "labels 0, 1, 2, …" in message
    assert "3 colours: (0, 0, 0), (0, 255, 0), (255, 0, 0)." in message


def test_many_colours_with_alpha_are_counted(tmp_path: Path):
    file = tmp_path / "a.png"
    colours = np.arange(4 * 64, dtype=np.uint8).reshape(8, 8, 4)
    io.imsave(file, colours, check_contrast=False)
    with pytest.raises(UserError, match=r"with 4 channels.*64 colours: \(0, 1, 2, 3\), .*\(16, 17, 18, 19\), …"):
        read_label_map(NaturalImage2DIO(), file)


def test_several_maps_in_one_file_are_refused(tmp_path: Path):
    file = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 4, 5, 6), np.uint8)), str(file))
    with pytest.raises(UserError, match="several values for each voxel: nnU-Net reads an array of 2 × 4 × 5 × 6"):
        read_label_map(SimpleITKIO(), file)


def test_one_grey_channel_is_read(tmp_path: Path):
    file = tmp_path / "a.png"
    io.imsave(file, COLOURED[..., 0] // 255, check_contrast=False)
    labels, _ = read_label_map(NaturalImage2DIO(), file)
    assert np.array_equal(labels, COLOURED[None, ..., 0] // 255)
