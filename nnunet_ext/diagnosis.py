"""What can be wrong with an installation, and the command that mends it.

Each check is a function of plain inputs (the environment as a mapping, a version, a path) that returns findings.
What only a fresh interpreter can tell -- does torch import, does nnU-Net find the trainers, do they survive a worker
process -- is asked of a child process, so that a module that crashes cannot take the diagnosis with it. Importing this
module imports neither torch nor nnunetv2.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal

from nnunet_ext.registration import VARIABLE, discovery_folder, extended_value

Severity = Literal["ok", "warning", "problem"]
Shell = Literal["posix", "cmd", "powershell"]

OLDEST_PYTHON = (3, 10)
OLDEST_TORCH = (2, 1, 2)
OLDEST_NNUNET, FIRST_UNKNOWN_NNUNET = (2, 8), (3,)
MEND_NNUNET = 'pip install -U "nnunetv2>=2.8,<3"'
MEND_TORCH = 'pip install -U "torch>=2.1.2,!=2.9.*"'
MEND_PACKAGE = "pip install -U --force-reinstall --no-deps nnunet-ext"
CHILD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Finding:
    """The outcome of one check.

    Attributes:
        severity: ``ok``; ``warning`` (works, but not as well or not for long); ``problem`` (something will fail).
        title: what was looked at, in a word or two.
        detail: what was found.
        mend: the command that mends it; empty if all is well.
    """

    severity: Severity
    title: str
    detail: str
    mend: str = ""


# ------------------------------------------------------------------------------------------------ shell commands


def shell_of(environ: Mapping[str, str], os_name: str = os.name) -> Shell:
    """The shell whose commands the user can paste; only cmd.exe sets PROMPT on Windows."""
    if os_name != "nt":
        return "posix"
    return "cmd" if "PROMPT" in environ else "powershell"


def set_command(name: str, value: str, shell: Shell) -> str:
    """The command that sets an environment variable."""
    if shell == "posix":
        return f"export {name}={shlex.quote(value)}"
    return f"set {name}={value}" if shell == "cmd" else f"$env:{name} = '{value}'"


def unset_command(name: str, shell: Shell) -> str:
    """The command that removes an environment variable."""
    return {"posix": f"unset {name}", "cmd": f"set {name}=", "powershell": f"Remove-Item Env:{name}"}[shell]


def make_folder_command(folder: str, shell: Shell) -> str:
    """The command that creates a folder with its parents."""
    return f"mkdir -p {shlex.quote(folder)}" if shell == "posix" else f'mkdir "{folder}"'


def new_folder_command(name: str, shell: Shell) -> str:
    """The command that makes a folder of the variable's name in the user's home and sets the variable to it."""
    if shell == "posix":
        return f'export {name}="$HOME/{name}" && mkdir -p "$HOME/{name}"'
    if shell == "cmd":
        return f'set {name}=%USERPROFILE%\\{name}&& mkdir "%USERPROFILE%\\{name}"'
    return f'$env:{name} = "$HOME\\{name}"; mkdir $env:{name}'


# ----------------------------------------------------------------------------------------------------- versions


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
        return Finding("problem", "nnunetv2", "not installed in this Python environment.", MEND_NNUNET)
    release = release_of(version)
    if release < OLDEST_NNUNET:
        detail = (
            "this package needs nnunetv2 >= 2.8, because only from there on nnU-Net looks for trainers outside itself; "
            f"found {version}."
        )
        return Finding("problem", "nnunetv2", detail, MEND_NNUNET)
    if release >= FIRST_UNKNOWN_NNUNET:
        detail = f"found {version}; this package is made for nnunetv2 2.8 and later releases of version 2."
        return Finding("problem", "nnunetv2", detail, MEND_NNUNET)
    return Finding("ok", "nnunetv2", version)


def check_torch(answer: Answer, has_nvidia_driver: bool) -> Finding:
    """Does torch import, is it recent enough, and which devices does it see?

    Args:
        answer: of the child's job ``torch``.
        has_nvidia_driver: whether the machine seems to have an NVIDIA GPU, whatever torch says.
    """
    if answer.error:
        return Finding("problem", "torch", f"cannot be imported: {answer.error}", MEND_TORCH)
    version, gpus, has_mps = answer.result["version"], answer.result["cuda"], answer.result["mps"]
    if release_of(version) < OLDEST_TORCH:
        detail = f"found {version}; torch >= 2.1.2 is needed."
        return Finding("problem", "torch", detail, MEND_TORCH)
    if release_of(version)[:2] == (2, 9):
        return Finding("warning", "torch", f"found {version}; nnunetv2 rules torch 2.9 out.", MEND_TORCH)
    if gpus:
        return Finding("ok", "torch", f"{version}, device cuda: {', '.join(gpus)}")
    if has_mps:
        return Finding("ok", "torch", f"{version}, device mps: add -device mps to nnU-Net's commands")
    detail = f"{version}, device cpu only: add -device cpu to nnU-Net's commands"
    if has_nvidia_driver:
        return Finding(
            "warning",
            "torch",
            f"{detail}. nvidia-smi is installed, but this torch sees no GPU: it is a CPU build, the driver is too old "
            "for it, or CUDA_VISIBLE_DEVICES hides the GPU.",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        )
    return Finding("ok", "torch", detail)


# -------------------------------------------------------------------------------------------- nnUNet_extTrainer


@dataclass(frozen=True)
class Entry:
    """One folder of ``nnUNet_extTrainer``.

    Attributes:
        raw: the entry as it stands.
        kept: what should stand there instead; empty if the entry should go.
        fault: what is wrong with it, as the end of a sentence; empty if nothing is.
        ours: whether it is this package's folder or was meant to be.
        harmful: whether nnU-Net would use it to bad effect, where it only passes over the other faulty ones.
    """

    raw: str
    kept: str
    fault: str = ""
    ours: bool = False
    harmful: bool = False


def _is_package(folder: Path) -> bool:
    return folder.name == "nnunet_ext" and (folder / "discovery").is_dir()


def wrong_guess(path: Path) -> str:
    """Why a folder that was plausibly meant to be ours does not work; empty if it is no such folder.

    Args:
        path: an absolute path, links resolved.
    """
    unknown = (
        "nnU-Net forgets the modules of a folder after its lookup, so trainers that live there cannot be passed to "
        "worker processes"
    )
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


def mended_folders(value: str, *, ours_first: bool = False) -> list[str]:
    """The folders the variable should hold: faulty ones corrected or dropped, our own added.

    Args:
        value: the present value.
        ours_first: put our folder before the others, so that nothing in them can stand in its way.
    """
    ours = str(discovery_folder())
    wanted = [ours if entry.ours and entry.kept else entry.kept for entry in read_entries(value)]
    folders = list(dict.fromkeys(folder for folder in wanted if folder))
    if ours_first:
        return [ours, *(folder for folder in folders if folder != ours)]
    return folders if ours in folders else [*folders, ours]


def mend_variable(value: str, shell: Shell, *, ours_first: bool = False) -> str:
    """The command that sets ``nnUNet_extTrainer`` right."""
    mended = os.pathsep.join(mended_folders(value, ours_first=ours_first))
    if shell == "posix" and mended == extended_value(value):
        return f'export {VARIABLE}="$(nnunet_ext path)"'
    if shell == "posix" and mended == str(discovery_folder()):
        return f'export {VARIABLE}="$(nnunet_ext path --only)"'
    return set_command(VARIABLE, mended, shell)


def check_variable(environ: Mapping[str, str], shell: Shell) -> list[Finding]:
    """Will nnU-Net look into this package's folder?"""
    value = environ.get(VARIABLE, "")
    mend = mend_variable(value, shell)
    entries = read_entries(value)
    if not entries:
        state = "is empty" if VARIABLE in environ else "is not set"
        return [
            Finding("problem", VARIABLE, f"{state}: nnU-Net does not know where this package's trainers are.", mend)
        ]
    positions = [i for i, entry in enumerate(entries) if entry.ours and not entry.fault]
    findings = []
    for i, entry in enumerate(entries):
        if entry.fault:
            in_the_way = entry.harmful and (not positions or i < positions[0])
            missed = entry.ours and not positions
            severity: Severity = "problem" if in_the_way or missed else "warning"
            findings.append(Finding(severity, VARIABLE, f"its entry {entry.raw!r} {entry.fault}.", mend))
    if positions:
        findings.append(Finding("ok", VARIABLE, f"holds this package's folder, {entries[positions[0]].raw}"))
    elif not any(entry.ours for entry in entries):
        findings.append(Finding("problem", VARIABLE, "does not hold this package's folder.", mend))
    return findings


