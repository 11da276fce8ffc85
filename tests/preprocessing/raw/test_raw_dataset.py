"""Images and label maps as nnU-Net's readers give and write them."""

import contextlib
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from skimage import io

from nnunet_ext.errors import UserError
from nnunet_ext.preprocessing.raw.raw_dataset import (
    Case,
    cases_in,
    images_in,
    read_label_map,
    read_raw_dataset,
    reader_for,
    training_cases,
    unknown_values,
    whole_numbers,
    write_label_map,
)
from support.raw_datasets import write_raw

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
    message = r"with 4 channels.*64 colours: \(0, 1, 2, 3\), .*\(16, 17, 18, 19\) and 59 more"
    with pytest.raises(UserError, match=message):
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


@pytest.mark.parametrize(
    ("largest", "kind"),
    [(largest, kind) for largest in (0, 1, 255, 256, 65535, 65536) for kind in (np.float32, np.float64, np.uint32)]
    + [(255, np.uint8), (256, np.int16)],
)
def test_labels_are_of_the_smallest_type_that_holds_them(largest: int, kind: type):
    values = np.array([0, largest], kind)
    labels = whole_numbers(values, file=Path("a"))
    assert labels.dtype == np.min_scalar_type(largest)
    assert labels.tolist() == [0, largest]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.0000001, "1.0000001"), (-1, "-1"), (0.5, "0.5"), (np.nan, "nan"), (np.inf, "inf"), (1e30, "1e[+]30")],
)
def test_a_value_that_is_no_label_is_shown_as_it_is(value: float, shown: str):
    with pytest.raises(UserError, match=f"a holds values that are no labels: {shown}"):
        whole_numbers(np.array([0, 1, value]), file=Path("a"))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_unknown_values_are_found_in_maps_of_every_size(kind: type):
    labels = np.array([[0, 7, 1], [200, 7, 0]], kind)
    assert unknown_values(labels, {0, 1, 3000}) == [7, 200]
    assert unknown_values(labels, [0, 1, 7, 200]) == unknown_values(labels[:0], []) == []


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path):
    file = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 9, (4, 9, 9)).astype(np.uint8)), file)
    read_label_map(SimpleITKIO(), file)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"a\.nii\.gz is damaged"):
        read_label_map(SimpleITKIO(), file)


