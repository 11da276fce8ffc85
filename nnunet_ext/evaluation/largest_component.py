"""Bodies that are one piece: predicted islands away from them are no part of them."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from nnunet_ext.formats.evaluation import OnePiece
from nnunet_ext.preprocessing.raw.instances import components
from nnunet_ext.preprocessing.raw.raw_dataset import Labels

PIECES: dict[OnePiece, str] = {"foreground": "the foreground", "labels": "each label"}
"""What they are called in a sentence."""

Piece: TypeAlias = list[int | tuple[int, ...]]
"""Values or regions of a label map whose union keeps its largest component."""


def pieces(one_piece: OnePiece, keys: Sequence[tuple[int, ...]]) -> list[Piece]:
    """What keeps its largest component, one after another.

    Args:
        one_piece: see `OnePiece`.
        keys: the values of each label or region of the model, in its order.
    """
    values = sorted({value for key in keys for value in key})
    return [[*values]] if one_piece == "foreground" else [[key] for key in keys]


def largest_component(labels: Labels, kept: Iterable[Piece]) -> Labels:
    """A label map with the largest connected component of each piece alone.

    It is what nnU-Net's `remove_all_but_largest_component_from_segmentation` gives, in a time that does not grow with
    the square of the number of components. Voxels that touch at a face, an edge or a corner are connected. Of
    components that are equally large all stay.

    Args:
        labels: of a prediction, 0 for background; it is not changed.
        kept: the pieces.

    Returns:
        A map of the same shape and type, with background in place of the other components.
    """
    for piece in kept:
        mask = np.isin(labels, np.hstack([np.ravel(one) for one in piece]))
        numbers = components(mask.astype(np.uint8), [1])
        sizes = np.bincount(numbers.ravel())
        sizes[0] = 0
        labels = np.where(mask & (sizes < sizes.max())[numbers], 0, labels).astype(labels.dtype)
    return labels
