"""Weights without plans, in one of the usual wrappings: ``{"state_dict": …}``, prefixes before the names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunet_ext.checkpoints.heads import OUTPUTS, UNNAMED
from nnunet_ext.checkpoints.shapes import architecture_from_shapes
from nnunet_ext.checkpoints.sources.nnunet import with_parts
from nnunet_ext.checkpoints.sources.plans import described_plans
from nnunet_ext.checkpoints.sources.source import Given, Source
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import some

WRAPPERS = ("state_dict", "network_weights", "net", "student", "model", "model_state_dict")
ROOTS = ("encoder.", "decoder.")
FOREIGN = {
    "swinViT": "a SwinUNETR of MONAI",
    "swin_vit": "a SwinUNETR of MONAI",
    "conv_blocks_context": "a network of nnU-Net v1",
    "eva.": "a transformer (Primus)",
}
"""Parts of names that tell networks apart which are no U-Nets of nnU-Net v2."""


def unwrapped(content: Any) -> dict[str, Tensor] | None:
    """The named tensors of a file, whatever key they are under; None if there are none."""
    if not isinstance(content, Mapping):
        return None
    for inner in (*(content.get(key) for key in WRAPPERS), content):
        if isinstance(inner, Mapping):
            tensors = {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}
            if tensors:
                return tensors
    return None


def without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without what stands before ``encoder.`` or ``decoder.`` in all of their names.

    A tensor without either, such as a projection head beside the network, keeps its name.
    """
    result: dict[str, Tensor] = {}
    for key, tensor in weights.items():
        words = key.split(".")
        start = next((place for place, word in enumerate(words) if f"{word}." in ROOTS), 0)
        result.setdefault(".".join(words[start:]), tensor)
    return result


def unet_weights(given: Given) -> dict[str, Tensor]:
    """The weights of a U-Net of nnU-Net v2; a UserError says what else the file holds."""
    found = unwrapped(given.content)
    if found is None:
        keys = some(list(given.content), 10) if isinstance(given.content, Mapping) else type(given.content).__name__
        raise UserError(f"{given.file} holds no weights: no tensors by name. It has: {keys}.")
    weights = without_prefix(found)
    if not any(key.startswith(ROOTS) for key in weights):
        kind = next((what for part, what in FOREIGN.items() if any(part in key for key in found)), "another network")
        raise UserError(
            f"{given.file} is of {kind}: none of its {len(found)} tensors has a name of nnU-Net's U-Nets (encoder.…, "
            f"decoder.…). It has: {some(list(found), 3)}. Weights of this network cannot be used here."
        )
    return weights


class WrappedReader:
    """Weights alone. The architecture is told from their shapes; spacing, patch and labels are not known."""

    name = "weights"

    def recognises(self, given: Given) -> bool:
        return unwrapped(given.content) is not None

    def read(self, given: Given) -> Source:
        weights = unet_weights(given)
        checkpoint: dict[str, Any] = {"network_weights": weights, KEY: {OUTPUTS: UNNAMED}}
        remarks = ["The file has no plans: spacing, normalisation and labels of the source are not known."]
        if architecture := architecture_from_shapes(weights):
            checkpoint["init_args"] = described_plans(
                dataset_name=Path(given.file).stem,
                plans_name="weights",
                configuration="from_shapes",
                architecture=architecture,
                channels=unnamed_channels(weights),
                labels=unnamed_labels(weights),
                more={},
            )
            remarks.append("The architecture is told from the shapes of the weights.")
        return with_parts(Source(checkpoint, self.name, tuple(remarks)), given)


def unnamed_channels(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Channels of a network whose file does not name them."""
    first = next((tensor for tensor in weights.values() if tensor.ndim >= 4), None)
    return {str(number): f"channel {number}" for number in range(0 if first is None else first.shape[1])}


def unnamed_labels(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """Labels of a network whose file does not name them."""
    heads = [tensor for key, tensor in weights.items() if ".seg_layers." in key and key.endswith(".weight")]
    outputs = heads[-1].shape[0] if heads else 1
    return {"background": 0, **{f"label {number} of the source": number for number in range(1, outputs)}}
