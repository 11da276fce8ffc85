"""What an undisturbed run of each command gives, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from faults.commands import expected_result
from fuzz.commands import Command

Expected = Callable[[Command], tuple[dict[str, str], float]]


@pytest.fixture(scope="session")
def expected(valid: Path, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """The result of each command, and its seconds."""
    return cache(lambda command: expected_result(command, valid, tmp_path_factory.mktemp("expected")))
