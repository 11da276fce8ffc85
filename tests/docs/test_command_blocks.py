"""Every block of commands in README and documentation runs, page by page from top to bottom, in a folder that has what
the page takes for granted, and writes what it names. Trainings are two steps long, and run on the CPU."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command_blocks import Folder
from support.scenes import SCENES

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>bash|sh|console|powershell)\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)

NOT_RUN = {
    r"pip install .*": "installing has tests of its own, tests/test_packaging.py",
    r"make .*|(PYTHONPATH=tests )?\.venv/bin/.*|python docs/generate_reference\.py": "what continuous integration runs",
    r"python -m benchmarks[. ].*": "hours of training; tests/benchmarks runs the engine with little",
    r"\$env:.*": "PowerShell",
    r"nnunet_ext register.*": "would change the environment that the tests run in; tests/test_activation.py has others",
    r"nnunet_ext demo.*": "minutes of training; tests/demo runs it with programs that stand in",
    r"nnunet_ext self-train.*": "minutes of training; tests/faults/test_killed_self_training.py runs it",
    r".* -device mps": "needs an Apple GPU",
    r".* -num_gpus 2": "needs two GPUs",
    r".*--slurm.*": "needs Slurm; tests/jobs/test_slurm.py compares what is submitted",
}

REFERENCE = "docs/reference/commands.md"


def parts() -> dict[str, str]:
    """The text of every page by its path; of the page with the examples of ``--help``, that of every command."""
    texts = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
    sections = re.split(r"^## ", texts.pop(REFERENCE), flags=re.MULTILINE)[1:]
    return texts | {f"{REFERENCE}#{section.splitlines()[0]}": section for section in sections}


def lines(text: str) -> Iterator[str]:
    """The commands of a page, without comments and what they print."""
    for match in FENCE.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        for line in re.sub(r"\\\n\s*", "", body).splitlines():
            if match["language"] == "console" and not line.startswith("$ "):
                continue
            if line.strip() and not line.startswith("#"):
                yield line.removeprefix("$ ")


def is_run(line: str) -> bool:
    return not any(re.fullmatch(pattern, line) for pattern in NOT_RUN)


def without_what_stands_in_the_way(folder: Folder, line: str, written: set[Path]) -> None:
    """Remove what an earlier command of the page wrote and this one writes again: a page shows alternatives."""
    target = None if line.startswith(("export ", "nnUNetv2_train")) else folder.target(line)
    if target is None:
        return
    if target in written and line.startswith("nnunet_ext jobs"):
        folder.run(f"nnunet_ext jobs stop {target.name}")
    if target in written and target.is_dir():
        shutil.rmtree(target)
    elif target in written:
        target.unlink()
    written.add(target)


def last_change(target: Path) -> int:
    """When a file, or the newest file below a folder, was written, in ns; 0 if there is none."""
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    return max((file.stat().st_mtime_ns for file in files), default=0)


@pytest.mark.full
@pytest.mark.parametrize("page", sorted(SCENES))
def test_the_commands_of_a_page_run_and_write_what_they_name(
    page: str, workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "a folder"
    root.mkdir()
    folder = Folder(root, workspace, monkeypatch)
    SCENES[page](folder)
    written: set[Path] = set()
    commands = list(filter(is_run, lines(parts()[page])))
    assert commands
    for line in commands:
        without_what_stands_in_the_way(folder, line, written)
        started = time.time_ns()
        folder.run(line)
        target = None if line.startswith("export ") else folder.target(line)
        assert target is None or last_change(target) >= started, f"{line}\nwrote no {target}"


def test_every_page_with_commands_has_a_scene() -> None:
    assert {page for page, text in parts().items() if any(map(is_run, lines(text)))} == set(SCENES)


@pytest.mark.parametrize("pattern", NOT_RUN)
def test_every_exception_is_still_needed(pattern: str) -> None:
    assert any(re.fullmatch(pattern, line) for text in parts().values() for line in lines(text))
