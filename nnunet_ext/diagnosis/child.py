"""What only a fresh interpreter can tell, asked of a child process: a module that crashes cannot take us with it."""

import base64
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from nnunet_ext.errors import in_one_line
from nnunet_ext.messages import last_line
from nnunet_ext.registry import TRAINERS, imported

CHILD_TIMEOUT_S = 600


@dataclass(frozen=True)
class Answer:
    """What a child process found out: a result, or the error that it ended with."""

    result: Any = None
    error: str = ""


def ask(job: str, question: Any, environ: Mapping[str, str]) -> Answer:
    """Have a fresh interpreter, with this process's `sys.path`, do one of `JOBS`; the question is JSON."""
    code = (
        "import json, sys; request = json.load(sys.stdin); sys.path[:] = request['path']; "
        "from nnunet_ext.diagnosis.child import answer; answer(request['job'], request['question'])"
    )
    request = json.dumps({"path": [os.path.abspath(p) for p in sys.path], "job": job, "question": question})
    try:
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            input=request.encode(),
            capture_output=True,
            env=dict(environ),
            timeout=CHILD_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer within {CHILD_TIMEOUT_S} s.")
    try:
        return Answer(**json.loads(child.stdout.splitlines()[-1]))
    except (IndexError, ValueError, TypeError):
        said = last_line(child.stderr.decode(errors="replace")) or "no message"
        return Answer(error=f"the process ended with status {child.returncode}: {said}")


def answer(job: str, question: Any) -> None:
    """The child's side of `ask`: do the job and print the answer as the last line of the standard output."""
    stdout = os.dup(1)
    os.dup2(2, 1)  # what imported modules and nnU-Net's lookup print must not mix with the answer
    try:
        reply = {"result": JOBS[job](question)}
    except BaseException as error:
        reply = {"error": in_one_line(error)}
    with os.fdopen(stdout, "w", encoding="utf-8") as file:
        file.write(json.dumps(reply) + "\n")


def see_devices(_: Any) -> dict[str, Any]:
    """Job: torch's version and the devices it can use."""
    torch = import_module("torch")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = [torch.cuda.get_device_name(i) for i in range(count)]
    return {"version": str(torch.__version__), "cuda": gpus, "mps": bool(torch.backends.mps.is_available())}


def import_siblings(folders: Sequence[str]) -> list[dict[str, str]]:
    """Job: import every module that nnU-Net imports before it reaches our folder; returns those that fail."""
    failed = ((folder, *one) for folder in folders for one in imported(folder)[1].items())
    return [{"folder": folder, "module": module, "error": error} for folder, module, error in failed]


def find_trainers(names: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Job: find each trainer (None: every one of this package) as nnU-Net's commands do, twice, and pickle it."""
    find = import_module("nnunetv2.utilities.find_objects").recursive_find_trainer_class_by_name
    found: dict[str, dict[str, Any]] = {}
    for name in [entry.name for entry in TRAINERS] if names is None else names:
        try:
            trainer = find(name)
            again = find(name) is trainer
            found[name] = {"class": qualified_name(trainer), "module": trainer.__module__, "again": again}
            found[name]["pickle"] = base64.b64encode(pickle.dumps(trainer)).decode("ascii")
        except Exception as error:
            problem = "unpicklable" if name in found else "error"
            found.setdefault(name, {})[problem] = in_one_line(error)
    return found


def load_trainers(pickles: Mapping[str, str]) -> dict[str, str]:
    """Job: unpickle the trainers, as a spawned worker does; returns their qualified names, or what went wrong."""
    loaded = {}
    for name, text in pickles.items():
        try:
            loaded[name] = qualified_name(pickle.loads(base64.b64decode(text)))
        except Exception as error:
            loaded[name] = in_one_line(error)
    return loaded


def qualified_name(cls: type) -> str:
    """Module and name of a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


JOBS: dict[str, Callable[[Any], Any]] = {"torch": see_devices, "siblings": import_siblings}
JOBS |= {"find": find_trainers, "load": load_trainers}
