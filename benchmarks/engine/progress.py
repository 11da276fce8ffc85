"""What has been scored as one small file, so that a run goes on on a machine that has nothing else of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.engine.experiment import Test, Training
from benchmarks.engine.journal import DECLARED
from benchmarks.engine.operating_points import POINTS, read_points
from benchmarks.engine.runner import Runner, evaluation_name
from nnunet_ext.checkpoints.archive import extract
from nnunet_ext.claims import only_run
from nnunet_ext.errors import UserError
from nnunet_ext.evaluation.scores_table import SCORES, read_scores
from nnunet_ext.files import read_json, written_whole

STEPS = "steps.json"
ABOUT = "about.json"
EVALUATIONS = "evaluations"
FORMAT = 1
RECORD = {"commit", "seconds", "command", "machine"}
PATIENCE_S = 60.0
READABLE = 0o644 << 16  # of a file in an archive
Model = tuple[Training, list[Test]]


class Progress:
    """The file, and the run whose scores it holds. A model is in it as a whole: with its steps and all its scores."""

    def __init__(self, runner: Runner, file: Path) -> None:
        self.runner, self.file = runner, file
        self.experiment, self.journal = runner.experiment, runner.journal
        self._guard = threading.Lock()

    def update(self) -> int:
        """Take over the models that were scored elsewhere and are not here, then write all.

        Their other steps count as done elsewhere, and are done here where another one needs what they made.

        Returns:
            How many models were taken over.

        Raises:
            UserError: if the file is damaged, or its models are not those that are declared now. Then nothing is taken
                and nothing is written.
        """
        with self._guard, only_run(self.file, patience_s=PATIENCE_S):
            taken = self._take() if self.file.exists() else 0
            self._write()
            return taken

    def _write(self) -> None:
        """Write what has been scored, the same bytes for the same content; nothing before anything has been."""
        models = [one for one in self.experiment.scorings() if self._is_scored(one)]
        if not models:
            return
        finished = self.journal.state["finished"]
        wanted = [step for one in models for step in self._steps(one) if step in finished]
        wanted += [step for step in finished if _is_of_the_data(step)]
        entries = {ABOUT: _json(self._about()), STEPS: _json({step: finished[step] for step in sorted(set(wanted))})}
        for table in (table for one in models for table in _tables(one)):
            entries[f"{EVALUATIONS}/{table}"] = (self.journal.folder / EVALUATIONS / table).read_text(encoding="utf-8")
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(self.file) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for entry, content in entries.items():
                info = zipfile.ZipInfo(entry)  # of 1980
                info.external_attr = READABLE
                archive.writestr(info, content, zipfile.ZIP_DEFLATED, 9)

    def _take(self) -> int:
        with tempfile.TemporaryDirectory(dir=self.journal.folder) as temporary:
            found = Path(temporary)
            steps = self._read(found)
            models = [one for one in self.experiment.scorings() if self._is_new(one, steps, found)]
            if not models:
                return 0
            new = {step: steps[step] for one in models for step in self._steps(one) if step in steps}
            scores = {evaluation_name(training, test) for training, tests in models for test in tests}
            new |= {step: steps[step] for step in steps if _is_of_the_data(step) and not self.journal.is_finished(step)}
            tables = [table for one in models for table in _tables(one)]
            for table in tables:
                target = self.journal.folder / EVALUATIONS / table
                target.parent.mkdir(parents=True, exist_ok=True)
                (found / EVALUATIONS / table).replace(target)
        try:
            self._check(self.journal.with_elsewhere(new, scores))
        except UserError as error:
            for table in tables:
                shutil.rmtree((self.journal.folder / EVALUATIONS / table).parent, ignore_errors=True)
            raise UserError(f"Nothing was taken from {self.file}: {error}") from None
        self.journal.add_from_elsewhere(new, scores)
        return len(models)

    def _read(self, folder: Path) -> dict[str, dict[str, Any]]:
        """Unpack the file and return the steps in it."""
        taken = extract(self.file, folder, wanted=_is_expected)
        wrong = f"{self.file} is damaged or no progress of an experiment. Give a file that --progress has written."
        if {PurePosixPath(ABOUT), PurePosixPath(STEPS)} - set(taken):
            raise UserError(wrong)
        about, steps = read_json(folder / ABOUT), read_json(folder / STEPS)
        if not (isinstance(about, dict) and isinstance(steps, dict)) or not all(map(_is_record, steps.values())):
            raise UserError(wrong)
        if (name := about.get("experiment")) != self.experiment.name:
            raise UserError(f"{self.file} is of {name}; this is {self.experiment.name}. Give its own file.")
        if about != self._about():
            raise UserError(
                f"{self.file} was written by another version of this program, or for other folds than the experiment "
                "has now. Keep the file, and give another name."
            )
        return steps

    def _about(self) -> dict[str, Any]:
        """What must be the same for scores to belong together."""
        asked = self.experiment.sizes, self.experiment.all_seeds
        makers = dict.fromkeys([self.experiment.folds, *(one.data.folds for one in self.experiment.methods)])
        folds = _json([make(*asked) for make in makers if make is not None])
        digest = hashlib.sha256(folds.encode()).hexdigest()
        return {"format": FORMAT, "experiment": self.experiment.name, "folds": digest}

    def _check(self, state: dict[str, Any]) -> None:
        """Raise a UserError where something in a state was done otherwise than the experiment says now."""
        journal = self.journal.only_checking()
        journal.state = state
        Runner(self.experiment, journal, self.runner.device).run()

    def _steps(self, model: Model) -> list[str]:
        """The steps that a model has to itself."""
        training, tests = model
        own = [f"{prefix}{training.name}" for prefix in DECLARED if prefix != "evaluate_"]
        return [*own, *(evaluation_name(training, test) for test in tests)]

    def _is_scored(self, model: Model) -> bool:
        """Whether all is here that the file should hold of a model."""
        training, tests = model
        there = all(self.runner.is_scored(training, test) for test in tests)
        return there and all((self.journal.folder / EVALUATIONS / table).is_file() for table in _tables(model))

    def _is_new(self, model: Model, steps: Mapping[str, Any], found: Path) -> bool:
        """Whether a model is whole in the file, and is not trained, in training or scored here."""
        training, tests = model
        scores, trained = [evaluation_name(training, test) for test in tests], f"train_{training.name}"
        if not {trained, *scores} <= set(steps) or all(map(self.journal.is_finished, scores)):
            return False
        is_here = self.journal.is_here(trained) or trained in self.journal.state["running"]
        return not is_here and all(_is_table(found / EVALUATIONS / table) for table in _tables(model))


def _tables(model: Model) -> Iterator[PurePosixPath]:
    """The tables of a model's scores, below the folder of evaluations."""
    training, tests = model
    for test in tests:
        folder = PurePosixPath(evaluation_name(training, test).removeprefix("evaluate_"))
        yield folder / SCORES
        if test.has_curve:
            yield folder / POINTS


def _is_table(file: Path) -> bool:
    try:
        if file.name == SCORES:
            read_scores(file)
        else:
            read_points(file.parent)
    except (UserError, OSError, ValueError, AttributeError):
        return False
    return True


def _is_record(step: object) -> bool:
    return isinstance(step, dict) and set(step) >= RECORD and isinstance(step["command"], str)


def _is_of_the_data(step: str) -> bool:
    """Whether a step made data: its command is shown on the page."""
    return not step.startswith((*DECLARED, "threshold_"))


def _is_expected(path: PurePosixPath) -> bool:
    is_table = len(path.parts) == 3 and path.parts[0] == EVALUATIONS and path.name in (SCORES, POINTS)
    return is_table or str(path) in (ABOUT, STEPS)


def _json(content: object) -> str:
    return json.dumps(content, indent=1, sort_keys=True)
