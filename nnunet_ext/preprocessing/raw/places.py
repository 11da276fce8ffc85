"""Where images and label maps lie, by what nnU-Net's readers say of their files."""

from collections.abc import Mapping
from typing import Any

import nibabel
import numpy as np
import SimpleITK as sitk

PLACES = {
    "sitk_stuff": {"origin": "origins", "direction": "directions"},
    "nibabel_stuff": {"original_affine": "affine matrices"},
}
"""What nnU-Net's readers tell of an image's place, and how messages call it."""


def misplaced(image: Mapping[str, Any], labels: Mapping[str, Any], *, what: str = "image and labels") -> str:
    """How the place of labels differs from their image's, by what nnU-Net's reader says; empty if it does not."""
    for reader, keys in PLACES.items():
        for key, name in keys.items():
            theirs, ours = image.get(reader, {}).get(key), labels.get(reader, {}).get(key)
            if theirs is not None and ours is not None and not alike(theirs, ours):
                return f"the {name} of {what} differ: {' and '.join(told_apart(theirs, ours))}"
    return ""


def file_axes(properties: Mapping[str, Any]) -> list[tuple[int, bool]]:
    """Where the axes of a file are after nnU-Net's reader, which may turn images to a common orientation.

    Args:
        properties: the geometry as nnU-Net's reader gives it.

    Returns:
        For each of the file's axes x, y and z that of the read image, 0 for x, and whether it is reversed there.
    """
    if (affines := properties.get("nibabel_stuff", {})) and "reoriented_affine" in affines:
        turned = nibabel.orientations.io_orientation(affines["original_affine"])
        return [(int(axis), step < 0) for axis, step in turned]
    if original := properties.get("sitk_stuff", {}).get("original_orientation"):
        direction = properties["sitk_stuff"]["direction"]
        read = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
        places = {letter: axis for axis, letter in enumerate(read)}
        opposite = dict(zip("LRPASI", "RLAPIS"))
        return [
            (places[letter], False) if letter in places else (places[opposite[letter]], True) for letter in original
        ]
    return [(axis, False) for axis in range(3)]


def patient_axes(properties: Mapping[str, Any]) -> list[tuple[int, bool]]:
    """Which axes of a volume (Z, Y, X), as nnU-Net's reader gives it, run along the patient's.

    Args:
        properties: the geometry as the reader gives it.

    Returns:
        For the directions to the patient's head, back and left, in this order: the axis of the array that is nearest,
        and whether it runs the other way. The array's own order where the reader tells no directions.
    """
    direction, stuff = properties.get("sitk_stuff", {}).get("direction", ()), properties.get("nibabel_stuff", {})
    if len(direction) == 9:
        letters = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction)
    elif stuff:
        affine = stuff.get("reoriented_affine", stuff["original_affine"])
        letters = "".join(nibabel.orientations.aff2axcodes(affine))
    else:
        return [(axis, False) for axis in range(3)]
    opposite = dict(zip("SPL", "IAR"))
    axes = [letters.find(letter) for letter in opposite]
    turned = [letters.find(opposite[letter]) for letter in opposite]
    # the letters are of x, y and z, which are the last, the middle and the first axis of the array
    return [(2 - (axis if axis >= 0 else other), axis < 0) for axis, other in zip(axes, turned)]


def alike(ours: Any, theirs: Any) -> bool:
    """Whether two vectors or matrices agree by nnU-Net's tolerance."""
    return np.shape(ours) == np.shape(theirs) and np.allclose(ours, theirs)


def told_apart(one: Any, other: Any, separator: str = " ") -> list[str]:
    """Two vectors or matrices that differ, in as many digits as it takes to see it."""
    texts: list[str] = []
    for digits in range(4, 18):
        texts = [separator.join(f"{number:.{digits}g}" for number in np.ravel(numbers)) for numbers in (one, other)]
        if texts[0] != texts[1]:
            break
    return texts
