"""The spacing of TIFF volumes lies in a JSON file beside them."""

import json

import numpy as np
import pytest
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO

from nnunet_ext.demo.run import link_validation_cases
from nnunet_ext.errors import UserError
from nnunet_ext.formats.tiff_spacing import check_spacing, given_spacing, lacks_spacing
from nnunet_ext.preprocessing.raw.raw_dataset import (
    Case,
    RawDataset,
    copy_label_map,
    read_images,
    read_label_map,
    remove_label_map,
    training_cases,
)
from nnunet_ext.pseudo_labels.datasets import copy_annotated
from support.raw_datasets import write_raw


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
    check_spacing(tmp_path / "case.nii.gz", is_image=False)
    assert not lacks_spacing(tmp_path / "case.nii.gz")


def test_a_file_of_another_program_where_no_reader_looks_is_none_of_ours(tmp_path):
    """Such as labelme's, which has the image's name, channel included."""
    image, flat = tmp_path / "case_0000.tif", tmp_path / "flat_0000.tif"
    tifffile.imwrite(image, np.ones((2, 3, 4), np.uint8))
    tifffile.imwrite(flat, np.ones((3, 4), np.uint8))
    for name in ("case_0000.json", "flat_0000.json", "flat.json"):
        (tmp_path / name).write_text('{"version": "5.0", "shapes": []}')
    (tmp_path / "case.json").write_text('{"spacing": [4, 1, 2]}')
    assert read_images(Tiff3DIO(), Case((image,), image))[1]["spacing"] == [4, 1, 2]
    assert read_images(NaturalImage2DIO(), Case((flat,), flat))[0].shape == (1, 1, 3, 4)


def test_the_resolution_of_a_print_is_no_spacing(tmp_path):
    tifffile.imwrite(tmp_path / "case.tif", np.ones((2, 3, 4), np.uint8), resolution=(72, 72), resolutionunit="INCH")
    assert given_spacing(tmp_path / "case.tif") == [1, 1, 1]


def test_a_label_map_is_copied_and_removed_with_its_spacing(label, tmp_path):
    copy_label_map(label, tmp_path / "a.tif")
    assert not (tmp_path / "a.json").exists()
    label.with_suffix(".json").write_text('{"spacing": [4, 1, 2]}')
    copy_label_map(label, tmp_path / "a.tif")
    assert read_label_map(Tiff3DIO(), tmp_path / "a.tif")[1]["spacing"] == [4, 1, 2]
    remove_label_map(tmp_path / "a.tif")
    assert not list(tmp_path.glob("a.*"))


@pytest.fixture
def volumes(tmp_path):
    """A dataset of two TIFF volumes; the spacing of one is beside image and label."""
    cases = dict.fromkeys(("one", "two"), np.ones((2, 3, 4), np.uint8))
    folder = write_raw(tmp_path / "Dataset005_Tiff", cases, ending=".tif")
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "one.json").write_text('{"spacing": [4, 1, 2]}')
    return folder


def test_annotated_cases_keep_it_beside_pseudo_labelled_ones(volumes, tmp_path):
    description = json.loads((volumes / "dataset.json").read_text())
    new = tmp_path / "new"
    (new / "labelsTr").mkdir(parents=True)
    copy_annotated(RawDataset(volumes, description, training_cases(volumes, description)), new)
    assert sorted(file.name for file in (new / "labelsTr").iterdir()) == ["one.json", "one.tif", "two.tif"]


def test_the_demonstration_links_it(volumes, tmp_path):
    splits = tmp_path / "splits_final.json"
    splits.write_text('[{"train": [], "val": ["one", "two"]}]')
    link_validation_cases(volumes, splits, tmp_path / "held out")
    for part, image in (("images", "_0000"), ("labels", "")):
        found = sorted(file.name for file in (tmp_path / "held out" / part).iterdir())
        assert found == ["one.json", f"one{image}.tif", f"two{image}.tif"]
