"""Where the sweeps of these tests are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nnunet_ext.cli import main
from support.sweeps import StandIn, nnunet

__all__ = ["folder", "nnunet"]


@pytest.fixture
def folder(tmp_path: Path, nnunet: StandIn) -> Iterator[Path]:
    """Where a sweep may be; whatever it started is ended after the test."""
    path = tmp_path / "sweep ü x"
    yield path
    for file in nnunet.folder.glob("hold *"):
        file.unlink()
    if (path / "pool.claim").is_file():
        assert main(["jobs", "stop", str(path)]) == 0
