"""What dataset.json says, under ``nnunet_ext``, of how pairs of scans were prepared."""

from collections.abc import Mapping
from pathlib import PureWindowsPath
from typing import Any

PAIRING = "pairing"
"""The key of what a prediction has to do as the training did."""

MATCHED = "match_histogram"
"""The key in it of the image whose intensities all images get: a whole path, or null."""


def without_folders(about: Mapping[str, Any]) -> dict[str, Any]:
    """The block of ``nnunet_ext`` with the matched image's name alone, as folders may be called after a patient."""
    pairing = about.get(PAIRING)
    if not isinstance(pairing, Mapping) or not isinstance(file := pairing.get(MATCHED), str):
        return dict(about)
    name = PureWindowsPath(file).name  # which takes / and \ alike, wherever the dataset was made
    return {**about, PAIRING: {**pairing, MATCHED: name}}
