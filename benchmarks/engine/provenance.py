"""Where a figure comes from: machine, versions, commit and command, without anything that names a host or a folder."""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from nnunet_ext.machine import available_cores
from nnunet_ext.version import __version__

REPOSITORY = Path(__file__).resolve().parents[2]
COMMIT = "BENCHMARKS_COMMIT"
MEASURED_CODE = ("nnunet_ext", "benchmarks/*.py", "benchmarks/*/*.py")


def cpu_model() -> str:
    """The processor's name, as far as the system tells it."""
    information = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)", information.read_text("utf-8"), re.M) if information.is_file() else None
    return found[1].strip() if found else platform.processor() or platform.machine()


def commit(repository: Path) -> str | None:
    """The commit that is checked out, with a remark if the measured code differs from it.

    The variable BENCHMARKS_COMMIT, for a copy of a working tree, says it in place of git. None if neither does.
    """
    if os.environ.get(COMMIT):
        return os.environ[COMMIT]
    try:
        head = _git(repository, "rev-parse", "HEAD")
        changes = _git(repository, "status", "--porcelain", "--", *MEASURED_CODE)
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head} with uncommitted changes" if changes else head


def _git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def shown_command(command: Sequence[str], placeholders: Mapping[Path, str]) -> str:
    """A command as a line of a shell, with folders of this machine replaced."""
    line = shlex.join(command)
    for folder, placeholder in placeholders.items():
        line = line.replace(str(folder), placeholder)
    return line


def machine_line(device: str) -> str:
    """Machine and versions."""
    machine: dict[str, object] = {"cpu": cpu_model(), "cores": available_cores(), "threads": torch.get_num_threads()}
    machine["system"] = f"{platform.system()} {platform.machine()}"
    if device == "cuda":
        machine["gpu"] = torch.cuda.get_device_name()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "nnunetv2": version("nnunetv2")}
    return f"{', '.join(f'{key} {value}' for key, value in (machine | versions).items())}, nnunet_ext {__version__}"


def provenance_lines(machines: Sequence[str], commands: Sequence[str], *, commits: str | None = None) -> list[str]:
    """Machines with versions, commit (that which is checked out, if no others are given) and commands, as Markdown."""
    lines = [f"- Machine: {machine}" for machine in machines]
    lines += [f"- Commit: {commits or commit(REPOSITORY) or 'not in a git repository'}"]
    return [*lines, "", "```", *commands, "```"]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table that also reads well as plain text: first column left, the others right."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]

    def line(first: str, *others: str) -> str:
        aligned = [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:]))]
        return f"| {' | '.join(aligned)} |"

    rule = ["-" * widths[0], *(f"{'-' * (width - 1)}:" for width in widths[1:])]
    return [line(*header), line(*rule), *(line(*row) for row in rows)]
