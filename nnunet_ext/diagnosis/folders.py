"""nnU-Net's data folders and worker processes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping

from nnunet_ext.diagnosis.shell import Shell, make_folder_command, new_folder_command, set_command, unset_command
from nnunet_ext.findings import Finding


def read_failure(folder: str) -> str:
    """Why a folder's content cannot be listed; empty if it can."""
    try:
        os.listdir(folder)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return ""


def write_failure(folder: str) -> str:
    """Why no file can be written into a folder; empty if one can. It is tried: `os.access` says yes to root."""
    try:
        with tempfile.NamedTemporaryFile(prefix=".nnunet_ext_doctor_", dir=folder) as file:
            file.write(b"0")
    except OSError as error:
        return f"cannot be written into ({error.strerror or error})"
    return ""


def check_folder(
    environ: Mapping[str, str], name: str, purpose: str, shell: Shell, *, failure: Callable[[str], str]
) -> Finding:
    """Is one of nnU-Net's folders set, there, and usable?

    Args:
        environ: the environment.
        name: the variable, such as ``nnUNet_raw``.
        purpose: what nnU-Net does with it, as the end of a sentence.
        shell: for the command that fixes it.
        failure: `read_failure` or `write_failure`.
    """
    value = environ.get(name, "")
    if not value.strip():
        return Finding("problem", name, f"is not set; {purpose}.", new_folder_command(name, shell))
    bare = os.path.expanduser(value.strip().strip("'\"").strip())
    if bare != value:
        detail = f"{value!r} has a ~, blanks or quotes, which nnU-Net takes literally."
        return Finding("problem", name, detail, set_command(name, bare, shell))
    if not os.path.exists(value):
        return Finding("problem", name, f"{value} does not exist; {purpose}.", make_folder_command(value, shell))
    if not os.path.isdir(value):
        return Finding("problem", name, f"{value} is a file; {purpose}.", new_folder_command(name, shell))
    if reason := failure(value):
        return Finding("problem", name, f"{value} {reason}; {purpose}.", new_folder_command(name, shell))
    return Finding("ok", name, value)


def check_folders(environ: Mapping[str, str], shell: Shell) -> list[Finding]:
    """Check nnUNet_raw, nnUNet_preprocessed and nnUNet_results."""
    wanted = (
        ("nnUNet_raw", "planning and preprocessing read the images from it", read_failure),
        ("nnUNet_preprocessed", "preprocessing writes into it and training reads from it", write_failure),
        ("nnUNet_results", "training writes models into it and prediction reads them", write_failure),
    )
    return [check_folder(environ, name, purpose, shell, failure=failure) for name, purpose, failure in wanted]


def check_workers(environ: Mapping[str, str], shell: Shell) -> list[Finding]:
    """Does nnUNet_n_proc_DA, if set, hold a number that every command of nnU-Net can use?"""
    name = "nnUNet_n_proc_DA"
    value = environ.get(name)
    if value is None:
        return []
    try:
        works = int(value) >= 1
    except ValueError:
        detail = f"{value!r} is not a whole number; nnU-Net's commands end with a ValueError."
        return [Finding("problem", name, detail, unset_command(name, shell))]
    if works:
        return [Finding("ok", name, value)]
    detail = f"is {value}: planning fails with it. Set it for nnUNetv2_train only."
    return [Finding("warning", name, detail, unset_command(name, shell))]
