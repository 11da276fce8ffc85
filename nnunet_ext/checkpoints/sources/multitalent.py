"""MultiTalent v2 (zenodo.org/records/13753413): U-Nets of nnU-Net v2 with heads, or stems too, of many datasets."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nnunet_ext.checkpoints.heads import MARK, OUTPUTS, UNNAMED
from nnunet_ext.checkpoints.sources.nnunet import NNUNetReader
from nnunet_ext.checkpoints.sources.source import Given, Source
from nnunet_ext.checkpoints.sources.wrapped import unnamed_channels
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import counted

STEM = re.compile(r"(.*encoder\.stem)\.([^.]+)\.(convs\..*)")
DATASETS = "dataset_ids"
"""The key of its dataset.json, which has neither channels nor labels: those are in files that are not published."""


class MultiTalentReader(NNUNetReader):
    """Heads are ``decoder.seg_layers.ID.LEVEL``; several stems ``encoder.stem.ID.convs…``, a single one as usual."""

    name = "multitalent"
    citation = "Ulrich et al., MultiTalent: A Multi-Dataset Approach to Medical Image Segmentation, arXiv 2303.14444"
    licence = "see zenodo.org/records/13753413"

    def recognises(self, given: Given) -> bool:
        if not super().recognises(given):
            return False
        arguments = given.content.get("init_args")
        dataset_json = arguments.get("dataset_json") if isinstance(arguments, Mapping) else None
        trainer = str(given.content.get("trainer_name", "")).lower()
        is_of_datasets = isinstance(dataset_json, Mapping) and DATASETS in dataset_json
        return is_of_datasets or "multitalent" in trainer or bool(stems(given.content["network_weights"]))

    def read(self, given: Given) -> Source:
        found = stems(given.content["network_weights"])
        chosen = _chosen_stem(found, given)
        weights = {}
        for key, tensor in given.content["network_weights"].items():
            match = STEM.fullmatch(str(key))
            if MARK in key or (match and match[2] != chosen):
                continue
            weights[f"{match[1]}.{match[3]}" if match else key] = tensor
        content: dict[str, Any] = {**given.content, "network_weights": weights, KEY: {OUTPUTS: UNNAMED}}
        arguments = content.get("init_args")
        if isinstance(arguments, Mapping):
            dataset_json = {"channel_names": unnamed_channels(weights), "labels": {"background": 0}}
            content["init_args"] = {**arguments, "dataset_json": dataset_json}
        remarks = [
            "Its heads, a set for each dataset that it was trained on, are not taken: their labels have no names."
        ]
        if chosen is not None:
            remarks.append(f"Stem {chosen} is taken, {counted(len(found) - 1, 'other')} not.")
        return replace(super().read(replace(given, content=content)), remarks=tuple(remarks))


def stems(weights: Mapping[str, Any]) -> dict[str, int]:
    """The stems of a network with several, by name, and how many channels each reads."""
    found: dict[str, int] = {}
    for key, tensor in weights.items():
        match = STEM.fullmatch(str(key))
        if match and getattr(tensor, "ndim", 0) >= 4 and match[2] not in found:
            found[match[2]] = int(tensor.shape[1])
    return found


def _chosen_stem(found: Mapping[str, int], given: Given) -> str | None:
    """The stem that was asked for, or the only one; None for a network that has the usual one."""
    if not found and given.stem is not None:
        raise UserError(f"{given.file} has one stem; leave --stem {given.stem} out.")
    if given.stem is None and len(found) <= 1:
        return next(iter(found), None)
    listing = ", ".join(f"{name} ({counted(channels, 'channel')})" for name, channels in found.items())
    if given.stem is None:
        raise UserError(
            f"{given.file} has {len(found)} stems, the layers that read the image, one for each dataset that it was "
            f"trained on. Choose the one whose images are most like yours with --stem NAME: {listing}."
        )
    if given.stem not in found:
        raise UserError(f"{given.file} has no stem {given.stem!r}. It has: {listing}.")
    return given.stem
