"""Files that were cut off are told from whole ones, in every format whose reader does not notice it."""

import errno
import gzip

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile

from nnunet_ext.errors import UserError
from nnunet_ext.formats.whole_images import check_whole, image_written_whole

VOLUME = np.random.default_rng(0).integers(0, 255, (12, 16, 20))


def written(folder, ending, kind=np.int16):
    file = folder / f"scan{ending}"
    if ending in (".tif", ".tiff"):
        tifffile.imwrite(file, VOLUME.astype(kind))
    else:
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME.astype(kind)), file)
    return file


ENDINGS = [".nii.gz", ".nii", ".gipl", ".tif", ".tiff"]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_whole_files_are_taken(tmp_path, ending, kind):
    check_whole(written(tmp_path, ending, kind))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_cut_off_files_are_named(tmp_path, ending, share):
    file = written(tmp_path, ending)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=f"scan{ending} is damaged"):
        check_whole(file)


def test_pages_of_a_tiff_written_one_by_one(tmp_path):
    """As SimpleITK writes it: each slice has its directory, and a file that was cut off ends with some of them."""
    file = tmp_path / "scan.tif"
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME.astype(np.int16)), file)
    check_whole(file)
    content = file.read_bytes()
    for share in (0.5, 0.98):
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match="damaged"):
            check_whole(file)


def test_gzip_in_several_members_is_whole(tmp_path):
    """As bgzip writes it: gzip's record of the size is that of the last member alone."""
    plain = written(tmp_path, ".nii").read_bytes()
    file = tmp_path / "scan.nii.gz"
    file.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]))
    check_whole(file)
    file.write_bytes(gzip.compress(plain[:1000]))
    with pytest.raises(UserError, match="it has 1000 bytes where its header needs"):
        check_whole(file)


def test_damaged_gzip_in_several_members(tmp_path):
    plain = written(tmp_path, ".nii").read_bytes()
    file = tmp_path / "scan.nii.gz"
    second = bytearray(gzip.compress(plain[1000:]))
    second[len(second) // 2] ^= 0xFF
    file.write_bytes(gzip.compress(plain[:1000]) + second)
    with pytest.raises(UserError, match="scan.nii.gz is damaged"):
        check_whole(file)


@pytest.mark.parametrize("ending", [".NII.GZ", ".MHA", ".xyz"])
def test_an_ending_that_nobody_writes_is_no_full_disk(tmp_path, ending):
    file = tmp_path / f"scan{ending}"
    with pytest.raises(UserError, match="Its ending must be one that nnU-Net writes"), image_written_whole(file):
        sitk.WriteImage(sitk.GetImageFromArray(VOLUME), file)


def test_a_file_that_is_too_short_is_a_full_disk(tmp_path):
    for ending in (".nii.gz", ".mha"):
        file = tmp_path / f"scan{ending}"
        with pytest.raises(OSError, match="not be written to its end") as raised, image_written_whole(file):
            file.write_bytes(b"")
            if ending == ".mha":
                raise RuntimeError("of ITK")
        assert raised.value.errno == errno.ENOSPC


@pytest.mark.parametrize("ending", [".mha", ".nrrd", ".png"])
def test_other_formats_are_left_to_their_readers(tmp_path, ending):
    """Their readers refuse a file that was cut off, as this shows."""
    file = tmp_path / f"scan{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(VOLUME[0].astype(np.uint8)), file)
    check_whole(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(RuntimeError):
        sitk.ReadImage(file)
