"""The table of outcomes fits on a screen and loses nothing."""

from __future__ import annotations

import pytest

from nnunet_ext.checkpoints.outcome import Adaptation, AdaptedTensor, Outcome


def table(*tensors: tuple[str, Outcome, str]) -> list[str]:
    return (
        Adaptation({}, {}, tuple(AdaptedTensor(key, outcome, why, (2, 3)) for key, outcome, why in tensors))
        .table()
        .split("\n")
    )


@pytest.mark.parametrize(
    ("stages", "expected"),
    [([0, 1, 2, 3], "0-3"), ([0, 1, 3], "0-1,3"), ([10, 2, 9], "2,9-10"), ([4, 4], "4")],
)
def test_stages_with_the_same_outcome_share_a_line(stages: list[int], expected: str) -> None:
    lines = table(*((f"encoder.stages.{stage}.0.conv.weight", "copied", "") for stage in stages))
    assert lines == [
        f"encoder.stages.{expected}  copied   {len(stages)} tensors",
        f"Tensors, each counted once: {len(stages)} copied.",
    ]


def test_tensor_alone_has_its_name_shape_and_reason() -> None:
    assert table(("encoder.stem.convs.0.conv.weight", "adapted", "1 -> 3"))[0] == (
        "encoder.stem.convs.0.conv.weight  adapted  [2, 3]  1 -> 3"
    )


def test_other_outcomes_and_reasons_have_lines_of_their_own() -> None:
    lines = table(
        ("decoder.seg_layers.0.weight", "random", "new"),
        ("decoder.seg_layers.1.weight", "copied", ""),
        ("decoder.seg_layers.0.bias", "random", "new"),
        ("decoders.0.stages.0.a", "copied", "from the source's decoder"),
        ("decoders.1.stages.0.a", "copied", "from the source's decoder"),
        ("scale", "unused", "gone"),
    )
    assert [line.split()[:2] for line in lines[:-1]] == [
        ["decoder.seg_layers.0", "random"],
        ["decoder.seg_layers.1.weight", "copied"],
        ["decoders.0.stages.0.a", "copied"],
        ["decoders.1.stages.0.a", "copied"],
        ["scale", "unused"],
    ]
    assert lines[-1] == "Tensors, each counted once: 3 copied, 2 random, 1 unused."


def test_large_network_fits_on_a_screen() -> None:
    tensors: list[tuple[str, Outcome, str]] = [
        (f"{part}.{stage}.{block}.conv.{kind}", "copied", "")
        for part in ("encoder.stem", "encoder.stages", "decoder.stages", "decoder.transpconvs", "decoder.seg_layers")
        for stage in range(8)
        for block in range(6)
        for kind in ("weight", "bias")
    ]
    assert len(table(*tensors)) == 6
