"""A configuration with the architecture, patch, spacing and normalisation of a trained model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nnunet_ext.errors import UserError
from nnunet_ext.formats.plans import dimensions

SpacingOf = Literal["like", "data"]

INTENSITIES = "foreground_intensity_properties_per_channel"
"""The key of plans with the statistics that CT normalisation uses, for all configurations."""

OF_BASE = (
    *("patch_size", "spacing", "batch_size", "median_image_size_in_voxels"),
    *("normalization_schemes", "use_mask_for_norm"),
)
"""What the planned configuration needs to have, from which another is derived."""


def dimensions_of(source: Mapping[str, Any]) -> int:
    """2 or 3, as the architecture of a configuration says."""
    return dimensions(str(source["architecture"]["arch_kwargs"]["conv_op"]))


def like_configuration(
    base: str,
    resolved: Mapping[str, Any],
    source: Mapping[str, Any],
    *,
    channels: Sequence[str],
    source_channels: Sequence[str],
    identifier: str,
    patch_size: Sequence[int] | None = None,
    spacing: SpacingOf | None = None,
) -> dict[str, Any]:
    """A configuration that inherits from a planned one what it does not take from a source.

    Args:
        base: name of the planned configuration.
        resolved: its content, with everything that it inherits.
        source: the configuration of the source, as much as is known of it.
        channels: names of the dataset's channels.
        source_channels: names of the source's channels.
        identifier: of the preprocessed data, should they be others than the base's.
        patch_size: in place of the source's.
        spacing: of the source (``like``) or of the base (``data``); by default the source's where it is known.

    Raises:
        UserError: if the base is a second stage of a cascade, if base or spacing are of other dimensions than the
            network, if the source's spacing is asked for and not known, or if the network cannot halve the patch as
            often as it does.
    """
    dims = dimensions_of(source)
    if resolved.get("previous_stage") is not None:
        raise UserError(f"Configuration {base!r} is the second stage of a cascade. Name another with -c.")
    if len(resolved["patch_size"]) != dims:
        found = len(resolved["patch_size"])
        raise UserError(f"The source's network is {dims}D and configuration {base!r} {found}D. Name another with -c.")
    if spacing == "like" and source.get("spacing") is None:
        raise UserError("The source does not say which spacing it was trained with. Use --spacing data.")
    if spacing != "data" and len(source.get("spacing") or [0] * dims) != dims:
        raise UserError(f"The source's network is {dims}D, and its spacing {source['spacing']}. Use --spacing data.")
    own_spacing = list(resolved["spacing"])
    new_spacing = own_spacing if spacing == "data" else list(source.get("spacing") or own_spacing)
    patch = [int(side) for side in patch_size or source.get("patch_size") or resolved["patch_size"]]
    _check_patch(patch, source["architecture"]["arch_kwargs"]["strides"], dims)
    schemes, masks = _normalization(resolved, source, channels, source_channels)
    sizes = zip(resolved["median_image_size_in_voxels"], own_spacing, new_spacing)
    content = {
        "inherits_from": base,
        "batch_size": int(source.get("batch_size") or resolved["batch_size"]),
        "patch_size": patch,
        "spacing": [float(length) for length in new_spacing],
        "median_image_size_in_voxels": [size * before / after for size, before, after in sizes],
        "normalization_schemes": schemes,
        "use_mask_for_norm": masks,
        "architecture": source["architecture"],
        "next_stage": None,
    }
    if any(
        list(content[key]) != list(resolved[key]) for key in ("spacing", "normalization_schemes", "use_mask_for_norm")
    ):
        content["data_identifier"] = identifier
    return content


def _check_patch(patch: Sequence[int], strides: Sequence[Any], dims: int) -> None:
    steps = [stride if isinstance(stride, Sequence) else [stride] * dims for stride in strides]
    factors = [math.prod(int(stride[axis]) for stride in steps) for axis in range(dims)]
    if len(patch) != dims or any(side < factor or side % factor for side, factor in zip(patch, factors)):
        raise UserError(
            f"The network cannot take a patch of {' x '.join(map(str, patch))} voxels. Each side must be a multiple of "
            f"{' x '.join(map(str, factors))}. Give one with --patch."
        )


def _normalization(
    resolved: Mapping[str, Any], source: Mapping[str, Any], channels: Sequence[str], source_channels: Sequence[str]
) -> tuple[list[str], list[bool]]:
    """The source's scheme and mask for each channel that corresponds to one of its own, else the dataset's."""
    theirs = list(zip(source.get("normalization_schemes") or (), source.get("use_mask_for_norm") or ()))
    own = list(zip(resolved["normalization_schemes"], resolved["use_mask_for_norm"]))
    chosen = [
        own[channel] if place is None else theirs[place]
        for channel, place in enumerate(matching_channels(channels, source_channels[: len(theirs)]))
    ]
    return [scheme for scheme, _ in chosen], [bool(mask) for _, mask in chosen]


def matching_channels(channels: Sequence[str], source_channels: Sequence[str]) -> list[int | None]:
    """The source's channel that each channel of a dataset corresponds to; None without one.

    By name, whatever the case. Where no name agrees, in order, and all of them to the only one that a source has; but
    none for a channel named noNorm, which holds labels or what was normalised before.
    """
    names = [name.casefold() for name in source_channels]
    if any(name.casefold() in names for name in channels):
        return [names.index(name.casefold()) if name.casefold() in names else None for name in channels]
    places = [0] * len(channels) if len(names) == 1 else range(len(channels))
    return [
        place if place < len(names) and name.casefold() != "nonorm" else None for name, place in zip(channels, places)
    ]


def with_intensities(
    plans: Mapping[str, Any],
    source_plans: Mapping[str, Any],
    *,
    name: str,
    configuration: str,
    content: Mapping[str, Any],
    matching: Sequence[int | None],
) -> dict[str, Any]:
    """Plans of another name that hold one configuration and, for channels that the source has, its intensities.

    Plans have one set of intensities for all configurations, so that other ones need plans of their own.

    Args:
        plans: of the dataset.
        source_plans: of the source.
        name: of the new plans.
        configuration: name of the configuration.
        content: the configuration, resolved.
        matching: the source's channel for each channel of the dataset, as of `matching_channels`.
    """
    theirs = intensities_of(source_plans)
    own = dict(intensities_of(plans))
    for channel, place in enumerate(matching):
        if place is not None and str(place) in theirs:
            own[str(channel)] = theirs[str(place)]
    return {**plans, "plans_name": name, INTENSITIES: own, "configurations": {configuration: dict(content)}}


def intensities_of(plans: Mapping[str, Any]) -> Mapping[str, Any]:
    """What plans, also of old releases, say of the intensities of each channel; nothing where they do not."""
    return plans.get(INTENSITIES) or plans.get("foreground_intensity_properties_by_modality") or {}
