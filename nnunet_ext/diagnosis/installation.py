"""Python, nnunetv2, torch, and copies of this package: are they there, recent enough, and there once?"""

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from nnunet_ext.diagnosis.child import Answer
from nnunet_ext.findings import Finding
from nnunet_ext.version import FIRST_UNKNOWN_NNUNET, OLDEST_NNUNET, OLDEST_PYTHON, OLDEST_TORCH

OPTIONAL = {"peft": "nnUNetTrainerLoRA", "submitit": "nnunet_ext jobs on Slurm"}
"""Optional libraries, and what needs each."""
FIX_NNUNET = 'pip install -U "nnunetv2>=2.8,<3"'
FIX_TORCH = 'pip install -U "torch>=2.6,!=2.9.*"'
# not by its name: no index has this package yet
FIX_PACKAGE = "pip install --force-reinstall --no-deps CHECKOUT_OR_WHEEL_OF_NNUNET_EXT"


def release_of(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: ``2.8.1rc1+cu121`` gives (2, 8, 1)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def installed_version(distribution: str) -> str | None:
    """The version of an installed distribution, None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def check_python(version: Sequence[int]) -> Finding:
    """Is this Python recent enough?"""
    found = ".".join(str(part) for part in version[:3])
    if tuple(version[:2]) >= OLDEST_PYTHON:
        return Finding("ok", "Python", found)
    detail = f"found {found}; this package and nnunetv2 2.8 need Python >= 3.10."
    return Finding("problem", "Python", detail, "conda create -n nnunet python=3.12 && conda activate nnunet")


def check_nnunet(version: str | None) -> Finding:
    """Is nnunetv2 there, and one that looks for trainers outside itself?"""
    if version is None:
        return Finding("problem", "nnunetv2", "not installed in this Python environment.", FIX_NNUNET)
    if OLDEST_NNUNET <= release_of(version) < FIRST_UNKNOWN_NNUNET:
        return Finding("ok", "nnunetv2", version)
    detail = f"found {version}; this package needs nnunetv2 >= 2.8, < 3. "
    return Finding("problem", "nnunetv2", f"{detail}Before 2.8, nnU-Net finds its own trainers alone.", FIX_NNUNET)


def check_torch(answer: Answer, has_nvidia_driver: bool) -> Finding:
    """Does torch import by the child's answer, is it recent enough, and which devices does it see?"""
    if answer.error:
        return Finding("problem", "torch", f"cannot be imported: {answer.error}", FIX_TORCH)
    version, gpus, has_mps = answer.result["version"], answer.result["cuda"], answer.result["mps"]
    if release_of(version) < OLDEST_TORCH:
        return Finding("problem", "torch", f"found {version}; torch >= 2.6 is needed.", FIX_TORCH)
    if release_of(version)[:2] == (2, 9):
        return Finding("warning", "torch", f"found {version}; nnunetv2 rules torch 2.9 out.", FIX_TORCH)
    if gpus:
        return Finding("ok", "torch", f"{version}, device cuda: {', '.join(gpus)}")
    if has_mps:
        return Finding("ok", "torch", f"{version}, device mps: add -device mps to nnU-Net's commands")
    detail = f"{version}, device cpu only: add -device cpu to nnU-Net's commands"
    if has_nvidia_driver:
        detail += (
            ". nvidia-smi is installed, but this torch sees no GPU: it is a CPU build, the driver is too old for it, "
            "or CUDA_VISIBLE_DEVICES hides the GPU. On Windows, install as PyTorch's own page says for CUDA."
        )
        return Finding("warning", "torch", detail, "pip install --force-reinstall torch")
    return Finding("ok", "torch", detail)


def check_optional(versions: Mapping[str, str | None]) -> list[Finding]:
    """Which optional libraries are there, by name and version (None: not), and what needs the others."""
    missing = "not installed, which is fine: only {} needs it (pip install -U {})."
    return [Finding("ok", name, versions[name] or missing.format(user, name)) for name, user in OPTIONAL.items()]


def check_copies(imported: Path, search_path: Sequence[str]) -> list[Finding]:
    """Is there another package of this name on the search path, which other programs could import?"""
    folders = {Path(entry or ".").resolve() / "nnunet_ext" for entry in search_path}
    others = sorted(folder for folder in folders if any(folder.glob("*.py")) and folder.resolve() != imported)
    if not others:
        return [Finding("ok", "package", f"nnunet_ext is imported from {imported}")]
    return [_other_copy(folder, imported) for folder in others]


def _other_copy(folder: Path, imported: Path) -> Finding:
    if (folder / "network_architecture").is_dir() and (folder / "run").is_dir():
        detail = f"{folder} is Lifelong-nnUNet (for nnU-Net v1), which has the same import name; this package is "
        detail += f"imported from {imported}. Give this package an environment of its own."
        return Finding("warning", "package", detail, "python -m venv nnunet-ext-env")
    detail = f"two copies are installed: {imported} is running now, {folder} is on Python's path too, and other "
    detail += "programs may import that one. The command removes one copy; install again if it was the wrong one."
    return Finding("warning", "package", detail, "pip uninstall nnunet-ext")
