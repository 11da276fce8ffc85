"""Turning the weights of one model into a start for another: other input channels, other labels, other decoders."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from nnunet_ext.checkpoints.description import (
    STRUCTURE,
    ModelDescription,
    architecture_differences,
    configurations_with_architecture,
    like_commands,
)
from nnunet_ext.checkpoints.heads import PRETEXTS, UNNAMED, adapted_head, head_counts, head_level, is_head, outputs_of
from nnunet_ext.checkpoints.inputs import ChannelRule, adapted_input
from nnunet_ext.checkpoints.kernels import adapted_kernel
from nnunet_ext.checkpoints.outcome import ALL, NOTHING, Adaptation, AdaptedTensor, Fitted, Outcome
from nnunet_ext.checkpoints.sources.source import LEFT_OUT
from nnunet_ext.errors import UserError
from nnunet_ext.formats.own_key import KEY
from nnunet_ext.messages import listed

LEVEL = re.compile(r"(.*decoder\w*\.(?:\d+\.)?(?:stages|transpconvs|upsampling)\.)(\d+)(\..*)")
"""The name of a tensor of a decoder: its part, the stage, the rest."""


KNOWN = "known"
"""In a checkpoint's ``nnunet_ext``: which entries come from the source, of weights that do not come from it whole."""


def adapt(
    source: Mapping[str, Any],
    network: nn.Module,
    target: ModelDescription,
    *,
    keep_heads: bool,
    partial: bool = False,
    channel_rule: ChannelRule = "mean",
) -> Adaptation:
    """Weights for a network from a checkpoint of another dataset, with other channels or labels, or fewer decoders.

    Tensors of the same name and shape are copied. The first convolution is fitted to other input channels
    (`nnunet_ext.checkpoints.inputs`), heads to other labels (`nnunet_ext.checkpoints.heads`). A network's method
    ``stock_key(key) -> str | None`` says which tensor of a plain U-Net is taken where the source lacks one of its own;
    None leaves it random. A network that gives its U-Net some of the input channels names them in ``stock_inputs``,
    and one with several convolutions that read the image their weights in ``input_weights``.

    Args:
        source: as `nnunet_ext.checkpoints.reading.read_checkpoint` gives it.
        network: freshly built, on any device, without the wrappers of DDP and torch.compile; it is left as it is.
        target: what the network is for.
        keep_heads: take over the rows of labels that the source knows by name; else all heads stay random.
        partial: take what fits where the architectures differ: kernels of another size are adapted
            (`nnunet_ext.checkpoints.kernels`), stages are counted from the full resolution, the rest stays random.
        channel_rule: for another number of input channels (`nnunet_ext.checkpoints.inputs`).

    Returns:
        A complete state dict, to be loaded strictly, and what became of each tensor.

    Raises:
        UserError: unless `partial`, naming every other difference, the plans' keys that cause it, and the commands that
            give the target plans of the source's architecture.
    """
    return _Adapter(source, network, target, keep_heads=keep_heads, partial=partial, channel_rule=channel_rule).run()


