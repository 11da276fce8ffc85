"""Configurations of nnU-Net's cascades, whose two stages name each other.

The first stage writes its predictions for the stages that it calls ``next_stage``; the second reads those of the stage
that it calls ``previous_stage``. A configuration that is derived from one of them alone would look for predictions that
nobody writes.
"""

from collections.abc import Mapping
from typing import Any

from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY

PREVIOUS, NEXT = "previous_stage", "next_stage"


def inherited_value(configurations: Mapping[str, Any], name: str, key: str) -> Any:
    """What a configuration, or the nearest one that it inherits from, says under a key; None if none says anything."""
    return next(
        (content[key] for one in lineage(configurations, name) if key in (content := configurations[one])), None
    )


def lineage(configurations: Mapping[str, Any], name: str) -> list[str]:
    """A configuration, and those that it inherits from, the nearest first; a circle ends where it closes."""
    chain = [name]
    while (parent := configurations[chain[-1]].get("inherits_from")) is not None and parent not in chain:
        chain.append(parent)
    return chain


def derived(configurations: Mapping[str, Any], base: str, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with some content that inherits from `base`, and the other stage if `base` is one of a cascade.

    Returns:
        Configurations by name: `name` alone, or a cascade's stages in the order of training, where the other one is
        called ``NAME_lowres`` or ``NAME_cascade``.

    Raises:
        UserError: if the first stage names several next ones, or if the content names weights to begin with.
    """
    previous = inherited_value(configurations, base, PREVIOUS)
    following = inherited_value(configurations, base, NEXT)
    if previous is not None:
        stages = [(f"{name}_lowres", previous), (name, base)]
    elif following is None:
        return {name: {"inherits_from": base, **content}}
    elif isinstance(following, str):
        stages = [(name, base), (f"{name}_cascade", following)]
    else:
        several = f"Configuration {base!r} is the first stage of several cascades ({', '.join(following)})"
        raise UserError(f"{several}. Derive from the second stage that you want: -c takes its name.")
    if source := content.get(KEY, {}).get("fine_tuning", {}).get("source"):
        names = " and ".join(stage for stage, _ in stages)
        raise UserError(
            f"{names} are the stages of a cascade: two networks, which cannot both begin with {source}. Leave "
            "fine_tuning.source out, and give each its own: nnUNetv2_train … -pretrained_weights CHECKPOINT."
        )
    (first, of_first), (second, of_second) = stages
    return {
        first: {"inherits_from": of_first, NEXT: second, **content},
        second: {"inherits_from": of_second, PREVIOUS: first, **content},
    }
