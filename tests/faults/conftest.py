"""What an undisturbed run of each command gives, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from faults.commands import Written, undisturbed_run
from fuzz.commands import Command

Expected = Callable[[Command], tuple[Written, float]]


@pytest.fixture(scope="session")
def expected(valid: Path, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """The undisturbed run of each command, and its seconds."""
    return cache(lambda command: undisturbed_run(command, valid, tmp_path_factory.mktemp("expected")))