# ----------------------------------------------------------------------------------------- copies of the package


def check_copies(imported: Path, search_path: Sequence[str]) -> list[Finding]:
    """Is there another package of this name, which other programs could import instead?

    Args:
        imported: the folder of the package that is running.
        search_path: `sys.path`.
    """
    folders = {Path(entry or ".").resolve() / "nnunet_ext" for entry in search_path}
    others = sorted(folder for folder in folders if _is_python_package(folder) and folder.resolve() != imported)
    if not others:
        return [Finding("ok", "package", f"nnunet_ext is imported from {imported}")]
    return [_other_copy(folder, imported) for folder in others]


def _is_python_package(folder: Path) -> bool:
    return folder.is_dir() and next(folder.glob("*.py"), None) is not None


def _other_copy(folder: Path, imported: Path) -> Finding:
    if (folder / "network_architecture").is_dir() and (folder / "run").is_dir():
        detail = (
            f"{folder} is Lifelong-nnUNet (for nnU-Net v1), which has the same import name; this package is imported "
            f"from {imported}. Only one of the two works in one environment: give this one an environment of its own."
        )
        return Finding("warning", "package", detail, "python -m venv nnunet-ext-env")
    detail = (
        f"two copies are installed: {imported} is the one running now, {folder} is on Python's path too, and another "
        "program may import that one. The command takes one copy out; install again if it was the wrong one."
    )
    return Finding("warning", "package", detail, "pip uninstall nnunet-ext")


