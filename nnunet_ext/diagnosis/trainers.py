"""Does nnU-Net find the trainers, are they ours, and do they survive a worker process?"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_ext.diagnosis.child import ask
from nnunet_ext.diagnosis.installation import FIX_NNUNET, FIX_PACKAGE
from nnunet_ext.diagnosis.shell import Shell
from nnunet_ext.diagnosis.variable import fix_variable, fixed_folders
from nnunet_ext.findings import Finding
from nnunet_ext.registration import VARIABLE, discovery_folder


def check_siblings(folders: Sequence[str], fix: str, environ: Mapping[str, str]) -> list[Finding]:
    """Do the modules in the folders before ours import? One that does not aborts nnU-Net's lookup."""
    if not folders:
        return []
    reply = ask("siblings", list(folders), environ)
    details = [
        f"the module {module['module']} in {module['folder']} fails to import, and that ends nnU-Net's lookup before "
        f"it reaches this package ({module['error']}). Repair the module, or put this package first."
        for module in reply.result or ()
    ]
    if reply.error:
        details = [f"importing the modules in {', '.join(folders)}, as nnU-Net does, failed: {reply.error}"]
    return [Finding("problem", "other trainers", detail, fix) for detail in details]


def check_found(name: str, found: Mapping[str, Any], folders: Sequence[str], fix: str) -> Finding | None:
    """What is wrong with what the job ``find`` says of a trainer; None if it is ours. `fix` puts our folder first."""
    used_fix = FIX_PACKAGE
    if "error" in found:
        detail = f"nnU-Net's lookup of {name} failed: {found['error']}"
    elif found["class"].startswith("nnunetv2."):
        detail = f"name clash: nnU-Net has a {name} of its own, {found['class']}, which wins. If somebody copied it "
        detail += "into nnunetv2, remove that file."
    elif not found["class"].startswith("nnunet_ext.trainers."):
        where = source_of(found["module"], folders) or found["class"]
        detail = f"name clash: an earlier folder of {VARIABLE} has a {name}, too, and that one wins: {where}"
        used_fix = fix
    elif not found["again"]:
        detail = f"a second lookup of {name} gives another class than the first."
    elif "unpicklable" in found:
        detail = f"{name} cannot be passed to worker processes: {found['unpicklable']}"
    else:
        return None
    return Finding("problem", "trainers", detail, used_fix)


def source_of(module: str, folders: Sequence[str]) -> str:
    """The file of a module that lies in one of the folders; empty if it lies elsewhere."""
    files = (Path(folder, *module.split(".")).with_suffix(".py") for folder in folders)
    return next((str(file) for file in files if file.is_file()), "")


def check_loaded(name: str, expected: str, loaded: str) -> Finding | None:
    """What is wrong with a trainer in a worker process; None if it is the same there."""
    if loaded == expected:
        return None
    detail = f"{name} ({expected}) does not reach a worker process; there it is: {loaded}"
    return Finding("problem", "trainers", detail, FIX_PACKAGE)


def check_trainers(environ: Mapping[str, str], shell: Shell, names: Sequence[str] | None = None) -> list[Finding]:
    """Look trainers up (None: every one of this package) as nnU-Net's commands do, and pass them to a worker process.

    It is done with the variable as `fix_variable` would set it, so that one mistake there does not hide others here.
    """
    value = environ.get(VARIABLE, "")
    folders = fixed_folders(value)
    fix = fix_variable(value, shell, ours_first=True)
    findings = check_siblings(folders[: folders.index(str(discovery_folder()))], fix, environ)
    if findings:
        folders = fixed_folders(value, ours_first=True)
    environ = {**environ, VARIABLE: os.pathsep.join(folders)}
    reply = ask("find", names, environ)
    if reply.error:
        detail = f"nnU-Net's lookup cannot be used: {reply.error}"
        return [*findings, Finding("problem", "trainers", detail, f"{FIX_NNUNET} --force-reinstall")]
    wrong = {n: finding for n, found in reply.result.items() if (finding := check_found(n, found, folders, fix))}
    good = {name: found for name, found in reply.result.items() if name not in wrong}
    findings.extend(wrong.values())
    if not good:
        return findings
    loaded = ask("load", {name: found["pickle"] for name, found in good.items()}, environ)
    there = {name: loaded.error or loaded.result[name] for name in good}
    unloaded = [finding for name in good if (finding := check_loaded(name, good[name]["class"], there[name]))]
    detail = f"nnU-Net finds {len(good)} of {len(reply.result)} by name, and they are the same in a worker process"
    return findings + (unloaded or [Finding("ok", "trainers", detail)])
