"""Configurations of nnU-Net's cascades, whose two stages name each other.

The first stage writes its predictions for the stages that it calls ``next_stage``; the second reads those of the stage
that it calls ``previous_stage``. A configuration that is derived from one of them alone would look for predictions that
nobody writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nnunet_ext.errors import UserError

PREVIOUS, NEXT = "previous_stage", "next_stage"


def inherited_value(configurations: Mapping[str, Any], name: str, key: str) -> Any:
    """What a configuration, or the nearest one that it inherits from, says under a key; None if none says anything."""
    content = configurations[name]
    while key not in content and "inherits_from" in content:
        content = configurations[content["inherits_from"]]
    return content.get(key)


def derived(configurations: Mapping[str, Any], base: str, name: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration derived from another, with the other stage of its cascade if it is part of one.

    Args:
        configurations: of a plans file.
        base: what it inherits from.
        name: of the new configuration; the other stage is called ``NAME_lowres`` or ``NAME_cascade``.
        content: what both say beside ``inherits_from``.

    Returns:
        New configurations by name: one, or the first stage of a cascade and the second, in the order of training.

    Raises:
        UserError: if the first stage names several next ones.
    """
    previous = inherited_value(configurations, base, PREVIOUS)
    if previous is not None:
        first = f"{name}_lowres"
        return {
            first: {"inherits_from": previous, NEXT: name, **content},
            name: {"inherits_from": base, PREVIOUS: first, **content},
        }
    following = inherited_value(configurations, base, NEXT)
    if following is None:
        return {name: {"inherits_from": base, **content}}
    if not isinstance(following, str):
        raise UserError(
            f"Configuration {base!r} is the first stage of several cascades ({', '.join(following)}). Derive from the "
            "second stage that you want: -c takes its name."
        )
    second = f"{name}_cascade"
    return {
        name: {"inherits_from": base, NEXT: second, **content},
        second: {"inherits_from": following, PREVIOUS: name, **content},
    }
