"""MultiTalent v2 (zenodo.org/records/13753413): residual-encoder U-Nets of nnU-Net v2, some with a stem per dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from nnunet_ext.checkpoints.sources.nnunet import NNUNetReader
from nnunet_ext.checkpoints.sources.source import Given, Source
from nnunet_ext.errors import UserError

STEM = re.compile(r"(.*encoder\.stem)\.([^.]+)\.(convs\..*)")


class MultiTalentReader(NNUNetReader):
    """A network with several stems has ``encoder.stem.ID.convs…`` where a plain one has ``encoder.stem.convs…``."""

    name = "multitalent"
    citation = "Ulrich et al., MultiTalent: A Multi-Dataset Approach to Medical Image Segmentation, arXiv 2303.14444"
    licence = "see zenodo.org/records/13753413"

    def recognises(self, given: Given) -> bool:
        if not super().recognises(given):
            return False
        trainer = str(given.content.get("trainer_name", "")).lower()
        return "multitalent" in trainer or bool(stems(given.content["network_weights"]))

    def read(self, given: Given) -> Source:
        found = stems(given.content["network_weights"])
        if not found:
            if given.stem is not None:
                raise UserError(f"{given.file} has one stem; leave --stem {given.stem} out.")
            return super().read(given)
        listing = ", ".join(f"{name} ({channels} channel{'s' * (channels != 1)})" for name, channels in found.items())
        if given.stem is None and len(found) > 1:
            raise UserError(
                f"{given.file} has {len(found)} stems, the layers that read the image, one for each dataset that it "
                f"was trained on. Choose the one whose images are most like yours with --stem NAME: {listing}."
            )
        chosen = next(iter(found)) if given.stem is None else given.stem
        if chosen not in found:
            raise UserError(f"{given.file} has no stem {chosen!r}. It has: {listing}.")
        weights = {}
        for key, tensor in given.content["network_weights"].items():
            match = STEM.fullmatch(key)
            if match is None:
                weights[key] = tensor
            elif match[2] == chosen:
                weights[f"{match[1]}.{match[3]}"] = tensor
        content: dict[str, Any] = {**given.content, "network_weights": weights}
        channels = found[chosen]
        arguments = content.get("init_args")
        if isinstance(arguments, Mapping) and isinstance(arguments.get("dataset_json"), Mapping):
            # the channels of all datasets together say nothing about those of a stem
            names = {str(number): f"channel {number} of stem {chosen}" for number in range(channels)}
            dataset_json = {**arguments["dataset_json"], "channel_names": names}
            content["init_args"] = {**arguments, "dataset_json": dataset_json}
        source = super().read(replace(given, content=content))
        others = len(found) - 1
        return replace(source, remarks=(*source.remarks, f"Stem {chosen} is taken, {others} others are not."))


def stems(weights: Mapping[str, Any]) -> dict[str, int]:
    """The stems of a network with several, by name, and how many channels each reads."""
    found: dict[str, int] = {}
    for key, tensor in weights.items():
        match = STEM.fullmatch(str(key))
        if match and getattr(tensor, "ndim", 0) >= 4 and match[2] not in found:
            found[match[2]] = int(tensor.shape[1])
    return found
