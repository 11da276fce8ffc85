"""What has been scored as one small file, so that a run goes on on a machine that has nothing else of it."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.engine.journal import Journal
from benchmarks.engine.operating_points import POINTS
from nnunet_ext.checkpoints.archive import extract
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import SCORES
from nnunet_ext.files import read_json, written_whole

STEPS = "steps.json"
EXPERIMENT = "experiment.json"
TABLES = (SCORES, POINTS)
EVALUATIONS = "evaluations"
CARRIED = ("evaluate_", "threshold_")
"""Steps whose whole product is in the file."""


def write_progress(journal: Journal, experiment: str, file: Path) -> None:
    """Write what has been scored, the same bytes for the same content."""
    finished = {name: step for name, step in sorted(journal.state["finished"].items()) if _is_whole(journal, name)}
    entries: dict[str, str | bytes] = {EXPERIMENT: _json({"experiment": experiment}), STEPS: _json(finished)}
    for folder, name in _tables(journal.folder, finished):
        entries[f"{EVALUATIONS}/{folder}/{name}"] = (journal.folder / EVALUATIONS / folder / name).read_bytes()
    file.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for entry, content in entries.items():
            archive.writestr(zipfile.ZipInfo(entry), content, zipfile.ZIP_DEFLATED, 9)  # the date is 1980's


def take_progress(journal: Journal, experiment: str, file: Path) -> int:
    """Take over what has been scored elsewhere and is not finished here.

    Steps other than scores count as done elsewhere: they are done here where another one needs what they made.

    Returns:
        How many models' scores were taken over.

    Raises:
        UserError: if the file is damaged, or of another experiment.
    """
    with tempfile.TemporaryDirectory(dir=journal.folder) as temporary:
        folder = Path(temporary)
        taken = extract(file, folder, wanted=_is_expected)
        if {PurePosixPath(EXPERIMENT), PurePosixPath(STEPS)} - set(taken):
            raise UserError(f"{file} is no progress of an experiment. Give the file that --progress has written.")
        if (found := read_json(folder / EXPERIMENT).get("experiment")) != experiment:
            raise UserError(f"{file} is the progress of {found}; this is {experiment}. Give its own file.")
        steps = read_json(folder / STEPS)
        new = {name: step for name, step in steps.items() if not journal.is_finished(name)}
        for part, name in _tables(folder, new):
            target = journal.folder / EVALUATIONS / part / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (folder / EVALUATIONS / part / name).replace(target)
    journal.add_from_elsewhere(new, whole=[name for name in new if name.startswith(CARRIED)])
    return sum(name.startswith("evaluate_") for name in new)


def _is_whole(journal: Journal, name: str) -> bool:
    """Whether a step is to be kept: of a score, its table has to be there."""
    return not name.startswith("evaluate_") or any(_tables(journal.folder, {name: None}))


def _tables(folder: Path, steps: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The folder and name of each table of the steps that are scores."""
    parts = [name.removeprefix("evaluate_") for name in steps if name.startswith("evaluate_")]
    yield from ((part, name) for part in parts for name in TABLES if (folder / EVALUATIONS / part / name).is_file())


def _is_expected(path: PurePosixPath) -> bool:
    is_table = len(path.parts) == 3 and path.parts[0] == EVALUATIONS and path.name in TABLES
    return is_table or str(path) in (EXPERIMENT, STEPS)


def _json(content: object) -> str:
    return json.dumps(content, indent=1, sort_keys=True)
