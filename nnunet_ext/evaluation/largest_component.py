"""Bodies that are one piece: predicted islands away from them are no part of them."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_ext.preprocessing.raw.raw_dataset import Labels

OnePiece = Literal["foreground", "labels"]
"""What is one piece: all labels together, such as the parts of a heart, or each label by itself."""

PIECES: dict[OnePiece, str] = {"foreground": "the foreground", "labels": "each label"}
"""What they are called in a sentence."""


def largest_component(labels: Labels, one_piece: OnePiece, keys: Iterable[tuple[int, ...]]) -> Labels:
    """A label map with the largest connected component alone, as nnU-Net's postprocessing makes it.

    Voxels that touch at a face, an edge or a corner are connected. Of components that are equally large all stay.

    Args:
        labels: of a prediction, 0 for background; it is not changed.
        one_piece: what keeps its largest component.
        keys: the values of each label or region; only for ``labels``, which go in this order.

    Returns:
        A map of the same shape and type, with background in place of the other components.
    """
    pieces = [np.unique(labels[labels > 0]).tolist()] if one_piece == "foreground" else [[key] for key in keys]
    for piece in pieces:
        labels = remove_all_but_largest_component_from_segmentation(labels, piece)
    return labels
