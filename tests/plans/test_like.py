"""A configuration like a trained model's, as plain data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_ext.errors import UserError
from nnunet_ext.plans.like import INTENSITIES, like_configuration, matching_channels, with_intensities
from support.public_weights import GEOMETRY, model

BASE: dict[str, Any] = {
    **GEOMETRY,
    "patch_size": [20, 24, 24],
    "spacing": [3.0, 2.5, 2.5],
    "normalization_schemes": ["ZScoreNormalization"],
    "use_mask_for_norm": [True],
    "batch_size": 5,
}


def source(**changes: Any) -> dict[str, Any]:
    made = model()
    return {**made.plans["configurations"]["3d_fullres"], **changes}


def like(**options: Any) -> dict[str, Any]:
    options = {"channels": ["CT"], "source_channels": ["CT"], "identifier": "plans_like", "source": source()} | options
    return like_configuration("3d_fullres", options.pop("base", BASE), options.pop("source"), **options)


def test_geometry_and_architecture_are_the_sources_and_the_rest_is_inherited() -> None:
    content = like()
    assert content["inherits_from"] == "3d_fullres"
    for key in ("patch_size", "spacing", "normalization_schemes", "use_mask_for_norm", "batch_size", "architecture"):
        assert content[key] == source()[key]
    assert content["median_image_size_in_voxels"] == [40.0, 48.0, 48.0]
    assert content["data_identifier"] == "plans_like"
    assert "resampling_fn_data" not in content


def test_spacing_of_the_data_on_request_or_where_the_source_has_none() -> None:
    for options in ({"spacing": "data"}, {"source": source(spacing=None)}):
        content = like(**options)
        assert content["spacing"] == BASE["spacing"]
        assert content["median_image_size_in_voxels"] == BASE["median_image_size_in_voxels"]
    with pytest.raises(UserError, match="--spacing data"):
        like(source=source(spacing=None), spacing="like")


def test_spacing_of_other_dimensions_than_the_network_is_refused() -> None:
    with pytest.raises(UserError, match=r"network is 3D, and its spacing \[1.0, 1.0\]"):
        like(source=source(spacing=[1.0, 1.0]))
    assert like(source=source(spacing=[1.0, 1.0]), spacing="data")["spacing"] == BASE["spacing"]


def test_preprocessed_data_of_the_base_serve_where_nothing_of_them_differs() -> None:
    same = {key: BASE[key] for key in ("spacing", "normalization_schemes", "use_mask_for_norm")}
    assert "data_identifier" not in like(source=source(**same))


def test_patch_must_be_one_that_the_network_can_halve() -> None:
    assert like(patch_size=[8, 12, 16])["patch_size"] == [8, 12, 16]
    for wrong in ([8, 12, 18], [2, 8, 8], [8, 8]):
        with pytest.raises(UserError, match="multiple of 4 x 4 x 4. Give one with --patch"):
            like(patch_size=wrong)


def test_base_that_cannot_serve_is_refused() -> None:
    with pytest.raises(UserError, match="second stage of a cascade"):
        like(base={**BASE, "previous_stage": "3d_lowres"})
    with pytest.raises(UserError, match="network is 3D and configuration '3d_fullres' 2D"):
        like(base={**BASE, "patch_size": [24, 24]})


@pytest.mark.parametrize(
    ("channels", "source_channels", "expected"),
    [
        (["T1", "FLAIR"], ["flair", "T2", "T1"], [2, 0]),
        (["CT", "PET"], ["CT"], [0, None]),
        (["T1", "T2"], ["channel 0"], [0, 0]),
        (["a", "b", "c"], ["x", "y"], [0, 1, None]),
        (["MRI", "prior MRI", "noNorm"], ["channel 0"], [0, 0, None]),
        (["MRI", "prior MRI", "noNorm", "noNorm"], ["a", "b", "c", "d"], [0, 1, None, None]),
        (["CT", "noNorm"], ["CT", "noNorm"], [0, 1]),
    ],
)
def test_channels_correspond_by_name_else_in_order(channels: Any, source_channels: Any, expected: Any) -> None:
    assert matching_channels(channels, source_channels) == expected


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("abcd"), unique=True))
def test_channels_correspond_to_what_there_is(channels: list[str], source_channels: list[str]) -> None:
    found = matching_channels(channels, source_channels)
    assert len(found) == len(channels)
    assert all(place is None or place < len(source_channels) for place in found)


def test_normalisation_of_a_channel_that_the_source_lacks_stays_the_datasets() -> None:
    base = {**BASE, "normalization_schemes": ["ZScoreNormalization"] * 2, "use_mask_for_norm": [True, True]}
    content = like(base=base, channels=["PET", "CT"])
    assert content["normalization_schemes"] == ["ZScoreNormalization", "CTNormalization"]
    assert content["use_mask_for_norm"] == [True, False]


def test_new_plans_have_the_sources_intensities_for_its_channels() -> None:
    theirs = model().plans
    plans = {"plans_name": "nnUNetPlans", "label_manager": "x", INTENSITIES: {"0": {"mean": 1.0}, "1": {"mean": 2.0}}}
    content = {"patch_size": [8, 8, 8]}
    made = with_intensities(plans, theirs, name="mine", configuration="like", content=content, matching=[None, 0])
    assert made["plans_name"] == "mine"
    assert made["configurations"] == {"like": content}
    assert made[INTENSITIES] == {"0": {"mean": 1.0}, "1": theirs[INTENSITIES]["0"]}
    assert plans[INTENSITIES]["1"] == {"mean": 2.0}
