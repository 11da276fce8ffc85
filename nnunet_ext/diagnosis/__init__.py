"""What can be wrong with an installation, and the command that fixes it. Importing it imports no torch or nnunetv2."""

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from nnunet_ext.diagnosis import installation
from nnunet_ext.diagnosis.child import ask
from nnunet_ext.diagnosis.folders import check_folders, check_workers
from nnunet_ext.diagnosis.shell import shell_of
from nnunet_ext.diagnosis.trainers import check_trainers
from nnunet_ext.diagnosis.variable import check_variable
from nnunet_ext.findings import Finding


def diagnose(environ: Mapping[str, str]) -> Iterator[Finding]:
    """All checks of an environment, quick ones first; each finding as soon as it is there."""
    shell = shell_of(environ)
    yield installation.check_python(sys.version_info[:3])
    nnunet = installation.check_nnunet(installation.installed_version("nnunetv2"))
    yield nnunet
    optional = {name: installation.installed_version(name) for name in installation.OPTIONAL}
    yield from installation.check_optional(optional)
    yield from check_variable(environ, shell)
    yield from installation.check_copies(Path(__file__).resolve().parents[1], sys.path)
    yield from check_folders(environ, shell)
    yield from check_workers(environ, shell)
    torch = installation.check_torch(ask("torch", None, environ), shutil.which("nvidia-smi") is not None)
    yield torch
    if "problem" in (nnunet.severity, torch.severity):
        detail = "not looked up: nnunetv2 and torch come first. Run this again when they are fixed."
        yield Finding("warning", "trainers", detail, "nnunet_ext doctor")
    else:
        yield from check_trainers(environ, shell)
