"""Where images and label maps lie, by what nnU-Net's readers say of their files."""

from collections.abc import Mapping
from typing import Any

import numpy as np

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
