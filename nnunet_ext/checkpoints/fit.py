"""How a source's weights fit a network: what a user looks at before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_ext.checkpoints.description import ModelDescription, architecture_differences, like_commands
from nnunet_ext.checkpoints.outcome import Adaptation
from nnunet_ext.checkpoints.shapes import contradictions
from nnunet_ext.checkpoints.sources.source import Source
from nnunet_ext.errors import UserError
from nnunet_ext.formats.dataset_json import channel_names
from nnunet_ext.formats.plans import UNetArguments
from nnunet_ext.formats.typed import validated
from nnunet_ext.messages import counted, listed
from nnunet_ext.plans.like import matching_channels

NORMALIZATION = "normalization_schemes"
DATA_KEYS = ("spacing", "patch_size")
"""What differs, besides the normalisation, without changing a weight's shape: the images that the network sees."""


@dataclass(frozen=True)
class Fit:
    """A source, the network's start that was made of it, and what differs between the two models."""

    source: Source
    adaptation: Adaptation
    architecture: Mapping[str, str]  # differences of the architecture, by the plans' key
    data: Mapping[str, str]  # differences of the images, by the plans' key
    commands: tuple[str, ...]  # that would give the target the source's architecture

    @classmethod
    def of(cls, source: Source, adaptation: Adaptation, target: ModelDescription, *, file: str) -> Fit:
        """Compare a source with the target that its weights were adapted to."""
        origin = ModelDescription.of(source.checkpoint)
        if origin is None:
            return cls(source, adaptation, {}, {}, ())
        architecture = architecture_differences(origin, target)
        before, after = (
            PlansManager(dict(one.plans)).get_configuration(one.configuration).configuration for one in (origin, target)
        )
        data = {
            key: f"{list(before[key])} -> {list(after[key])}"
            for key in DATA_KEYS
            if before.get(key) is not None and after.get(key) is not None and list(before[key]) != list(after[key])
        }
        channels = [channel_names(one.dataset_json) for one in (origin, target)]
        if differing := _normalization(before.get(NORMALIZATION), after.get(NORMALIZATION), *channels):
            data[NORMALIZATION] = differing
        axes = [list(one.plans.get("transpose_forward") or ()) for one in (origin, target)]
        if all(axes) and axes[0] != axes[1]:
            data["transpose_forward"] = f"{axes[0]} -> {axes[1]}"
        commands = like_commands(origin, target, file) if architecture else ()
        return cls(source, adaptation, architecture, data, commands)

    @property
    def share(self) -> float:
        """The share of the network's parameters that come from the source, from 0 to 1."""
        known, entries = self.adaptation.entries()
        return known / entries

    def text(self) -> str:
        """The report for a terminal."""
        known, entries = self.adaptation.entries()
        lines = [source_text(self.source), self.adaptation.table()]
        lines.append(f"Parameters: {known:,} of {entries:,} come from the source ({1000 * known // entries / 10} %).")
        if self.architecture:
            differing = [f"{key}: {change}" for key, change in self.architecture.items()]
            gain = "would raise it" if self.share < 1 else "differ, so that weights were adapted"
            lines.append(f"These keys of the plans {gain} (source -> target):{listed(differing, 20)}")
            lines.append(f"Commands for it:{listed(self.commands)}")
        if self.data:
            differing = [f"{key}: {change}" for key, change in self.data.items()]
            lines.append(f"The images differ from those of the source (source -> target):{listed(differing)}")
        return "\n".join(lines)

    def record(self) -> dict[str, Any]:
        """The report as plain data."""
        known, entries = self.adaptation.entries()
        return {
            "source": {**self.source.about(), "remarks": list(self.source.remarks)},
            "parameters": {"from_source": known, "all": entries, "share": self.share},
            "parts": self.adaptation.parts(),
            "would_raise_it": dict(self.architecture),
            "commands": list(self.commands),
            "other_images": dict(self.data),
        }


def _normalization(
    before: Sequence[str] | None, after: Sequence[str] | None, source_channels: list[str], channels: list[str]
) -> str:
    """In which channels the normalisation is not that of the source's channel; empty if it is in all."""
    if before is None or after is None:
        return ""
    if len(after) != len(channels):
        return (
            f"{list(before)} -> {list(after)} for {counted(len(channels), 'channel')}: cannot be preprocessed. "
            "`nnunet_ext plan --like` makes a configuration with one for each"
        )
    pairs = zip(channels, after, matching_channels(channels, source_channels[: len(before)]))
    differing = [(name, before[place], own) for name, own, place in pairs if place is not None and before[place] != own]
    return "; ".join(f"{name}: {theirs} -> {own}" for name, theirs, own in differing)


def source_text(source: Source) -> str:
    """What is known of a source, for a terminal."""
    origin = ModelDescription.of(source.checkpoint)
    model = "no plans are known" if origin is None else f"{origin.name}, {_classes(origin)}"
    lines = [f"Source: {model} ({source.kind}; reader {source.reader})", *source.remarks]
    lines += [f"Citation: {source.citation}"] if source.citation else []
    licence = source.licence or "not stated in the file"
    lines.append(f"Licence: {licence}. See that it allows what you plan.")
    return "\n".join(lines)


def _classes(origin: ModelDescription) -> str:
    return str(origin.architecture()["network_class_name"]).rpartition(".")[2]


def check_consistent(source: Source, *, file: object) -> None:
    """Raise a UserError if the plans of a source are not those of its weights."""
    origin = ModelDescription.of(source.checkpoint)
    if origin is None:
        return
    arguments = origin.architecture()["arch_kwargs"]
    validated(UNetArguments, arguments, where=f"arch_kwargs in the plans of {file}", what="arch_kwargs")
    if problems := contradictions(origin.architecture(), source.checkpoint["network_weights"]):
        raise UserError(
            f"The plans of {file} contradict its weights:{listed(problems)}\nPut the plans back that belong to the "
            "weights, or name another checkpoint."
        )
