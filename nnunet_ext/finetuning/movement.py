"""What moved in a training: which entries of each parameter ever changed, and their share by role."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nnunet_ext.finetuning.roles import Role


@dataclass(frozen=True)
class Share:
    """How many of some entries moved."""

    moved: int
    entries: int

    @property
    def fraction(self) -> float:
        """Moved entries over all, between 0 and 1."""
        return self.moved / self.entries


class Movement:
    """Remembers, one boolean for each entry in main memory, which entries ever changed.

    Looking is a comparison with the values at the last look, so an entry counts as moved if it differs at any look from
    the look before. Nothing of it lives on the device.
    """

    def __init__(self, roles: Mapping[str, Role], shapes: Mapping[str, torch.Size]) -> None:
        """Watch the parameters that `roles` and `shapes` are of, by name."""
        self.roles = dict(roles)
        self._moved = {name: np.zeros(tuple(shapes[name]), dtype=bool) for name in roles}
        self._last: dict[str, Tensor] = {}

    def start(self, parameters: Mapping[str, Tensor]) -> None:
        """Remember the values to compare with; what has been seen to move stays noted."""
        self._last = {name: parameters[name].detach().to("cpu", copy=True) for name in self.roles}

    def look(self, parameters: Mapping[str, Tensor]) -> None:
        """Note what changed since the last look; `parameters` are the values now, by name."""
        for name in self.roles:
            now = parameters[name].detach().to("cpu", copy=True)
            self._moved[name] |= (now != self._last[name]).numpy()
            self._last[name] = now

    def shares(self) -> dict[str, Share]:
        """The share that moved, by role (those that the network has) and ``all``."""
        by_role: dict[str, Share] = {}
        for name, role in self.roles.items():
            moved = self._moved[name]
            for key in (role.value, "all"):
                so_far = by_role.get(key, Share(0, 0))
                by_role[key] = Share(so_far.moved + int(moved.sum()), so_far.entries + moved.size)
        return {key: by_role[key] for key in [*(role.value for role in Role), "all"] if key in by_role}

    def state(self) -> dict[str, Any]:
        """For a checkpoint: the shares as plain numbers, and the flags of each parameter, eight to a byte."""
        return {
            "shares": {role: [share.moved, share.entries] for role, share in self.shares().items()},
            "flags": {name: torch.from_numpy(np.packbits(moved.ravel())) for name, moved in self._moved.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave."""
        for name, flags in state["flags"].items():
            moved = self._moved[name]
            moved[...] = np.unpackbits(flags.cpu().numpy(), count=moved.size).reshape(moved.shape)


def shares_table(shares: Mapping[str, Share]) -> str:
    """The shares as text, one line each."""
    width = max(map(len, shares))
    rows = (f"  {role:<{width}}  {100 * one.fraction:7.3f} % of {one.entries:,}" for role, one in shares.items())
    return "\n".join(rows)
