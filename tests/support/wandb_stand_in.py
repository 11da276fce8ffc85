"""A stand-in for the module `wandb`, as far as nnU-Net's logger uses it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any


class Config(dict):
    """A run's configuration, which lets nobody change what is set, as that of wandb 0.31."""

    def update(self, values: dict[str, Any]) -> None:  # type: ignore[override]
        changed = [key for key, value in values.items() if key in self and self[key] != value]
        if changed:
            raise ValueError(f"Attempted to change value of {changed}")
        super().update(values)


class WandbStandIn:
    """In place of the module `wandb`: keeps what is logged, by the runs' ids, and forgets steps that are over."""

    def __init__(self) -> None:
        self.history: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
        self.configs: dict[str, Config] = defaultdict(Config)
        self.started: list[dict[str, Any]] = []

    def init(self, **arguments: Any) -> SimpleNamespace:
        name = arguments["id"] or f"run{len(self.history)}"
        assert (arguments["resume"] == "allow") or name not in self.history
        self.started.append(arguments)
        file = Path(arguments["dir"], "wandb", "latest-run", f"run-{name}.wandb")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        rows = self.history[name]

        def log(values: dict[str, float], step: int) -> None:
            assert all(isinstance(float(value), float) for value in values.values())
            if step >= max(rows, default=0):
                rows.setdefault(step, {}).update(values)

        return SimpleNamespace(step=max(rows, default=-1) + 1, log=log, config=self.configs[name], summary={})
