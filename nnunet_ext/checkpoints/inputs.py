"""Fitting a network's first convolution to other input channels."""

from typing import Literal

import torch
from torch import Tensor

from nnunet_ext.checkpoints.outcome import Fitted

ChannelRule = Literal["mean", "name"]

OF_PREVIOUS_STAGE, OF_PRIOR_SCAN = " of the previous stage", " of the prior scan"
"""What the names of channels of labels, one-hot, end in: a cascade's second stage reads those of the first one, and a
longitudinal dataset has those of the prior scan."""


def adapted_input(
    own: Tensor,
    weight: Tensor,
    source_names: tuple[str, ...],
    target_names: tuple[str, ...],
    *,
    rule: ChannelRule = "mean",
) -> Fitted:
    """The first convolution for another set of input channels.

    With the same channel names in another order the channels change places. With another number of channels, each gets
    the mean over the source's channels times n_source / n_target, so that an image whose channels are all equal gives
    the same features as before; under the rule ``name``, those that the source has by name keep their weights, and the
    others stay random. Labels of a previous stage or scan are no image: they always go by name. Otherwise nothing
    changes.

    Args:
        own: the network's, (features, n_target, [X,] Y, Z).
        weight: of the source, (features, n_source, [X,] Y, Z).
        source_names: of the source's channels; ignored if they are not n_source.
        target_names: of the target's channels; ignored if they are not n_target.
        rule: for another number of channels. Without a common name, ``name`` does as ``mean``.
    """
    n_source, n_target = weight.shape[1], own.shape[1]
    if len(source_names) != n_source != n_target == len(target_names) and any(map(_is_label, target_names)):
        source_names = tuple(f"channel {number}" for number in range(n_source))  # bare weights are taken for images'
    named = len(source_names) == n_source and len(target_names) == n_target
    shared = [name for name in dict.fromkeys(target_names) if name in source_names] if named else []
    if n_source != n_target and rule == "name" and shared:
        return _by_name(own, weight, source_names, target_names)
    labels, own_labels = (sorted(filter(_is_label, names)) for names in (source_names, target_names))
    if named and (labels != own_labels or (labels and n_source != n_target)):
        return _labels_apart(own, weight, source_names, target_names)
    if n_source != n_target:
        reason = f"{n_source} -> {n_target} input channels: each gets the mean of the source's, times "
        reason += f"{n_source}/{n_target}"
        if shared:
            reason += f" (so does {', '.join(shared)}, which both have)"
        mean = weight.mean(dim=1, keepdim=True) * (n_source / n_target)
        return Fitted(mean.repeat_interleave(n_target, dim=1), "adapted", reason)
    if not named or source_names == target_names:
        return Fitted(weight, "copied", "")
    if sorted(source_names) == sorted(target_names):
        order = [place for place in _places(source_names, target_names) if place is not None]
        return Fitted(weight[:, order], "adapted", f"input channels in the order {', '.join(target_names)}")
    return Fitted(weight, "copied", f"input channels {', '.join(source_names)} serve as {', '.join(target_names)}")


def _places(source_names: tuple[str, ...], target_names: tuple[str, ...]) -> list[int | None]:
    """The source's channel of each name, of a name that occurs several times the next one; None without one."""
    places = {name: iter([i for i, one in enumerate(source_names) if one == name]) for name in source_names}
    return [next(places.get(name, iter(())), None) for name in target_names]


def _by_name(own: Tensor, weight: Tensor, source_names: tuple[str, ...], target_names: tuple[str, ...]) -> Fitted:
    result, known = own.clone(), torch.zeros(1, own.shape[1], *[1] * (own.ndim - 2), dtype=torch.bool)
    places = _places(source_names, target_names)
    for channel, place in enumerate(places):
        if place is not None:
            result[:, channel] = weight[:, place]
            known[:, channel] = True
    by_name, rest = ([name for name, one in zip(target_names, places) if (one is None) is new] for new in (False, True))
    random = f"; random: {', '.join(rest)}" if rest else ""
    return Fitted(result, "adapted", f"input channels by name: {', '.join(by_name)}{random}", known)


def _is_label(name: str) -> bool:
    return name.endswith((OF_PREVIOUS_STAGE, OF_PRIOR_SCAN))


def _labels_apart(own: Tensor, weight: Tensor, source_names: tuple[str, ...], target_names: tuple[str, ...]) -> Fitted:
    """Image channels by the rule ``mean``; labels of a previous stage or scan by name, the others random."""
    images, source_images = (
        [place for place, name in enumerate(names) if not _is_label(name)] for names in (target_names, source_names)
    )
    fitted = adapted_input(
        own[:, images],
        weight[:, source_images],
        tuple(source_names[place] for place in source_images),
        tuple(target_names[place] for place in images),
    )
    result, known = own.clone(), torch.zeros(1, own.shape[1], *[1] * (own.ndim - 2), dtype=torch.bool)
    result[:, images], known[:, images] = fitted.value.to(own.dtype), fitted.known
    random = []
    for place, name in enumerate(target_names):
        if not _is_label(name):
            continue
        if name in source_names:
            result[:, place], known[:, place] = weight[:, source_names.index(name)], True
        else:
            random.append(name)
    unused = [name for name in source_names if _is_label(name) and name not in target_names]
    parts = [fitted.reason or "image channels copied"]
    parts += [f"random: {', '.join(random)}"] * bool(random) + [f"left out: {', '.join(unused)}"] * bool(unused)
    return Fitted(result, "adapted", "; ".join(parts), known)
