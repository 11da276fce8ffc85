"""Bodies that are one piece: predicted islands away from them are no part of them."""

from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation

from nnunet_ext.preprocessing.raw.raw_dataset import Labels

OnePiece: TypeAlias = Literal["foreground", "labels"]
"""What is one piece: all labels together, such as the parts of a heart, or each label by itself."""

PIECES: dict[OnePiece, str] = {"foreground": "the foreground", "labels": "each label"}
"""What they are called in a sentence."""

Piece: TypeAlias = list[int | tuple[int, ...]]
"""The values, or the regions, of which the largest component stays."""


def pieces(one_piece: OnePiece, foreground: Sequence[int], keys: Iterable[tuple[int, ...]]) -> list[Piece]:
    """What keeps its largest component, one after another.

    Args:
        one_piece: see `OnePiece`.
        foreground: all values of the model but the background.
        keys: the values of each label or region, in the model's order.
    """
    return [list(foreground)] if one_piece == "foreground" else [[key] for key in keys]


def largest_component(labels: Labels, kept: Iterable[Piece]) -> Labels:
    """A label map with the largest connected component of each piece alone, as nnU-Net's postprocessing makes it.

    Voxels that touch at a face, an edge or a corner are connected. Of components that are equally large all stay.

    Args:
        labels: of a prediction, 0 for background; it is not changed.
        kept: the pieces.

    Returns:
        A map of the same shape and type, with background in place of the other components.
    """
    for piece in kept:
        labels = remove_all_but_largest_component_from_segmentation(labels, piece)
    return labels