# ------------------------------------------------------------------------------------------------ nnU-Net's data


def read_failure(folder: str) -> str:
    """Why a folder's content cannot be listed; empty if it can."""
    try:
        os.listdir(folder)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return ""


def write_failure(folder: str) -> str:
    """Why no file can be written into a folder; empty if one can.

    A file is really written and removed: `os.access` says yes to root, and on read-only mounts.
    """
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
        shell: for the command that mends it.
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
        count = int(value)
    except ValueError:
        detail = f"{value!r} is not a whole number; nnU-Net's commands end with a ValueError."
        return [Finding("problem", name, detail, unset_command(name, shell))]
    if count < 1:
        detail = f"is {count}: planning fails with it. Set it for nnUNetv2_train only."
        return [Finding("warning", name, detail, unset_command(name, shell))]
    return [Finding("ok", name, value)]


# -------------------------------------------------------------------------------------- what a child process says


@dataclass(frozen=True)
class Answer:
    """What a child process found out: a result, or the error that it ended with."""

    result: Any = None
    error: str = ""


def ask(job: str, question: Any, environ: Mapping[str, str]) -> Answer:
    """Have a fresh interpreter do one of `JOBS`.

    The child gets this process's `sys.path`, as a spawned worker does.

    Args:
        job: a key of `JOBS`.
        question: its argument; JSON.
        environ: the child's environment.
    """
    code = (
        "import json, sys; request = json.load(sys.stdin); sys.path[:] = request['path']; "
        "from nnunet_ext.diagnosis import answer; answer(request['job'], request['question'])"
    )
    request = json.dumps({"path": [os.path.abspath(p) for p in sys.path], "job": job, "question": question})
    try:
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            input=request,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=dict(environ),
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {CHILD_TIMEOUT_S} s.")
    try:
        return Answer(**json.loads(child.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        last_words = child.stderr.strip().splitlines()[-1:] or ["no message"]
        return Answer(error=f"the process ended with status {child.returncode}: {last_words[0]}")


def answer(job: str, question: Any) -> None:
    """The child's side of `ask`: do the job and print the answer as the last line of the standard output."""
    stdout = os.dup(1)
    os.dup2(2, 1)  # what imported modules and nnU-Net's lookup print must not mix with the answer
    try:
        reply = {"result": JOBS[job](question)}
    except BaseException as error:
        reply = {"error": describe(error)}
    with os.fdopen(stdout, "w", encoding="utf-8") as file:
        file.write(json.dumps(reply) + "\n")


def describe(error: BaseException) -> str:
    """An exception in one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def see_devices(_: Any) -> dict[str, Any]:
    """Job: torch's version and the devices it can use."""
    torch = import_module("torch")
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {"version": str(torch.__version__), "cuda": gpus, "mps": bool(torch.backends.mps.is_available())}


def import_siblings(folders: Sequence[str]) -> list[dict[str, str]]:
    """Job: import every module that nnU-Net imports before it reaches our folder; returns those that fail."""
    broken = []
    for folder in folders:
        sys.path.insert(0, folder)
        for module in modules_of(folder):
            try:
                import_module(module)
            except BaseException as error:  # SystemExit aborts the lookup as well
                if isinstance(error, ModuleNotFoundError) and error.name == module:
                    continue  # nnU-Net passes over these, too
                broken.append({"folder": folder, "module": module, "error": describe(error)})
        sys.path.remove(folder)
    return broken


def modules_of(folder: str, prefix: str = "") -> Iterator[str]:
    """The modules below a folder, in the order in which nnU-Net imports them."""
    found = list(pkgutil.iter_modules([folder]))
    yield from (prefix + module.name for module in found if not module.ispkg)
    for package in (module.name for module in found if module.ispkg):
        yield from modules_of(os.path.join(folder, package), f"{prefix}{package}.")


def find_trainers(names: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Job: find each trainer (None: every one of this package) as nnU-Net's commands do, twice, and pickle it."""
    if names is None:
        names = [entry.name for entry in import_module("nnunet_ext.registry").TRAINERS]
    find = import_module("nnunetv2.utilities.find_objects").recursive_find_trainer_class_by_name
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        try:
            trainer = find(name)
            again = find(name) is trainer
        except Exception as error:
            found[name] = {"error": describe(error)}
            continue
        found[name] = {"class": qualified_name(trainer), "module": trainer.__module__, "again": again}
        try:
            found[name]["pickle"] = base64.b64encode(pickle.dumps(trainer)).decode("ascii")
        except Exception as error:
            found[name]["unpicklable"] = describe(error)
    return found


def load_trainers(pickles: Mapping[str, str]) -> dict[str, str]:
    """Job: unpickle the trainers, as a spawned worker does; returns their qualified names, or what went wrong."""
    loaded = {}
    for name, text in pickles.items():
        try:
            loaded[name] = qualified_name(pickle.loads(base64.b64decode(text)))
        except Exception as error:
            loaded[name] = describe(error)
    return loaded


def qualified_name(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


JOBS: dict[str, Callable[[Any], Any]] = {
    "torch": see_devices,
    "siblings": import_siblings,
    "find": find_trainers,
    "load": load_trainers,
}


# ------------------------------------------------------------------------------------------------- the trainers


def check_siblings(folders: Sequence[str], mend: str, environ: Mapping[str, str]) -> list[Finding]:
    """Do the modules in the folders before ours import? One that does not aborts nnU-Net's lookup.

    Args:
        folders: those before ours in the variable.
        mend: the command that puts our folder first.
        environ: the environment.
    """
    if not folders:
        return []
    reply = ask("siblings", list(folders), environ)
    if reply.error:
        detail = f"importing the modules in {', '.join(folders)}, as nnU-Net does, failed: {reply.error}"
        return [Finding("problem", "other trainers", detail, mend)]
    return [
        Finding(
            "problem",
            "other trainers",
            f"the module {module['module']} in {module['folder']} fails to import, and that ends nnU-Net's lookup "
            f"before it reaches this package ({module['error']}). Repair the module, or put this package first.",
            mend,
        )
        for module in reply.result
    ]


def check_found(name: str, found: Mapping[str, Any], folders: Sequence[str], mend: str) -> Finding | None:
    """Is what nnU-Net found under a name our trainer, as Python knows it?

    Args:
        name: the trainer's name.
        found: what the job ``find`` says of it.
        folders: those of the variable.
        mend: the command that puts our folder first.

    Returns:
        What is wrong with it; None if nothing is.
    """
    title = "trainers"
    if "error" in found:
        return Finding("problem", title, f"nnU-Net's lookup of {name} failed: {found['error']}", MEND_PACKAGE)
    if found["class"].startswith("nnunetv2."):
        detail = (
            f"name clash: nnU-Net has a {name} of its own, {found['class']}, and its own win. If somebody copied it "
            "into nnunetv2, take the file out."
        )
        return Finding("problem", title, detail, "pip install -U nnunet-ext")
    if not found["class"].startswith("nnunet_ext.trainers."):
        where = source_of(found["module"], folders) or found["class"]
        detail = f"name clash: an earlier folder of {VARIABLE} has a {name}, too, and that one wins: {where}"
        return Finding("problem", title, detail, mend)
    if not found["again"]:
        return Finding("problem", title, f"a second lookup of {name} gives another class than the first.", MEND_PACKAGE)
    if "unpicklable" in found:
        detail = f"{name} cannot be passed to worker processes: {found['unpicklable']}"
        return Finding("problem", title, detail, MEND_PACKAGE)
    return None


def source_of(module: str, folders: Sequence[str]) -> str:
    """The file of a module that lies in one of the folders; empty if it lies elsewhere."""
    files = (Path(folder, *module.split(".")).with_suffix(".py") for folder in folders)
    return next((str(file) for file in files if file.is_file()), "")


def check_loaded(name: str, expected: str, loaded: str) -> Finding | None:
    """Is the trainer the same in a worker process?

    Returns:
        What is wrong with it; None if nothing is.
    """
    if loaded == expected:
        return None
    detail = f"{name} ({expected}) does not reach a worker process; there it is: {loaded}"
    return Finding("problem", "trainers", detail, MEND_PACKAGE)


def check_trainers(environ: Mapping[str, str], shell: Shell, names: Sequence[str] | None = None) -> list[Finding]:
    """Look the trainers up as nnU-Net's commands do, and pass them to a worker process.

    It is done with the variable as `mend_variable` would set it, so that one mistake there does not hide others here.

    Args:
        environ: the environment.
        shell: for the commands that mend.
        names: the trainers to look for; None for every one of this package.
    """
    value = environ.get(VARIABLE, "")
    folders = mended_folders(value)
    mend = mend_variable(value, shell, ours_first=True)
    findings = check_siblings(folders[: folders.index(str(discovery_folder()))], mend, environ)
    if findings:
        folders = mended_folders(value, ours_first=True)
    environ = {**environ, VARIABLE: os.pathsep.join(folders)}
    reply = ask("find", names, environ)
    if reply.error:
        detail = f"nnU-Net's lookup cannot be used: {reply.error}"
        return [*findings, Finding("problem", "trainers", detail, f"{MEND_NNUNET} --force-reinstall")]
    wrong = {n: finding for n, found in reply.result.items() if (finding := check_found(n, found, folders, mend))}
    good = {name: found for name, found in reply.result.items() if name not in wrong}
    findings.extend(wrong.values())
    if not good:
        return findings
    loaded = ask("load", {name: found["pickle"] for name, found in good.items()}, environ)
    unloaded = [
        finding
        for name, found in good.items()
        if (finding := check_loaded(name, found["class"], loaded.error or loaded.result[name]))
    ]
    if not unloaded:
        detail = f"nnU-Net finds {len(good)} of {len(reply.result)} by name, and they are the same in a worker process"
        unloaded = [Finding("ok", "trainers", detail)]
    return findings + unloaded


# --------------------------------------------------------------------------------------------------- all of it


def diagnose(environ: Mapping[str, str]) -> Iterator[Finding]:
    """All checks, quick ones first; each finding as soon as it is there.

    Args:
        environ: the environment to judge, usually `os.environ`.
    """
    shell = shell_of(environ)
    yield check_python(sys.version_info[:3])
    nnunet = check_nnunet(installed_version("nnunetv2"))
    yield nnunet
    yield from check_variable(environ, shell)
    yield from check_copies(Path(__file__).resolve().parent, sys.path)
    yield from check_folders(environ, shell)
    yield from check_workers(environ, shell)
    torch = check_torch(ask("torch", None, environ), shutil.which("nvidia-smi") is not None)
    yield torch
    if "problem" in (nnunet.severity, torch.severity):
        detail = "not looked up: nnunetv2 and torch come first. Run this again when they are mended."
        yield Finding("warning", "trainers", detail, "nnunet_ext doctor")
    else:
        yield from check_trainers(environ, shell)
