"""``nnUNet_extTrainer``: unset, wrong in one of the ways that people get it wrong, or right."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_ext.diagnosis.shell import Shell, set_command
from nnunet_ext.findings import Finding, Severity
from nnunet_ext.registration import VARIABLE, discovery_folder, extended_value

FOR_GOOD = "`nnunet_ext register --environment` sets it whenever this environment is activated."


@dataclass(frozen=True)
class Entry:
    """One folder of ``nnUNet_extTrainer``."""

    raw: str  # the entry as it stands
    kept: str  # what should stand there instead; empty if the entry should go
    fault: str = ""  # what is wrong with it, as the end of a sentence; empty if nothing is
    ours: bool = False  # whether it is this package's folder or was meant to be
    harmful: bool = False  # whether nnU-Net would use it to bad effect, and not only pass over it


def _is_package(folder: Path) -> bool:
    return folder.name == "nnunet_ext" and (folder / "discovery").is_dir()


def wrong_guess(path: Path) -> str:
    """Why a folder (absolute) that was plausibly meant to be ours does not work; empty if it is no such folder."""
    unknown = "nnU-Net forgets what it imports from there, so that it cannot be passed to worker processes"
    if path.name in ("site-packages", "dist-packages"):
        return f"is Python's {path.name}: nnU-Net would import every module installed there"
    if _is_package(path):
        return f"is the package nnunet_ext itself: {unknown}"
    if _is_package(path / "nnunet_ext"):
        return "is the folder around the package: nnU-Net would run everything in it, setup.py and tests too"
    if _is_package(path.parent):
        if path.name == "discovery" and path != discovery_folder():
            return "belongs to another copy of nnunet_ext than the one that Python imports"
        if path.name != "discovery":
            return f"is the package's {path.name}/: {unknown}"
    if path.is_file() and path.parent.name == "discovery" and _is_package(path.parent.parent):
        return "is the module in this package's folder; nnU-Net needs the folder"
    return ""


def read_entry(raw: str) -> Entry:
    """Judge one entry of the variable as nnU-Net takes it: literally."""
    bare = raw.strip().strip("'\"").strip()
    expanded = os.path.expanduser(bare)
    path = Path(expanded).resolve()
    if guess := wrong_guess(path):
        return Entry(raw, "", guess, ours=True, harmful=raw == expanded and path.is_dir())
    ours = path == discovery_folder()
    kept = os.path.abspath(expanded) if path.is_dir() else ""
    if bare != raw:
        return Entry(raw, kept, "has blanks or quotes around it, which nnU-Net takes for part of the name", ours)
    if bare.startswith("~"):
        return Entry(raw, kept, "starts with ~, which nnU-Net does not expand", ours)
    if path.is_file():
        return Entry(raw, "", "is a file; nnU-Net needs a folder")
    if not kept:
        return Entry(raw, "", "does not exist; nnU-Net passes over it")
    if not os.path.isabs(expanded):
        return Entry(raw, kept, "is relative: nnU-Net finds it only when started from here", ours)
    return Entry(raw, raw, ours=ours)


def read_entries(value: str) -> list[Entry]:
    """The entries of the variable, in their order; empty ones mean nothing to nnU-Net and are left out."""
    return [read_entry(raw) for raw in value.split(os.pathsep) if raw.strip()]


def fixed_folders(value: str, *, ours_first: bool = False) -> list[str]:
    """The folders the variable should hold: faulty ones corrected or dropped, our own added or put first."""
    ours = str(discovery_folder())
    wanted = [ours if entry.ours and entry.kept else entry.kept for entry in read_entries(value)]
    folders = list(dict.fromkeys(folder for folder in wanted if folder))
    if ours_first:
        return [ours, *(folder for folder in folders if folder != ours)]
    return folders if ours in folders else [*folders, ours]


def fix_variable(value: str, shell: Shell, *, ours_first: bool = False) -> str:
    """The command that sets ``nnUNet_extTrainer`` right."""
    fixed = os.pathsep.join(fixed_folders(value, ours_first=ours_first))
    if shell == "posix" and fixed == extended_value(value):
        return f'export {VARIABLE}="$(nnunet_ext path)"'
    if shell == "posix" and fixed == str(discovery_folder()):
        return f'export {VARIABLE}="$(nnunet_ext path --only)"'
    return set_command(VARIABLE, fixed, shell)


def check_variable(environ: Mapping[str, str], shell: Shell) -> list[Finding]:
    """Will nnU-Net look into this package's folder?"""
    value = environ.get(VARIABLE, "")
    fix = fix_variable(value, shell)
    entries = read_entries(value)
    if not entries:
        state = "is empty" if VARIABLE in environ else "is not set"
        unknown = f"{state}: nnU-Net does not know where this package's trainers are. {FOR_GOOD}"
        return [Finding("problem", VARIABLE, unknown, fix)]
    positions = [i for i, entry in enumerate(entries) if entry.ours and not entry.fault]
    findings = []
    for i, entry in enumerate(entries):
        if entry.fault:
            in_the_way = entry.harmful and (not positions or i < positions[0])
            missed = entry.ours and not positions
            severity: Severity = "problem" if in_the_way or missed else "warning"
            findings.append(Finding(severity, VARIABLE, f"its entry {entry.raw!r} {entry.fault}.", fix))
    if positions:
        findings.append(Finding("ok", VARIABLE, f"holds this package's folder, {entries[positions[0]].raw}"))
    elif not any(entry.ours for entry in entries):
        findings.append(Finding("problem", VARIABLE, f"does not hold this package's folder. {FOR_GOOD}", fix))
    return findings
