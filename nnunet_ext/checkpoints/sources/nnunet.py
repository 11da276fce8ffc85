"""Checkpoints of nnU-Net v2, of every 2.x release, alone or in a model's folder; and what this package writes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from nnunet_ext.checkpoints.heads import PRETEXTS, outputs_of
from nnunet_ext.checkpoints.reading import checked_checkpoint
from nnunet_ext.checkpoints.sources.plans import present_dataset_json, present_plans
from nnunet_ext.checkpoints.sources.source import LEFT_OUT, Given, Source, encoder_alone, has_decoder
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.formats.own_key import KEY

NNUNET = "Isensee et al., nnU-Net, Nature Methods 18, 203-211 (2021), doi 10.1038/s41592-020-01008-z"


class NNUNetReader:
    """nnU-Net v2."""

    name = "nnunet"
    citation, licence = NNUNET, ""

    def recognises(self, given: Given) -> bool:
        if not isinstance(given.content, Mapping) or not isinstance(given.content.get("network_weights"), Mapping):
            return False
        return isinstance(given.content.get("init_args"), Mapping) or given.folder is not None

    def read(self, given: Given) -> Source:
        checkpoint = checked_checkpoint(given.content, given.file)
        checkpoint["init_args"] = described_by_nnunet(given)
        if not checkpoint["init_args"]:
            del checkpoint["init_args"]
        about = checkpoint.get(KEY, {})
        origin = about.get("adapted_from") if isinstance(about, Mapping) else None
        origin = origin if isinstance(origin, Mapping) else {}
        source = Source(
            checkpoint,
            str(origin.get("reader", self.name)),
            citation=str(origin.get("citation", self.citation)),
            licence=str(origin.get("licence", self.licence)),
        )
        return with_pretraining(with_parts(without_pretext(source), given))


def described_by_nnunet(given: Given) -> dict[str, Any]:
    """The checkpoint's ``init_args``, plans in the present form; the model's folder serves where it has none."""
    found = given.content.get("init_args")
    arguments = dict(found) if isinstance(found, Mapping) else {}
    if given.folder is not None:
        arguments.setdefault("configuration", given.folder.name.rpartition("__")[2])
        for key, name in (("plans", "plans.json"), ("dataset_json", "dataset.json")):
            if not isinstance(arguments.get(key), Mapping):
                arguments[key] = read_json(given.folder / name)
    if not isinstance(arguments.get("plans"), Mapping) or "configuration" not in arguments:
        return arguments
    plans = present_plans(arguments["plans"], where=f"The plans in {given.file}")
    if arguments["configuration"] not in plans["configurations"]:
        raise UserError(
            f"{given.file} is of the configuration {arguments['configuration']!r}, and its plans have: "
            f"{', '.join(plans['configurations'])}."
        )
    arguments["plans"] = plans
    if isinstance(arguments.get("dataset_json"), Mapping):
        where = f"The dataset.json in {given.file}"
        arguments["dataset_json"] = present_dataset_json(arguments["dataset_json"], where=where)
    return arguments


def without_pretext(source: Source) -> Source:
    """A source without its decoder, if its checkpoint says why that is no start for another training."""
    about = source.checkpoint.get(KEY)
    if not isinstance(about, Mapping) or LEFT_OUT not in about:
        return source
    reason = about[LEFT_OUT].get("decoder") if isinstance(about[LEFT_OUT], Mapping) else None
    rest = {key: value for key, value in about.items() if key != LEFT_OUT}
    source = replace(source, checkpoint={**source.checkpoint, KEY: rest})
    return _encoder_of(source, str(reason)) if reason else source


def with_pretraining(source: Source) -> Source:
    """A source with a remark on what is taken of it, if it was pre-trained without labels."""
    outputs = outputs_of(source.checkpoint)
    if outputs not in PRETEXTS:
        return source
    reason = source.checkpoint[KEY].get(LEFT_OUT, {}).get("decoder")
    remark = f"Encoder: taken. Decoder: {reason}." if reason else "Encoder and decoder: taken."
    return replace(source, remarks=(*source.remarks, f"{remark} The heads {PRETEXTS[outputs]} and are never taken."))


def with_parts(source: Source, given: Given) -> Source:
    """A source of which only the parts that were asked for are left."""
    weights: Mapping[str, Tensor] = source.checkpoint["network_weights"]
    if given.parts == "all" and not has_decoder(weights):
        raise UserError(
            f"{given.file} has no decoder that can be taken, and --parts all was asked for. Leave the option out, or "
            "name --parts encoder: the decoder then starts from random weights."
        )
    if given.parts != "encoder":
        return source
    return _encoder_of(source, "only the encoder is taken (--parts encoder)")


def _encoder_of(source: Source, reason: str) -> Source:
    """A source of which only the encoder is left, and why."""
    weights = encoder_alone(source.checkpoint["network_weights"])
    more = {**source.checkpoint.get(KEY, {}), LEFT_OUT: {"decoder": reason}}
    return replace(source, checkpoint={**source.checkpoint, "network_weights": weights, KEY: more})