class _Adapter:
    """One run of `adapt`."""

    def __init__(
        self,
        source: Mapping[str, Any],
        network: nn.Module,
        target: ModelDescription,
        *,
        keep_heads: bool,
        partial: bool,
        channel_rule: ChannelRule,
    ) -> None:
        self.source, self.network, self.target = source, network, target
        self.keep_heads, self.partial, self.channel_rule = keep_heads, partial, channel_rule
        self.given: Mapping[str, Tensor] = source["network_weights"]
        self.origin = ModelDescription.of(source)
        own = network.state_dict(keep_vars=True)
        self.keys, self.groups = list(own), aliases(own)
        self.stock_key: Callable[[str], str | None] = getattr(network, "stock_key", lambda key: key)
        inputs = target.input_channels()
        self.own_inputs = tuple(inputs[channel] for channel in getattr(network, "stock_inputs", range(len(inputs))))
        self.source_inputs = _first_convolution(self.given) | set(getattr(network, "input_weights", ()))
        self.own_head_counts = head_counts([key for keys, _ in self.groups for key in keys])
        self.source_head_counts = head_counts(list(self.given))
        deeper = (_levels(self.given) - _levels(own)) if partial else 0
        self.level_shift = deeper if min(_levels(self.given), _levels(own)) else 0
        self.used: set[str] = set()
        self.mismatches: list[str] = []

    def run(self) -> Adaptation:
        weights: dict[str, Tensor] = {}
        known: dict[str, Tensor] = {}
        report = []
        for keys, tensor in self.groups:
            own = tensor.detach().cpu()
            fitted = self._head(keys, own) if is_head(keys[0]) else self._body(keys, own)
            # a copy, so that neither a later training nor the source can reach into it
            weights.update(dict.fromkeys(keys, fitted.value.to(own.dtype).clone()))
            known.update(dict.fromkeys(keys, fitted.known))
            report.append(AdaptedTensor(keys[0], fitted.outcome, fitted.reason, tuple(own.shape)))
        unused = self._unused()
        differences = architecture_differences(self.origin, self.target) if self.origin else {}
        if set(differences) & set(STRUCTURE):
            # a tensor too many means here that the network is the source's with layers left out
            self._note_mismatches((one.key, one.shape, None) for one in unused if not is_head(one.key))
        if self.mismatches and not self.partial:
            raise UserError(self._refusal(differences))
        if masks := self.source.get(KEY, {}).get(KNOWN):
            known = self._known_before(masks, known)
        return Adaptation({key: weights[key] for key in self.keys}, known, (*report, *unused))

    def _known_before(self, masks: Mapping[str, Tensor], known: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Which entries come from what a file was adapted from that itself has random entries.

        Adapted weights are linear in the source's: with 1 for each random entry of these and 0 for the others, an entry
        is 0 unless something random goes into it.
        """
        random = {name: _random_entries(name, tensor, masks) for name, tensor in self.given.items()}
        about = {key: value for key, value in self.source[KEY].items() if key != KNOWN}
        options: dict[str, Any] = {"keep_heads": self.keep_heads, "partial": self.partial}
        source = {**self.source, "network_weights": random, KEY: about}
        mixed = _Adapter(source, self.network, self.target, channel_rule=self.channel_rule, **options).run().weights
        before = {key: one & (mixed[key] == 0) for key, one in known.items()}
        return {key: ALL if one.all() else one if one.any() else NOTHING for key, one in before.items()}

    def _note_mismatches(self, found: Iterable[tuple[str, Sequence[int] | None, Sequence[int] | None]]) -> None:
        """Note tensors by name, shape in the source and shape in the network; None: missing there."""
        for key, *both in found:
            source, network = (str(list(shape)) if shape is not None else "missing" for shape in both)
            self.mismatches.append(f"{key}: source {source}, network {network}")

    def _body(self, keys: tuple[str, ...], own: Tensor) -> Fitted:
        """A tensor of encoder or decoder."""
        found = next((name for name in map(self._shifted, self._names(keys)) if name in self.given), None)
        stock = {name for name in map(self.stock_key, keys) if name is not None}
        if found is None and not stock:
            return Fitted(own, "random", "a plain U-Net has no such part", NOTHING)
        if found is None and (reason := self._left_out(stock)):
            return Fitted(own, "random", reason, NOTHING)
        if found is None:
            self._note_mismatches([(keys[0], None, own.shape)])
            return Fitted(own, "random", "missing in the source", NOTHING)
        # all names: a source may hold a copy of the tensor under each
        self.used |= {found, *keys, *stock}
        value, reasons = self.given[found], []
        outcome: Outcome = "copied"
        if self.partial and value.ndim == own.ndim > 2 and value.shape[2:] != own.shape[2:]:
            changed = adapted_kernel(value, own.shape[2:], is_transposed=".transpconvs." in keys[0])
            if changed is not None:
                value, outcome, reasons = changed[0], "adapted", [changed[1]]
        origin = "" if found in keys else f"from the source's {_differing_part(keys[0], found)}"
        is_input = bool(self.source_inputs & {found, *keys, *stock})
        if is_input and value.ndim == own.ndim and _without_channels(value) == _without_channels(own):
            source_inputs = self.origin.input_channels() if self.origin else ()
            fitted = adapted_input(own, value, source_inputs, self.own_inputs, rule=self.channel_rule)
            reason = "; ".join(part for part in (*reasons, fitted.reason, origin) if part)
            return fitted._replace(outcome="adapted" if reasons else fitted.outcome, reason=reason)
        if value.shape != own.shape:
            self._note_mismatches([(keys[0], value.shape, own.shape)])
            return Fitted(own, "random", "another shape in the source", NOTHING)
        return Fitted(value, outcome, "; ".join(part for part in (*reasons, origin) if part))

    def _head(self, keys: tuple[str, ...], own: Tensor) -> Fitted:
        """A tensor of a segmentation head."""
        if not self.keep_heads:
            return Fitted(own, "random", "heads are not kept", NOTHING)
        outputs = outputs_of(self.source)
        if outputs in PRETEXTS:
            return Fitted(own, "random", f"the source's heads {PRETEXTS[outputs]}", NOTHING)
        found = self._found_head(keys)
        if found is None:
            return Fitted(own, "random", "the source has no such head", NOTHING)
        if self.origin is None or outputs == UNNAMED:
            return Fitted(own, "random", "the source does not say which labels its heads stand for", NOTHING)
        fitted = adapted_head(own, self.given[found], self.target.head_rows(), self.origin.head_rows())
        if fitted.outcome == "random":
            return fitted
        self.used.add(found)
        origin = "" if found in keys else f"from the source's {_differing_part(keys[0], found)}"
        return fitted._replace(reason="; ".join(part for part in (fitted.reason, origin) if part))

    def _left_out(self, names: Iterable[str]) -> str:
        """Why a reader did not take the part of the source's network that has a tensor's names; empty if it did.

        A tensor of the encoder has names in the decoder, too, which refers to it.
        """
        reasons: Mapping[str, str] = self.source.get(KEY, {}).get(LEFT_OUT, {})
        return next((why for part, why in reasons.items() if all(name.startswith(part) for name in names)), "")

    def _shifted(self, name: str) -> str:
        """The source's name of a tensor of a decoder, whose stages are numbered from the lowest resolution."""
        if self.level_shift and (match := LEVEL.fullmatch(name)):
            return f"{match[1]}{int(match[2]) + self.level_shift}{match[3]}"
        return name

    def _names(self, keys: tuple[str, ...]) -> list[str]:
        """What the source may call a tensor: one of its own names, else the one of a plain U-Net."""
        return [name for name in (*keys, *map(self.stock_key, keys)) if name is not None]

    def _found_head(self, keys: tuple[str, ...]) -> str | None:
        """The source's head of the same resolution, counted from the full one, which is the last."""
        own_decoder, level, rest = head_level(keys[0])
        from_full = self.own_head_counts[own_decoder] - level
        for decoder in (head_level(name)[0] for name in self._names(keys) if is_head(name)):
            name = f"{decoder}{self.source_head_counts.get(decoder, 0) - from_full}.{rest}"
            if name in self.given:
                return name
        return None

    def _unused(self) -> list[AdaptedTensor]:
        """The source's tensors that nothing was taken from under any of their names."""
        report = []
        for keys, tensor in aliases(self.given):
            if not self.used.intersection(keys):
                reason = "not taken over" if is_head(keys[0]) else "the network has no such tensor"
                report.append(AdaptedTensor(keys[0], "unused", reason, tuple(tensor.shape)))
        return report

    def _refusal(self, differences: Mapping[str, str]) -> str:
        number = len(self.mismatches)
        message = f"The source's weights do not fit the network; {number} tensors differ:{listed(self.mismatches)}\n"
        if self.origin is None:
            return (
                f"{message}The source has no init_args, so its plans are not known. Name a checkpoint that nnU-Net has "
                "written, or write the source's architecture into the target's plans file by hand."
            )
        if not differences:
            return (
                f"{message}The plans have the same architecture, so the trainers build different networks; the "
                f"source's is {self.source.get('trainer_name', 'unknown')}. Use a trainer with the source's network."
            )
        message += f"The architectures in the plans differ ({self.origin.name} -> {self.target.name}):"
        message += listed([f"{key}: {change}" for key, change in differences.items()], len(differences))
        fitting = configurations_with_architecture(self.origin, self.target)
        if fitting:
            return message + f"\nThe target's plans have the source's architecture in: {', '.join(fitting)}. Use that."
        message += "\nGive the target dataset a configuration with the source's architecture, and use that:"
        message += listed(like_commands(self.origin, self.target), 2)
        message += "\nOr take what fits: nnunet_ext adapt-weights --partial (see --dry-run first)."
        return message


def aliases(weights: Mapping[str, Tensor]) -> list[tuple[tuple[str, ...], Tensor]]:
    """The tensors of a state dict, each once, with all of its names: a decoder of nnU-Net refers to its encoder."""
    groups: dict[Any, tuple[list[str], Tensor]] = {}
    for key, tensor in weights.items():
        identity: Any = id(tensor)
        if tensor.numel() > 0 and tensor.data_ptr() != 0:
            # common to all names, even where a file or ``detach`` gave each a tensor object
            identity = tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()
        groups.setdefault(identity, ([], tensor))[0].append(key)
    return [(tuple(keys), tensor) for keys, tensor in groups.values()]


def _random_entries(name: str, weight: Tensor, masks: Mapping[str, Tensor]) -> Tensor:
    """1 for the entries of a weight that are random by the masks of a file, 0 for the others."""
    try:
        return (~masks.get(name, ALL)).expand(weight.shape).float()
    except (AttributeError, RuntimeError, TypeError):
        raise UserError(
            f"The file says of {name} which entries are random, in a way that does not fit it. It was changed after "
            "`nnunet_ext adapt-weights`: make it again."
        ) from None


def _first_convolution(weights: Mapping[str, Tensor]) -> set[str]:
    """Every name of the convolution that reads the image: the first tensor of a network with spatial dimensions."""
    return next((set(keys) for keys, tensor in aliases(weights) if tensor.ndim >= 4), set())


def _levels(weights: Iterable[str]) -> int:
    """The number of a decoder's stages."""
    found = [int(match[2]) for key in weights if (match := LEVEL.fullmatch(key)) and key.startswith("decoder.")]
    return max(found, default=-1) + 1


def _without_channels(weight: Tensor) -> tuple[int, ...]:
    return (weight.shape[0], *weight.shape[2:])


def _differing_part(key: str, found: str) -> str:
    """``found`` without the end that it shares with ``key``: from which part of the source a tensor comes."""
    own, other = key.split("."), found.split(".")
    shared = 0
    while shared < min(len(own), len(other)) - 1 and own[-1 - shared] == other[-1 - shared]:
        shared += 1
    return ".".join(other[: len(other) - shared])
