"""Checkpoints of nnU-Net v2, of every 2.x release, alone or in a model's folder; and what this package writes."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from nnunet_ext.checkpoints.reading import checked_checkpoint
from nnunet_ext.checkpoints.sources.plans import present_dataset_json, present_plans
from nnunet_ext.checkpoints.sources.source import LEFT_OUT, Given, Source, encoder_alone, has_decoder
from nnunet_ext.errors import UserError
from nnunet_ext.files import read_json
from nnunet_ext.plans.settings import KEY

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
        return with_parts(source, given)


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


def with_parts(source: Source, given: Given) -> Source:
    """A source of which only the parts that were asked for are left."""
    weights: Mapping[str, Tensor] = source.checkpoint["network_weights"]
    if given.parts == "all" and not has_decoder(weights):
        raise UserError(
            f"{given.file} holds an encoder alone, no decoder, and --parts all was asked for. Leave the option out, or "
            "name --parts encoder: the decoder then starts from random weights."
        )
    if given.parts != "encoder":
        return source
    more = {**source.checkpoint.get(KEY, {}), LEFT_OUT: {"decoder": "only the encoder is taken (--parts encoder)"}}
    return Source(
        {**source.checkpoint, "network_weights": encoder_alone(weights), KEY: more},
        *(source.reader, source.remarks, source.citation, source.licence),
    )
