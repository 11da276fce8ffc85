"""Whether a file of an image is there to its end.

Readers of NIfTI, GIPL and TIFF take a file that was cut off (an interrupted copy, a full disk) and fill the rest with
zeros, or leave slices out, without an error. The others (NRRD, MHA, PNG) refuse it by themselves.
"""

import errno
import gzip
import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import tifffile

from nnunet_ext.errors import UserError, in_one_line
from nnunet_ext.files import flush_to_disk

BLOCK = 1 << 20
GIPL_HEADER = 256
GIPL_BYTES = {1: 1 / 8, 7: 1, 8: 1, 15: 2, 16: 2, 31: 4, 32: 4, 64: 4, 65: 8}
"""Bytes of a voxel by the kind of number that the header names."""


def check_whole(file: Path) -> None:
    """See that a file of an image is as long as its header says.

    Args:
        file: of any kind that nnU-Net reads; kinds whose readers notice it themselves are not looked into.

    Raises:
        UserError: if the file was cut off, or has no header.
    """
    name = file.name.lower()
    problem = next((find(file) for ending, find in PROBLEMS.items() if name.endswith(ending)), "")
    if problem:
        raise UserError(f"{file} is damaged: {problem}. Copy or write it again.")


@contextmanager
def image_written_whole(file: Path) -> Iterator[None]:
    """See that the block writes a file of an image to its end.

    On a full disk ITK raises nothing for NIfTI and GIPL, and for others an error that does not say why.

    Raises:
        OSError: if it does not, as for a full disk.
        UserError: if the writer refuses the file's name.
    """
    problem = "it could not be written to its end"
    try:
        yield
        if not file.is_file():
            raise RuntimeError("there is no such file afterwards")
        check_whole(file)
        flush_to_disk(file)
    except UserError:
        raise OSError(errno.ENOSPC, problem, str(file)) from None
    except RuntimeError as error:
        if not file.is_file():  # on a full disk there is an empty one
            raise UserError(
                f"{file} cannot be written ({in_one_line(error)}). Its ending must be one that nnU-Net writes, in "
                "lower case. Change it in dataset.json and in the names of all files."
            ) from None
        raise OSError(errno.ENOSPC, f"{problem} ({in_one_line(error)})", str(file)) from None


def _nifti(file: Path) -> str:
    try:
        image: Any = nibabel.load(file)
        voxels = math.prod(int(size) for size in image.shape)
        expected = int(image.dataobj.offset) + voxels * image.dataobj.dtype.itemsize
    except Exception as error:  # nibabel raises of every kind for a header that is not whole
        return f"its header cannot be read ({in_one_line(error)})"
    if not file.name.lower().endswith(".gz"):
        return _shorter(file.stat().st_size, expected)
    with file.open("rb") as handle:
        handle.seek(-4, 2)
        unpacked = int.from_bytes(handle.read(4), "little")  # gzip's own record, modulo 2³²
    if unpacked == expected % 2**32:
        return ""
    return _unpacked(file, expected)  # bytes after the voxels, several members, or a file that was cut off


def _unpacked(file: Path, expected: int) -> str:
    size = 0
    try:
        with gzip.open(file) as handle:
            while block := handle.read(BLOCK):
                size += len(block)
    except (EOFError, OSError, zlib.error) as error:
        return f"it cannot be unpacked to its end ({error})"
    return _shorter(size, expected)


def _shorter(size: int, expected: int) -> str:
    return f"it has {size} bytes where its header needs {expected}" if size < expected else ""


def _gipl(file: Path) -> str:
    with file.open("rb") as handle:
        header = handle.read(GIPL_HEADER)
    if len(header) < GIPL_HEADER:
        return "its header is not whole"
    *sizes, kind = struct.unpack(">4HH", header[:10])
    expected = GIPL_HEADER + math.ceil(math.prod(max(size, 1) for size in sizes) * GIPL_BYTES.get(kind, 1))
    return _shorter(file.stat().st_size, expected)


def _tiff(file: Path) -> str:
    size = file.stat().st_size
    try:
        with tifffile.TiffFile(file) as tiff:
            ends = [
                offset + count
                for page in tiff.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
            following = _next_directory(file, tiff)
    except Exception as error:  # tifffile, too, raises of every kind
        return f"it cannot be read ({in_one_line(error)})"
    if following:
        return "slices are missing at its end"
    return _shorter(size, max(ends, default=0))


def _next_directory(file: Path, tiff: tifffile.TiffFile) -> int:
    """Where the last slice that was found says that another one begins; 0 if it is the last one."""
    numbers, offsets = tiff.tiff.tagnoformat, tiff.tiff.offsetformat
    with file.open("rb") as handle:
        handle.seek(tiff.pages[-1].offset)
        (tags,) = struct.unpack(numbers, handle.read(struct.calcsize(numbers)))
        handle.seek(tags * tiff.tiff.tagsize, 1)
        (following,) = struct.unpack(offsets, handle.read(struct.calcsize(offsets)))
    return int(following)


PROBLEMS: dict[str, Callable[[Path], str]] = {
    ".nii.gz": _nifti,
    ".nii": _nifti,
    ".gipl": _gipl,
    ".tif": _tiff,
    ".tiff": _tiff,
}
"""By the ending of a file's name, what is wrong with it; empty if nothing is."""
