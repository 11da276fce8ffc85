"""The page's technique, built by what the page says in a copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.tiny_data import PREPARED

pytestmark = pytest.mark.full

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs" / "add-a-technique.md").read_text(encoding="utf-8"))
NAME = "nnUNetTrainerConfidencePenalty"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the package and of what the tests share, with the page's files and changes."""
    copy = tmp_path / "a copy"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "nnunet_ext", copy / "nnunet_ext", ignore=ignored)
    shutil.copytree(ROOT / "tests" / "support", copy / "tests" / "support", ignore=ignored)
    for name in ("tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copy / name)
    for language, name, body in BLOCKS:
        file = copy / name
        if language == "python":
            assert not file.exists()
            file.parent.mkdir(exist_ok=True)
            file.write_text(body, encoding="utf-8")
        else:
            file.write_text(changed(file.read_text(encoding="utf-8"), body), encoding="utf-8")
    return copy


def changed(text: str, diff: str) -> str:
    """A text after a change, given by lines that begin with a blank (there already) or a plus (new)."""
    lines = diff.splitlines(keepends=True)
    assert all(line[0] in " +" for line in lines)
    before = "".join(line[1:] for line in lines if line[0] == " ")
    assert text.count(before) == 1, f"the page shows lines that are not there once:\n{before}"
    return text.replace(before, "".join(line[1:] for line in lines))


def run(repository: Path, *arguments: str, **variables: str) -> str:
    """What Python prints, run on the copy."""
    environment = {**os.environ, "PYTHONPATH": str(repository), **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_pages_tests_pass(repository: Path, workspace: Any) -> None:
    tests = ["tests/losses/test_confidence.py", "tests/trainers/test_confidence_penalty.py"]
    assert "3 passed" in run(repository, "-m", "pytest", "-q", *tests, **{PREPARED: str(workspace.root)})


def test_the_new_trainer_is_listed_and_found_by_nnunet(repository: Path) -> None:
    assert NAME in run(repository, "-c", "from nnunet_ext.cli import main; main(['list'])")
    (repository / "find.py").write_text(
        "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
        f"print(find({NAME!r}).__module__)"
    )
    discovery = {"nnUNet_extTrainer": str(repository / "nnunet_ext" / "discovery")}
    assert "nnunet_ext.trainers.confidence_penalty" in run(repository, "find.py", **discovery)


def test_the_code_is_clean(repository: Path) -> None:
    files = {name for _, name, _ in BLOCKS}
    run(repository, "-m", "ruff", "check", *files)
    run(repository, "-m", "ruff", "format", "--check", *files)
