"""What a dataset.json says, where nnU-Net allows several ways of saying it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def channel_names(dataset_json: Mapping[str, Any]) -> list[str]:
    """The names of a dataset's channels, in order."""
    # the key that dataset.json had before nnU-Net v2
    names = dataset_json["channel_names"] if "channel_names" in dataset_json else dataset_json["modality"]
    return [str(names[key]) for key in sorted(names, key=int)]


def values_of(label: Any) -> set[int]:
    """The values that a label or a region stands for."""
    return {int(value) for value in label} if isinstance(label, (list, tuple)) else {int(label)}


def declared_values(dataset_json: Mapping[str, Any]) -> dict[int, str]:
    """Names by value of every label, ignore included; a value that only regions have is named by the first of them."""
    values: dict[int, str] = {}
    for name, label in dataset_json["labels"].items():
        for value in label if isinstance(label, (list, tuple)) else [label]:
            values.setdefault(int(value), str(name))
    return values
