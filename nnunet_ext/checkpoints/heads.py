"""Fitting segmentation heads to other labels."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from nnunet_ext.checkpoints.description import HeadRows
from nnunet_ext.checkpoints.outcome import NOTHING, Fitted
from nnunet_ext.formats.own_key import KEY

MARK = ".seg_layers."
"""What nnU-Net knows heads by."""

OUTPUTS, IMAGES, BLENDS, UNNAMED = "outputs", "images", "blends", "unnamed"
"""In a checkpoint's ``nnunet_ext``: the heads give images or blending coefficients, as after a pre-training, or labels
that nobody names."""

PRETEXTS = {IMAGES: "restore images", BLENDS: "tell how crops were blended"}
"""What heads do that were pre-trained without labels, by their outputs. They are no start for heads of labels."""


def outputs_of(checkpoint: Mapping[str, Any]) -> str:
    """What a checkpoint says its heads give; empty if they give the labels of its dataset.json."""
    about = checkpoint.get(KEY)
    outputs = about.get(OUTPUTS) if isinstance(about, Mapping) else None
    return outputs if isinstance(outputs, str) else ""


def is_head(key: str) -> bool:
    """Whether a tensor belongs to one of a decoder's numbered heads."""
    return key.partition(MARK)[2].partition(".")[0].isdigit()


def head_level(key: str) -> tuple[str, int, str]:
    """Split ``decoder.seg_layers.3.weight`` into the decoder's part, the level, and the rest."""
    decoder, _, place = key.partition(MARK)
    level, _, rest = place.partition(".")
    return decoder + MARK, int(level), rest


def head_counts(keys: list[str]) -> dict[str, int]:
    """How many heads each decoder has, by the part of the name that `head_level` gives first."""
    counts: dict[str, int] = {}
    for key in keys:
        if is_head(key):
            decoder, level, _ = head_level(key)
            counts[decoder] = max(counts.get(decoder, 0), level + 1)
    return counts


def adapted_head(own: Tensor, source: Tensor, own_rows: HeadRows, source_rows: HeadRows) -> Fitted:
    """A head's weight or bias with the rows of labels that the source knows by name."""
    if own_rows.activation != source_rows.activation:
        return Fitted(
            own, "random", f"{own_rows.activation} head, but the source's is {source_rows.activation}", NOTHING
        )
    if len(own_rows.names) != len(own) or len(source_rows.names) != len(source):
        return Fitted(own, "random", "rows do not correspond to the labels of dataset.json", NOTHING)
    if own.shape[1:] != source.shape[1:]:
        return Fitted(own, "random", "reads other features than the source's", NOTHING)
    if own_rows.names == source_rows.names:
        return Fitted(source, "copied", "")
    known = [name for name in own_rows.names if name in source_rows.names]
    new = [name for name in own_rows.names if name not in source_rows.names]
    if not known:
        return Fitted(own, "random", f"the source knows none of {', '.join(new)}", NOTHING)
    result = own.clone()
    is_known = torch.zeros(len(own), *[1] * (own.ndim - 1), dtype=torch.bool)
    for name in known:
        row = own_rows.names.index(name)
        result[row] = source[source_rows.names.index(name)]
        is_known[row] = True
    rest = f"; random: {', '.join(new)}" if new else ""
    return Fitted(result, "adapted", f"rows by name: {', '.join(known)}{rest}", is_known)
