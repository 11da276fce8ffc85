"""nnU-Net's data folders and worker processes."""

import os
import tempfile
from collections.abc import Callable, Mapping

from nnunet_ext.diagnosis.shell import Shell, make_folder_command, new_folder_command, set_command, unset_command
from nnunet_ext.findings import Finding

NUMBERS = {
    "nnUNet_n_proc_DA": "planning fails with it. Set it for nnUNetv2_train only.",
    "nnUNet_def_n_proc": "preprocessing and prediction need a process at least.",
}
"""Variables with numbers of processes, and what is said of numbers below 1."""


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
    """Is one of nnU-Net's folders set, there, and usable? `purpose` is what nnU-Net does with it."""
    value, fix = environ.get(name, ""), new_folder_command(name, shell)
    bare = os.path.expanduser(value.strip().strip("'\"").strip())
    if not value.strip():
        detail = f"is not set; {purpose}."
    elif bare != value:
        detail = f"{value!r} has a ~, blanks or quotes, which nnU-Net takes literally."
        fix = set_command(name, bare, shell)
    elif not os.path.exists(value):
        detail, fix = f"{value} does not exist; {purpose}.", make_folder_command(value, shell)
    elif not os.path.isdir(value):
        detail = f"{value} is a file; {purpose}."
    elif reason := failure(value):
        detail = f"{value} {reason}; {purpose}."
    elif not os.path.isabs(value):
        detail = f"{value} is relative: it is this folder only where you are now."
        return Finding("warning", name, detail, set_command(name, os.path.abspath(value), shell))
    else:
        return Finding("ok", name, value)
    return Finding("problem", name, detail, fix)


def check_folders(environ: Mapping[str, str], shell: Shell) -> list[Finding]:
    """Check nnUNet_raw, nnUNet_preprocessed and nnUNet_results."""
    wanted = (
        ("nnUNet_raw", "planning and preprocessing read the images from it", read_failure),
        ("nnUNet_preprocessed", "preprocessing writes into it and training reads from it", write_failure),
        ("nnUNet_results", "training writes models into it and prediction reads them", write_failure),
    )
    return [check_folder(environ, name, purpose, shell, failure=failure) for name, purpose, failure in wanted]


def check_workers(environ: Mapping[str, str], shell: Shell) -> list[Finding]:
    """Do nnU-Net's numbers of worker processes, if set, suit every command of it?"""
    return [_check_number(name, environ[name], shell) for name in NUMBERS if name in environ]


def _check_number(name: str, value: str, shell: Shell) -> Finding:
    try:
        if int(value) >= 1:
            return Finding("ok", name, value)
    except ValueError:
        detail = f"{value!r} is not a whole number; nnU-Net's commands end with a ValueError."
        return Finding("problem", name, detail, unset_command(name, shell))
    return Finding("warning", name, f"is {value}: {NUMBERS[name]}", unset_command(name, shell))