def test_a_fourth_axis_of_one_time_point_is_refused(tmp_path: Path):
    file = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((1, 4, 5, 6), np.uint8), isVector=False), file)
    with pytest.raises(UserError, match=r"a\.mha has four axes"):
        read_label_map(SimpleITKIO(), file)


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])  # read by several of nnU-Net's readers, and by one
def test_ctrl_c_while_a_reader_is_chosen_is_no_failure_of_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
):
    file = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.Image([4, 4, 4] if ending == ".nii.gz" else [4, 4], sitk.sitkUInt8), str(file))
    description = {"file_ending": ending}
    chosen = type(reader_for(description, file))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(chosen, "read_images", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reader_for(description, file)


def test_hidden_files_and_names_without_a_channel_are_no_cases(tmp_path: Path):
    for name in ("b_0001.nii.gz", "b_0000.nii.gz", "a_1_0000.nii.gz", "._a_1_0000.nii.gz", "c.nii.gz", "a_0000.mha"):
        (tmp_path / name).touch()
    found = cases_in(tmp_path, ".nii.gz")
    assert list(found) == ["a_1", "b"]
    assert [file.name for file in found["b"]] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert cases_in(tmp_path / "none", ".nii.gz") == {}


def test_files_that_a_dataset_lists_are_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SCANS", "/scans")
    listed = {"b": {"images": ["../x/b_0000.mha", "$SCANS/b.mha"], "label": "labelsTr/b.mha"}}
    case = training_cases(tmp_path / "data", {"dataset": listed, "file_ending": ".mha"})["b"]
    assert case == Case((tmp_path / "x" / "b_0000.mha", Path("/scans/b.mha")), tmp_path / "data" / "labelsTr" / "b.mha")


@pytest.mark.parametrize("reader", [NaturalImage2DIO(), NibabelIO()], ids=["png", "nifti"])
def test_a_damaged_file_is_named_whatever_its_reader_raises(tmp_path: Path, reader):
    file = tmp_path / ("a.png" if isinstance(reader, NaturalImage2DIO) else "a.nii.gz")
    values = np.random.default_rng(0).integers(0, 9, (16, 16, 16)).astype(np.uint8)
    if isinstance(reader, NaturalImage2DIO):
        io.imsave(file, values[0], check_contrast=False)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(values), file)
    content = file.read_bytes()
    for place in range(len(content) // 16, len(content) - 8, len(content) // 16):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        with contextlib.suppress(UserError):  # a change that no reader notices is none of ours
            read_label_map(reader, file)
    file.write_bytes(content[:20] + b"x" + content[21:])  # a SyntaxError of PIL, a zlib.error of nibabel
    with pytest.raises(UserError, match=rf"{file.name} (cannot be read|is damaged)"):
        read_label_map(reader, file)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_not_in_utf_8_is_told(tmp_path: Path):
    """SimpleITK aborts the process at such a name."""
    os.close(os.open(os.fsencode(tmp_path) + b"/f\xe4lle_0000.nii.gz", os.O_CREAT))
    with pytest.raises(UserError, match=r"cannot be the name of a case: it is no text in UTF-8\. Rename it"):
        cases_in(tmp_path, ".nii.gz")
    with pytest.raises(UserError, match="it is no text in UTF-8"):
        list(images_in(tmp_path, [".nii.gz"]))
    with pytest.raises(UserError, match="its path is no text in UTF-8"):
        read_label_map(SimpleITKIO(), next(tmp_path.iterdir()))


def test_one_picture_in_colour_has_every_channel():
    assert Case((Path("a_0000.png"),), Path("a.png")).has_channels(3)
    assert Case((Path("a_0000.PNG"),), Path("a.PNG")).has_channels(3)
    assert not Case((Path("a_0000.nii.gz"),), Path("a.nii.gz")).has_channels(3)
    assert Case((Path("a"), Path("b")), Path("c")).has_channels(2)


@pytest.mark.parametrize("largest", [255, 256, 60000])
def test_values_that_a_reader_of_nnunet_cannot_write_are_refused(tmp_path: Path, largest: int):
    labels = np.full((2, 3, 4), largest, np.uint16)
    labels[0] = 0
    image, file = tmp_path / "image.nii.gz", tmp_path / "labels" / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.uint8)), str(image))
    for reader in (SimpleITKIO(), SimpleITKIOWithReorient()):
        _, properties = reader.read_seg(str(image))
        if largest > 255 and isinstance(reader, SimpleITKIOWithReorient):
            with pytest.raises(UserError, match=rf"a.nii.gz .* {largest} .* SimpleITKIOWithReorient writes none above"):
                write_label_map(reader, labels, file, properties)
            assert not file.exists()
        else:
            write_label_map(reader, labels, file, properties)
            assert np.array_equal(read_label_map(reader, file)[0], labels)


def test_the_geometry_of_labels_is_that_of_their_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = write_raw(tmp_path / "Dataset005_D", {"a": np.zeros((2, 3, 9), np.uint8)}, ending=".tif")
    (folder / "imagesTr" / "a.json").write_text('{"spacing": [5, 1, 1]}')
    dataset = read_raw_dataset("5")
    reader = dataset.reader_writer()
    assert dataset.geometry(reader, "a", (2, 3, 9))["spacing"] == [5, 1, 1]
    with pytest.raises(UserError, match=r"a.tif has 2 × 3 × 5 voxels, but .*a_0000.tif has 2 × 3 × 9"):
        dataset.geometry(reader, "a", (2, 3, 5))
