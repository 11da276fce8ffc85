"""Fitting a network's first convolution to other input channels."""

from __future__ import annotations

from torch import Tensor


def adapted_input(
    weight: Tensor, n_target: int, source_names: tuple[str, ...], target_names: tuple[str, ...]
) -> tuple[Tensor, str]:
    """The first convolution for another set of input channels.

    With the same channel names in another order the channels change places. With another number of channels, each gets
    the mean over the source's channels times n_source / n_target, so that an image whose channels are all equal gives
    the same features as before. Otherwise nothing changes.

    Args:
        weight: of the source, (features, n_source, [X,] Y, Z).
        n_target: number of input channels.
        source_names: of the source's channels; ignored if they are not n_source.
        target_names: of the target's channels; ignored if they are not n_target.

    Returns:
        The weight, (features, n_target, [X,] Y, Z), and what was done; empty if it is as it was and the names agree.
    """
    n_source = weight.shape[1]
    named = len(source_names) == n_source and len(target_names) == n_target
    if n_source != n_target:
        reason = f"{n_source} -> {n_target} input channels: each gets the mean of the source's, times "
        reason += f"{n_source}/{n_target}"
        shared = [name for name in dict.fromkeys(target_names) if name in source_names] if named else []
        if shared:
            reason += f" (so does {', '.join(shared)}, which both have)"
        mean = weight.mean(dim=1, keepdim=True) * (n_source / n_target)
        return mean.repeat_interleave(n_target, dim=1), reason
    if not named or source_names == target_names:
        return weight, ""
    if sorted(source_names) == sorted(target_names):
        # of a name that occurs several times, the next one
        places = {name: iter([i for i, one in enumerate(source_names) if one == name]) for name in source_names}
        order = [next(places[name]) for name in target_names]
        return weight[:, order], f"input channels in the order {', '.join(target_names)}"
    return weight, f"input channels {', '.join(source_names)} serve as {', '.join(target_names)}"
