"""What a reader makes of a file of weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import Tensor

from nnunet_ext.checkpoints.heads import BLENDS, IMAGES, outputs_of

Parts = Literal["encoder", "all"]

LEFT_OUT = "left_out"
"""In a checkpoint's ``nnunet_ext``: why parts of a network, by the beginning of their names, are not in it."""


@dataclass(frozen=True)
class Given:
    """A file of weights as it was found.

    Attributes:
        file: the checkpoint.
        content: what it holds, read without running code in it.
        folder: with ``plans.json`` and ``dataset.json`` of the model, if it lies in one.
        parts: what to take: ``encoder``, ``all``, or None for what the source is good for.
        stem: which one to take of a network with several.
    """

    file: Path
    content: Any
    folder: Path | None = None
    parts: Parts | None = None
    stem: str | None = None


@dataclass(frozen=True)
class Source:
    """Weights under the names of nnU-Net's networks, and what is known of the model.

    Attributes:
        checkpoint: in the form of nnU-Net 2.8 (``network_weights``, ``init_args`` with plans, configuration and
            dataset.json where they are known, ``trainer_name``).
        reader: name of the reader.
        remarks: what a user should know of what was taken, a sentence each.
        citation: of the weights; empty if it is not known.
        licence: of the weights; empty if it is not known.
    """

    checkpoint: dict[str, Any]
    reader: str
    remarks: tuple[str, ...] = ()
    citation: str = ""
    licence: str = ""

    @property
    def kind(self) -> str:
        """What the model was trained for: ``segmentation``, ``restoration`` of images, or ``volume fusion``."""
        kinds = {IMAGES: "restoration", BLENDS: "volume fusion"}
        return kinds.get(outputs_of(self.checkpoint), "segmentation")

    def about(self) -> dict[str, str]:
        """What is passed on to whatever is made from the weights."""
        known = {"citation": self.citation, "licence": self.licence}
        return {"reader": self.reader, "kind": self.kind, **{key: value for key, value in known.items() if value}}


class Reader(Protocol):
    """Turns the files of one source into `Source`."""

    name: str

    def recognises(self, given: Given) -> bool:
        """Whether a file is of this source, by its content."""

    def read(self, given: Given) -> Source:
        """Read it; a UserError says what is wrong with it."""


def encoder_alone(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the encoder, under its own names alone: a decoder refers to it."""
    return {key: tensor for key, tensor in weights.items() if key.startswith("encoder.")}


def has_decoder(weights: Mapping[str, Tensor]) -> bool:
    """Whether there are weights of a decoder's own."""
    return any(key.startswith(("decoder.stages.", "decoder.transpconvs.")) for key in weights)
