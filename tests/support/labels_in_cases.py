"""A label in a case, from masks."""

from __future__ import annotations

import numpy as np

from nnunet_ext.evaluation.metrics.label_in_case import CaseMaps, LabelInCase

LABEL, IGNORE = 3, 7


def label_of_masks(reference, prediction, spacing=(1.0, 1.0, 1.0), ignored=None, *, instances=None, **more):
    """A label where the masks are; `ignored` wins over the reference, and other labels are all around."""
    theirs = np.where(reference, LABEL, 5).astype(np.uint8)
    if ignored is not None:
        theirs[ignored] = IGNORE
    ours = np.where(prediction, LABEL, 0).astype(np.uint8)
    ignore = None if ignored is None else IGNORE
    maps = CaseMaps(theirs, ours, spacing, (LABEL, 5), ignore, instances, cropped=more.pop("cropped", True))
    return LabelInCase(maps, (LABEL,), **more)
