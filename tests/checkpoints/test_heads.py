"""Rows of segmentation heads go by the names of labels."""

from __future__ import annotations

import torch

from nnunet_ext.checkpoints.description import HeadRows
from nnunet_ext.checkpoints.heads import adapted_head, head_counts, head_level, is_head


def rows(*names: str, activation: str = "softmax") -> HeadRows:
    return HeadRows(names, activation)


def head(*values: float) -> torch.Tensor:
    return torch.tensor(values)


def test_known_rows_come_from_the_source_and_others_from_the_network() -> None:
    own = head(-1, -2, -3)
    value, outcome, reason, known = adapted_head(
        own, head(1, 2), rows("background", "new", "a"), rows("background", "a")
    )
    assert value.tolist() == [1, -2, 2]
    assert outcome == "adapted"
    assert reason == "rows by name: background, a; random: new"
    assert known.tolist() == [True, False, True]
    assert own.tolist() == [-1, -2, -3]


def test_fewer_labels_than_the_source() -> None:
    value, outcome, reason, known = adapted_head(
        head(-1, -2), head(1, 2, 3), rows("background", "b"), rows("background", "a", "b")
    )
    assert value.tolist() == [1, 3]
    assert known.all()
    assert (outcome, reason) == ("adapted", "rows by name: background, b")


def test_same_rows_are_copied() -> None:
    source = head(1, 2)
    fitted = adapted_head(head(0, 0), source, rows("background", "a"), rows("background", "a"))
    assert fitted == (source, "copied", "", torch.tensor(True))


def test_region_of_a_labels_name_is_no_label() -> None:
    own = head(0)
    value, outcome, reason, known = adapted_head(
        own, head(1, 2), rows("a", activation="sigmoid"), rows("background", "a")
    )
    assert value is own
    assert not known.any()
    assert (outcome, reason) == ("random", "sigmoid head, but the source's is softmax")


def test_head_with_other_rows_than_labels_stays_random() -> None:
    _, outcome, reason, _ = adapted_head(head(0, 0), head(1, 2, 3), rows("background", "a"), rows("background", "a"))
    assert (outcome, reason) == ("random", "rows do not correspond to the labels of dataset.json")


def test_head_of_another_width_stays_random() -> None:
    names = rows("background", "a")
    _, outcome, reason, _ = adapted_head(torch.zeros(2, 4, 1, 1), torch.ones(2, 8, 1, 1), names, names)
    assert (outcome, reason) == ("random", "reads other features than the source's")


def test_only_numbered_layers_of_a_decoder_are_heads() -> None:
    assert is_head("decoder.seg_layers.1.weight")
    assert not is_head("decoder.stages.1.weight")
    assert not is_head("decoder.seg_layers.weight")


def test_levels_of_heads() -> None:
    assert head_level("decoders.1.seg_layers.12.weight") == ("decoders.1.seg_layers.", 12, "weight")
    keys = [
        "encoder.a",
        "side.seg_layers.weight",
        "decoder.seg_layers.0.bias",
        "decoder.seg_layers.2.bias",
        "decoders.1.seg_layers.0.weight",
    ]
    assert head_counts(keys) == {"decoder.seg_layers.": 3, "decoders.1.seg_layers.": 1}
