"""The spacing of TIFF volumes lies in a JSON file beside them."""

import json

import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.errors import UserError
from nnunet_ext.formats.tiff_spacing import check_spacing, lacks_spacing
from nnunet_ext.preprocessing.raw.raw_dataset import Case, read_images, read_label_map


@pytest.fixture
def label(tmp_path):
    tifffile.imwrite(tmp_path / "case.tif", np.ones((2, 3, 4), np.uint8))
    return tmp_path / "case.tif"


@pytest.mark.parametrize(
    "content", ["[1, 2, 3]", "{}", '{"spacing": 3}', '{"spacing": [1, 2]}', '{"spacing": [1, 0, 2]}', "{", '{"spacing"']
)
def test_a_spacing_that_cannot_be_read_is_named_with_its_file(label, content):
    label.with_suffix(".json").write_text(content)
    with pytest.raises(UserError, match=r"case\.json"):
        read_label_map(Tiff3DIO(), label)
    label.rename(label.with_name("case_0000.tif"))
    with pytest.raises(UserError, match=r"case\.json"):
        read_images(Tiff3DIO(), Case((label.with_name("case_0000.tif"),), label))


def test_a_spacing_that_is_right_is_taken(label):
    assert lacks_spacing(label)
    label.with_suffix(".json").write_text(json.dumps({"spacing": [4.0, 0.5, 1]}))
    assert not lacks_spacing(label)
    assert read_label_map(Tiff3DIO(), label)[1]["spacing"] == [4.0, 0.5, 1]


def test_other_formats_have_no_such_file(tmp_path):
    (tmp_path / "case.json").write_text("{")
    check_spacing(tmp_path / "case.nii.gz")
    assert not lacks_spacing(tmp_path / "case.nii.gz")
